"""Holds one control's processes, so that whatever becomes of the drill none of them outlives it.

Started as `python -I -S keeper.py LIVE_FD RESULT_FD DEADLINE_MS ARGV…`. It is the subreaper of all that it starts; it
counts what outlives the program, kills it, and says so. At the end of LIVE_FD (a dead drill) it kills at once. Standard
library only; knows nothing of cases.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time

PR_SET_CHILD_SUBREAPER = 36
SETTLE_S = 0.1  # a child that was ending anyway has this long before it counts
KILL_S = 10.0  # thousands of processes of a fork bomb's control take a second


def children() -> list[int]:
    """Every living process that descends from this one, nearest first."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read(4096).rpartition(b")")[2].split()
        except OSError:
            continue  # it has ended since
        if fields and fields[0] not in (b"Z", b"X"):
            parents.setdefault(int(fields[1]), []).append(int(name))
    found = list(parents.get(os.getpid(), []))
    for pid in found:  # grows while it is gone through
        found += parents.get(pid, [])
    return found


def reap() -> None:
    """Take the ends of those that have ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def kill_all() -> None:
    """End every descendant, again and again until a look finds none."""
    until = time.monotonic() + KILL_S
    while (left := children()) and time.monotonic() < until:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        reap()
        time.sleep(0.002)
    reap()


def survivors() -> int:
    """How many descendants are still there when they have had time to end."""
    until = time.monotonic() + SETTLE_S
    while True:
        reap()
        left = children()
        if not left or time.monotonic() >= until:
            return len(left)
        time.sleep(0.01)


def main() -> None:
    """Start it, wait for its end, its deadline or the drill's, and leave nothing."""
    live, result, deadline_ms = (int(text) for text in sys.argv[1:4])
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.set_inheritable(live, False)
    os.set_inheritable(result, False)
    started = time.monotonic()
    pid = os.posix_spawn(sys.argv[4], sys.argv[4:], dict(os.environ))
    ended = os.pidfd_open(pid)
    waiting = select.poll()
    waiting.register(ended, select.POLLIN)
    waiting.register(live, select.POLLIN | select.POLLHUP)
    ready = {fd for fd, _ in waiting.poll(deadline_ms)}
    reason, code, number = "abandoned" if live in ready else "deadline", 0, 0
    if ended in ready:
        status = os.waitpid(pid, 0)[1]
        code, number = (os.waitstatus_to_exitcode(status), 0) if os.WIFEXITED(status) else (0, os.WTERMSIG(status))
        reason = "exited"
    ms = int((time.monotonic() - started) * 1000)
    alive = survivors() if reason == "exited" else len(children())
    kill_all()
    facts = {"reason": reason, "code": code, "signal": number, "alive": alive, "ms": ms}
    with contextlib.suppress(OSError):  # a dead drill reads nothing
        os.write(result, json.dumps(facts).encode())


if __name__ == "__main__":
    main()
