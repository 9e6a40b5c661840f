"""Faults for real runs: the supervisor killed at an exact moment, every process of a run watched, the CLI as people
type it. What is killed is always a real process, with SIGKILL."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from runrig import Living, Ran, Rig

from inbounds.demo import acts
from inbounds.gateway import ledger
from inbounds.journal.verify import verify_run
from inbounds.run import authorize, launch
from inbounds.sandbox.hardened import PLACE

GONE_SECONDS = 8.0  # "within seconds": the kernel ends a namespace in less than one on an idle machine
CLI_SECONDS = 120

# Stands in for the interpreter when the supervisor is started: the same program, with one function that kills it.
DYING = """#!{python} -I
import importlib, os, signal, sys
sys.argv = ["inbounds.run", *sys.argv[4:]]
module, _, path = {target!r}.partition(":")
holder = importlib.import_module(module)
*parents, name = path.split(".")
for parent in parents:
    holder = getattr(holder, parent)
was = getattr(holder, name)
def dies(*args, **kwargs):
    if {when!r} == "behind":
        was(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(holder, name, dies)
from inbounds.run.__main__ import main
sys.exit(main())
"""

HANGS: dict[str, Any] = {"conversations": [{"turns": [{"fault": {"kind": "hang"}}]}]}


@dataclass(frozen=True)
class Process:
    """A process that is told from a later one with the same number by its start time."""

    pid: int
    started: str

    @property
    def alive(self) -> bool:
        found = _stat(self.pid)
        return found is not None and found[1] == self.started and found[2] != "Z"


def _stat(pid: int) -> tuple[int, str, str] | None:
    """(parent, start time, state)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), fields[19], fields[0]


def family(pid: int) -> list[Process]:
    """A process and all its descendants, those inside jails included (they show in the host's /proc)."""
    found = {int(name): stat for name in os.listdir("/proc") if name.isdigit() and (stat := _stat(int(name)))}
    wanted, grown = {pid}, True
    while grown:
        more = {p for p, stat in found.items() if stat[0] in wanted} - wanted
        wanted |= more
        grown = bool(more)
    return [Process(p, found[p][1]) for p in sorted(wanted) if p in found]


def gone(processes: list[Process], seconds: float = GONE_SECONDS) -> None:
    """Wait until none of them is alive."""
    deadline = time.monotonic() + seconds
    while left := [p for p in processes if p.alive]:
        assert time.monotonic() < deadline, [_command(p.pid) for p in left]
        time.sleep(0.02)


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    return str(pid)


def lines(ran: Ran) -> list[bytes]:
    """The journal's whole lines as they are on disk."""
    path = ran.run_dir / launch.JOURNAL
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def strike(living: Living, *, alone: bool = False) -> list[bytes]:
    """SIGKILL the supervisor; nothing of the run may live on. Returns the journal's lines of that moment."""
    mine = family(living.started.process.pid)
    assert alone or len(mine) > 1, "the control: there was something to leave behind"
    living.kill_supervisor()
    gone(mine)
    return lines(living.ran)


@contextlib.contextmanager
def dying(tmp_path: Path, target: str, when: str = "before") -> Iterator[None]:
    """Supervisors that start within this kill themselves when they call `target` (module:Class.function)."""
    program = tmp_path / "inbounds-dying"
    program.write_text(DYING.format(python=sys.executable, target=target, when=when))
    program.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        # of supervisors alone: whatever else is started meanwhile, a layer's build for one, is not what dies
        patch.setattr(launch, "sys", SimpleNamespace(executable=str(program)))
        yield


def died(living: Living) -> list[bytes]:
    """Wait until a supervisor has killed itself; the journal's lines then."""
    mine: set[Process] = set()
    deadline = time.monotonic() + 60
    while living.started.process.poll() is None:
        mine.update(family(living.started.process.pid))
        assert time.monotonic() < deadline, "it did not die"
        time.sleep(0.02)
    assert living.started.process.returncode == -9, living_log(living)
    gone(list(mine))
    return lines(living.ran)


def living_log(living: Living) -> str:
    return (living.ran.run_dir / "logs" / launch.LOG).read_text()


def inbounds(
    rig: Rig, *args: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """The command as a person types it, with the stage's key as theirs."""
    person = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": str(rig.stage.repository.parent),
        "INBOUNDS_HOME": str(rig.home.path),
        PLACE: os.environ[PLACE],
        **(env or {}),
    }
    return subprocess.run(
        [sys.executable, "-m", "inbounds", *args],
        cwd=cwd or rig.stage.repository,
        env=person,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=CLI_SECONDS,
        check=False,
    )


def facts(done: "subprocess.CompletedProcess[str]") -> Any:
    """The JSON on stdout."""
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise AssertionError((done.returncode, done.stdout, done.stderr)) from None


def error(done: "subprocess.CompletedProcess[str]", exit_code: int) -> dict[str, str]:
    """The error object of a --json command that must end with this exit code; no traceback anywhere."""
    assert "Traceback" not in done.stderr, done.stderr
    said = facts(done)
    assert done.returncode == exit_code == said["exit"], (done.returncode, done.stdout, done.stderr)
    found = said["error"]
    assert isinstance(found, dict)
    assert set(found) == {"found", "expected", "fix", "where"}
    assert found["found"]
    return found


def ended(ran: Ran, before: list[bytes], code: str) -> None:
    """The run is over with this code, nothing that stood in the journal is lost, and all of it verifies."""
    after = lines(ran)
    assert after[: len(before)] == before, "a line was lost"
    assert ran.code == code, ran.data("stop.decided")
    found = verify_run(ran.run_dir)
    assert found.ok, [check for check in found.checks if not check.ok]
    assert ran.kinds().count("run.finished") == 1
    assert ran.manifest["exit"]["code"] == code
    assert (ran.run_dir / "report.html").stat().st_size > 0


def totals(ran: Ran) -> ledger.Totals:
    """What the ledger says of the run."""
    (found,) = ledger.spend(ran.home.ledger, kind="run", name=ran.run_id)
    return found


def provided(rig: Rig, script: Any) -> None:
    """The stage's person has the model server as their provider: `--model demo-model` then works on the command line."""
    server = rig.plays(script)
    place = rig.stage.repository.parent / ".config" / "inbounds"
    place.mkdir(parents=True, exist_ok=True)
    settings, keys = acts.provider(server)
    for upstream in settings["upstreams"].values():
        del upstream["name"]
    for model in settings["models"].values():
        del model["name"]
    (place / "gateway.yaml").write_text(json.dumps(settings))
    for name, held in keys["upstreams"].items():
        file = rig.home.keys / name
        file.touch(mode=0o600)
        file.write_text(held["key"])


def signed(rig: Rig) -> None:
    """The stage's plan is signed, so that `run --yes` starts."""
    contract = rig.order().contract
    authorize.authorize(rig.home, contract, ask=lambda: True, key=rig.stage.key)


def git(repository: Path, *args: str) -> str:
    """A person's git in their repository."""
    env = {"HOME": str(repository.parent), "PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1"}
    person = ("-c", "user.name=A Person", "-c", "user.email=person@parcel.example", "-c", "safe.directory=*")
    command = ["git", *person, "-c", "protocol.file.allow=always", *args]
    done = subprocess.run(command, cwd=repository, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def holders(place: Path) -> list[Any]:
    """This test's own supervisors that still use `place` (after a failure), as things to terminate."""
    found = []
    for child in family(os.getpid())[1:]:
        command = _command(child.pid)
        if "inbounds.run" in command and str(place) in command:
            found.append(_Left(child.pid))
    return found


@dataclass(frozen=True)
class _Left:
    pid: int

    def terminate(self) -> None:
        """End it, and wait."""
        mine = family(self.pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, 9)
        gone(mine)
