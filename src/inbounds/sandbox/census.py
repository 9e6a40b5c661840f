"""Which processes of this host are a jail's, seen from outside: all that descend from its PID 1.

Orphans of a PID namespace become children of its init, so descent is membership; parents are readable by everybody,
namespaces are not. A look is never atomic: who acts on it looks again until nothing new shows. Knows nothing of why.
"""

import os
import signal
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

STAT_BYTES_MAX = 4_096  # a line of 52 numbers and a name of 64 bytes


@dataclass(frozen=True, slots=True)
class Process:
    """One process at one moment. `started` (ticks since boot) tells users of a pid apart; `state` is a letter."""

    pid: int
    parent: int
    session: int
    state: str
    nice: int
    threads: int
    started: int

    @property
    def runs(self) -> bool:
        """Whether this thread of it may execute: neither stopped nor dead."""
        return self.state not in "TtXZ"

    @property
    def ended(self) -> bool:
        """Whether nothing of it can execute any more."""
        return self.state in "XZ" and self.threads <= 1


def look(pid: int, task: int | None = None) -> Process | None:
    """The process now, or one of its threads; None where it is gone."""
    path = f"/proc/{pid}/stat" if task is None else f"/proc/{pid}/task/{task}/stat"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        line = os.read(fd, STAT_BYTES_MAX)
    except ProcessLookupError:
        return None
    finally:
        os.close(fd)
    fields = line.rpartition(b")")[2].split()  # the name before it may hold anything
    return Process(
        task or pid, int(fields[1]), int(fields[3]), fields[0].decode(), *(int(fields[n]) for n in (16, 17, 19))
    )


def members(init: Process) -> list[Process]:
    """`init` and all its descendants now, ended ones not yet reaped included; [] once `init` itself is gone."""
    everybody = _everybody(frozenset())
    return _family([process for process in everybody if _same(process, init)], everybody)


def strays(init: Process, inside: AbstractSet[int]) -> list[Process]:
    """The members that are not `inside`, where all of `inside` are members; those are not looked at, which is quick."""
    everybody = _everybody(inside)
    first = [process for process in everybody if process.parent in inside or _same(process, init)]
    return _family(first, everybody)


def _same(process: Process, other: Process) -> bool:
    return (process.pid, process.started) == (other.pid, other.started)


def _everybody(apart_from: AbstractSet[int]) -> list[Process]:
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return [found for pid in pids if pid not in apart_from and (found := look(pid)) is not None]


def _family(family: list[Process], everybody: list[Process]) -> list[Process]:
    """With all their descendants."""
    children: dict[int, list[Process]] = {}
    for process in everybody:
        children.setdefault(process.parent, []).append(process)
    known = {process.pid for process in family}
    for process in family:  # grows while it is gone through
        new = [child for child in children.get(process.pid, ()) if child.pid not in known]
        known.update(child.pid for child in new)
        family += new
    return family


def tasks(process: Process) -> list[Process]:
    """The threads of a process that may not be as it seems: all, where the first one is dead and others live."""
    if process.state != "Z" or process.threads <= 1:
        return [process]
    return threads(process)


def threads(process: Process) -> list[Process]:
    """Every thread of a process now."""
    try:
        names = os.listdir(f"/proc/{process.pid}/task")
    except OSError:
        return []
    return [found for name in names if (found := look(process.pid, int(name))) is not None]


def send(process: Process, number: signal.Signals) -> None:
    """Signal exactly this process, not who may have its pid by now; one that is gone needs none."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        now = look(process.pid)
        if now is not None and now.started == process.started:
            signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)
