"""The supervisor killed by SIGKILL while its jail runs a daemon: nobody is left to end it (E14, F7)."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

CLASS = "resources"
REQUIREMENT = "F7"
KIND = "host"
PR_SET_CHILD_SUBREAPER = 36
SURVIVAL_SECONDS_MAX = 5
WORK = "import os, time; os.fork(); os.setsid() if os.fork() == 0 else 0; time.sleep(30)"
NAIVE = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-I", "-S", "-c", sys.argv[1]], start_new_session=True)
time.sleep(0.3)
print("now", flush=True)
time.sleep(30)
"""
REAL = """
import sys, time
from pathlib import Path
from inbounds.sandbox.host import jail_python
from inbounds.sandbox.identity import identity
from inbounds.sandbox.jail import spawn
from inbounds.sandbox.spec import JailSpec
spec = JailSpec(role="coder", argv=(jail_python(), "-I", "-S", "-c", sys.argv[1]), cwd="/", deadline_ms=30_000)
jail = spawn(spec, identity=identity(), scratch=Path(sys.argv[2]))
jail.go()
time.sleep(0.3)
print("now" if jail.wait(0) is None else "ended", flush=True)
time.sleep(30)
"""


def _orphans(program: str, scratch: str) -> dict[str, Any]:
    """Start a supervisor, kill it, and count what becomes ours: this process is the reaper of all below it."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    supervisor = subprocess.Popen([sys.executable, "-c", program, WORK, scratch], stdout=subprocess.PIPE)
    assert supervisor.stdout
    said = supervisor.stdout.readline().decode().strip()
    supervisor.kill()
    supervisor.wait()
    supervisor.stdout.close()
    until = time.monotonic() + (SURVIVAL_SECONDS_MAX if program is REAL else 0.3)
    left = True
    while left and time.monotonic() < until:
        left = _reaped()
        time.sleep(0.01)
    survivors = [int(name) for name in os.listdir("/proc") if name.isdigit() and _ours(name)]
    for pid in survivors:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return {"said": said, "survivors": len(survivors)}


def _reaped() -> bool:
    """Take the ends of those that have ended; whether any child is left."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return False
    return True


def _ours(pid: str) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1]) == os.getpid()
    except OSError:
        return False


def control(arena: Any) -> dict[str, Any]:
    """A supervisor that starts its work as an ordinary child."""
    return _orphans(NAIVE, str(arena.scratch))


def attack(arena: Any) -> dict[str, Any]:
    """A supervisor with a real jail."""
    return _orphans(REAL, str(arena.scratch))


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """What is left of its work."""
    said = after["said"]
    if said["said"] != "now":
        raise ValueError(f"the supervisor said {said['said']!r}")
    return ("ESCAPED" if said["survivors"] else "BLOCKED"), f"{said['survivors']} processes outlived their supervisor"
