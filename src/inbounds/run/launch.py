"""Starting a supervisor: the run's directory, the frozen contract in it, and one detached process that owns it.

Provider keys go from here to the gateway through a sealed memory file whose descriptor the supervisor passes on unread.
"""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from inbounds.contracts.bound import Contract, decode
from inbounds.contracts.errors import HostError, OperatorError
from inbounds.journal import signing
from inbounds.run.home import Home
from inbounds.sandbox.hardened import PLACE
from inbounds.store.descent import delete_tree

CONTRACT = "contract.json"
BLAST = "blast_radius.json"
JOURNAL = "journal.jsonl"
SETTINGS = "settings.json"
LOG = "supervisor.log"
# What a supervisor and its children may see of the operator's environment: places and proxies, never secrets.
KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR",
                    "DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "WAYLAND_DISPLAY", PLACE)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Started:
    """A supervisor that runs: its process and the run's directory."""

    run_dir: Path
    process: "subprocess.Popen[bytes]"


def prepare(home: Home, contract: Contract, blast: Mapping[str, Any], settings: Mapping[str, Any]) -> Path:
    """Make the run's directory with the frozen contract; `settings` is how, never what (agent paths, gateway hosts)."""
    run_dir = home.run(contract.run_id)
    new = run_dir.with_name(f".new-{run_dir.name}")  # no run by its name: a directory is there whole or not at all
    try:
        new.mkdir(mode=0o700, parents=True)
        (new / "logs").mkdir(mode=0o700)
        _write(new / CONTRACT, contract.encode())
        _write(new / BLAST, json.dumps(blast, sort_keys=True, ensure_ascii=False).encode())
        _write(new / SETTINGS, _encoded(settings))
        if run_dir.exists():
            raise OperatorError("there is a run of this name already", where=str(run_dir), fix="run again")
        new.rename(run_dir)
    except OSError as error:
        raise HostError(
            f"the run's directory cannot be made: {error.strerror}",
            where=str(run_dir),
            expected="room for a run below the state directory",
            fix=f"df -h {home.path}; then inbounds discard an old run, or export INBOUNDS_HOME=/a/larger/place",
        ) from error
    finally:
        if new.exists():
            delete_tree(str(new))
    return run_dir


def read_contract(run_dir: Path) -> Contract:
    """The frozen contract of a run; HostError if what is there is none."""
    try:
        return decode((run_dir / CONTRACT).read_bytes())
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise HostError(
            f"the contract cannot be read: {error}",
            where=str(run_dir / CONTRACT),
            expected="the contract as it was signed",
            fix=f"inbounds verify {run_dir.name}",
        ) from error


def settings_sha256(settings: Mapping[str, Any]) -> str:
    """The hash that binds settings.json into the contract; the same before it is written and after it is read."""
    return hashlib.sha256(_encoded(settings)).hexdigest()


def _encoded(settings: Mapping[str, Any]) -> bytes:
    return json.dumps(settings, sort_keys=True).encode()


def start(home: Home, run_dir: Path, upstreams: bytes, mode: str = "start") -> Started:
    """Start the supervisor; it lives on when this process ends. `upstreams` holds provider settings with keys.

    `mode` is start, recover or resume. The journal's signing key goes the same way, in a memory file of its own.
    """
    keys_fd = _sealed(upstreams)
    signing_fd = _sealed(signing.read_key(home.keys))
    try:
        with (run_dir / "logs" / LOG).open("ab") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-m",
                    "inbounds.run",
                    str(run_dir),
                    "--mode",
                    mode,
                    "--keys-fd",
                    str(keys_fd),
                    "--signing-fd",
                    str(signing_fd),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(home),
                cwd="/",
                pass_fds=(keys_fd, signing_fd),
                start_new_session=True,
            )
    except OSError as error:
        raise HostError(f"the supervisor cannot be started: {error.strerror}", where=str(run_dir)) from error
    finally:
        os.close(keys_fd)
        os.close(signing_fd)
    return Started(run_dir, process)


def environment(home: Home) -> dict[str, str]:
    """The environment of supervisor and promoter."""
    kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    return {**kept, "INBOUNDS_HOME": str(home.path), "PYTHONDONTWRITEBYTECODE": "1"}


def _sealed(content: bytes) -> int:
    fd = os.memfd_create("inbounds-upstreams", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def _write(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
