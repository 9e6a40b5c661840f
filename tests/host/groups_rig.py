"""Starts programs in a slot's groups as the slot's user, and the load of a thousand processes that will not die.

Takes slots 70 to 79, which a service on the same host hands out last. Knows nothing of the service.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inbounds.host.groups import Group
from inbounds.host.protocol import uid_of

MIB = 1 << 20
PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin") or ""  # one that any user may execute
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not sys.platform.startswith("linux") or not PYTHON,
    reason="the host service is root's: needs root on Linux, and a python3 in /usr that any user may execute",
)

# One process of every kind that is hard to kill: orphans of double forks, new sessions, stopped ones, and a fork bomb
# that keeps the group at its ceiling while it is frozen and killed.
LOAD = """
import os, signal, sys, time
bomb, count = int(sys.argv[1]), int(sys.argv[2])
def sleeper(kind):
    if kind == "double" and os.fork():
        os._exit(0)
    if kind in ("session", "double"):
        os.setsid()
    if kind == "deaf":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    os.execv("/bin/sleep", ["sleep", "1000"])
kinds = ("double", "session", "stopped", "deaf", "plain")
for i in range(count):
    kind = kinds[i % len(kinds)]
    child = os.fork()
    if not child:
        sleeper(kind)
    if kind == "double":
        os.waitpid(child, 0)
    if kind == "stopped":
        os.kill(child, signal.SIGSTOP)
os.write(1, b"ready")
while bomb:
    try:
        if os.fork():
            os._exit(0) if bomb == 2 else None
        elif i % 2:
            os.setsid()
        i += 1
    except OSError:
        time.sleep(0.001)
time.sleep(1000)
"""


@contextlib.contextmanager
def group(
    slot: int, *, memory: int = 2048 * MIB, processes: int = 1200, cpu: int = 400, io: int = 0
) -> Iterator[Group]:
    """A slot's group, killed and removed at the end whatever happens."""
    made = Group.make(slot, memory=memory, swap=0, processes=processes, cpu_percent=cpu, io_bytes_per_second=io)
    try:
        yield made
    finally:
        assert made.kill() == 0
        assert made.remove()


def start(where: Group | None, code: str, *args: str, uid: int, cwd: Path | str = "/") -> "subprocess.Popen[bytes]":
    """A program of this user's, in the group before its first instruction; with None outside of any.

    `cwd` is entered as root: the user need not be able to walk there.
    """
    fds = where.join_fds() if where else []

    def join() -> None:
        for fd in fds:
            os.write(fd, b"0")
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)

    try:
        argv = [PYTHON, "-I", "-c", code, *args]
        return subprocess.Popen(argv, preexec_fn=join, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=cwd)  # noqa: PLW1509 - no threads here
    finally:
        for fd in fds:
            os.close(fd)


@contextlib.contextmanager
def ended(process: "subprocess.Popen[bytes]") -> Iterator["subprocess.Popen[bytes]"]:
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        process.wait(20)
        if process.stdout:
            process.stdout.close()


def alive(uid: int) -> list[int]:
    """Processes of a user that may execute still: a count that shares no line with the product's."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with contextlib.suppress(OSError):
                status = (place / "status").read_text(errors="replace")
                if re.search(rf"^Uid:.*\b{uid}\b", status, re.MULTILINE) and "\nState:\tZ" not in status:
                    found.append(int(place.name))
    return found


def until(holds: Callable[[], bool], seconds: float = 30) -> bool:
    """Whether it came to hold within a time that a busy machine keeps."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


__all__ = ["LOAD", "MIB", "alive", "ended", "group", "needs_root", "start", "uid_of", "until"]
