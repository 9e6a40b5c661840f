"""Processes that fork a successor and die, over and over: who kills by a list of pids is always one late."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inbounds.sandbox.host import jail_python
from inbounds.sandbox.identity import identity
from inbounds.sandbox.jail import spawn
from inbounds.sandbox.spec import Bind, JailSpec

CLASS = "resources"
REQUIREMENT = "F7"
KIND = "host"
# sixteen chains, each in sessions of its own, that leave a byte at every step and end by themselves after four seconds
CHAINS = """
import os, sys, time
end = time.monotonic() + 4
for _ in range(16):
    if os.fork() == 0:
        while time.monotonic() < end:
            if os.fork():
                os._exit(0)
            os.setsid()
            beat = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
            os.write(beat, b".")
            os.close(beat)
        os._exit(0)
time.sleep(4)
"""


def _beats(work: Path) -> Path:
    """The file that is written while a chain goes on."""
    work.mkdir(mode=0o777)
    beat = work / "beat"
    beat.touch()
    beat.chmod(0o666)
    return beat


def _after(beat: Path, kill: Any) -> dict[str, Any]:
    """Let the chains run, kill them, and see whether they go on."""
    until = time.monotonic() + 10
    while beat.stat().st_size < 30 and time.monotonic() < until:
        time.sleep(0.01)
    before = beat.stat().st_size
    kill()
    then = beat.stat().st_size
    time.sleep(0.3)
    return {"steps": before, "later": beat.stat().st_size - then}


def control(arena: Any) -> dict[str, Any]:
    """Find every process that has the file's name in its arguments, and kill those."""
    beat = _beats(arena.scratch / "work")
    process = subprocess.Popen([jail_python(), "-I", "-S", "-c", CHAINS, str(beat)])

    def kill() -> None:
        found = [int(name) for name in os.listdir("/proc") if name.isdigit() and str(beat) in _arguments(name)]
        for pid in found:
            if pid != os.getpid():
                _signal(pid)

    facts = _after(beat, kill)
    process.kill()
    process.wait()
    return facts


def attack(arena: Any) -> dict[str, Any]:
    """The jail's end is its namespace's."""
    who = identity(str(arena.scratch))
    beat = _beats(arena.scratch / "work")
    os.chown(beat.parent, who.uid, who.gid)
    argv = (jail_python(), "-I", "-S", "-c", CHAINS, "/work/beat")
    spec = JailSpec("coder", argv, cwd="/", binds=(Bind(str(beat.parent), "/work", writable=True),), deadline_ms=9_000)
    own = arena.scratch / "jail"
    own.mkdir()
    jail = spawn(spec, identity=who, scratch=own)
    try:
        jail.go()
        return _after(beat, jail.kill)
    finally:
        jail.kill()


def _arguments(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""  # it has ended since: which is what makes a list late


def _signal(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # as above


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Whether the chains went on behind the kill."""
    said = after["said"]
    if said["steps"] == 0:
        raise ValueError("no chain began")
    return ("ESCAPED" if said["later"] else "BLOCKED"), f"{said['steps']} steps, {said['later']} more behind the kill"
