"""Hold a running jail back from outside: slow it down, or freeze it so that no process of it executes any more.

By a control group where this host gives us one, else process by process, looking again until nothing new shows. Nothing
here needs more privilege than the supervisor has. Knows nothing of why, and never lets go again.
"""

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from inbounds.sandbox.census import Process, look, members, send, strays, tasks, threads
from inbounds.sandbox.cgroup import Cgroup

FREEZE_SECONDS = 2.0  # 200 forking processes take 0.1 s; what takes longer is killed instead
SLOW_SECONDS = 2.0  # the same; what an agent makes after that, the next call finds
EVENT_SECONDS = 0.2  # between two looks at who is outside; a group that freezes does so in 20 ms
QUIET_LOOKS = 2  # looks in a row that find nobody at large: one alone may have missed who changed its parent just then
NICE = 19
PERCENT_MAX = 99
AUTOGROUP = re.compile(r"/autogroup-(\d+) nice (-?\d+)")
AUTOGROUP_SECONDS = 0.11  # the kernel lets an ordinary user weigh ten groups a second

CGROUP_FREEZE, SIGSTOP, KILLED, ENDED = "cgroup.freeze", "SIGSTOP", "killed", "ended"


@dataclass(slots=True)
class Restraint:
    """What holds one jail back; `init` is its PID 1 as the host sees it."""

    init: Process
    group: Cgroup | None = field(default=None)

    def enter(self) -> None:
        """Give it a group of its own where this host has one for us, before its program begins: all is born inside."""
        for cpu in (True, False):
            group = Cgroup.make(str(self.init.pid), cpu=cpu)
            if group is None:
                continue
            try:
                group.take(self.init.pid)
            except OSError:
                group.remove()  # it takes nobody in
                continue
            self.group = group
            return

    def freeze(self, kill: Callable[[], object]) -> str:
        """Freeze all of it: "cgroup.freeze", "SIGSTOP", "killed" (by `kill`, where neither did), or "ended" before."""
        if not self._lives():
            return ENDED
        grouped = self.group is not None and _frozen_from_now_on(self.group)
        with contextlib.suppress(OSError):  # forbidden half-way: the last way is left
            if self._settles(self._at_large_frozen if grouped else self._at_large_stopped):
                return CGROUP_FREEZE if grouped else SIGSTOP
        if not self._lives():  # it ended meanwhile, and its group with it
            return ENDED
        kill()
        return KILLED

    def slow(self, percent: int) -> str:
        """Leave it `percent` of the CPUs ("cpu.max 50%"), or only what nobody else wants ("nice 19")."""
        assert 0 < percent <= PERCENT_MAX, "the caller has checked it"
        if self.group is not None and self.group.limit_cpu(percent):
            return f"cpu.max {percent}%"
        try:
            settled = self._settles(self._eager, SLOW_SECONDS)
        except PermissionError as error:
            return f"not slowed: {error.strerror}"
        return f"nice {NICE}" if settled else f"nice {NICE}, except for what begins faster than it is found"

    def release(self) -> None:
        """Remove the group once the jail has ended."""
        if self.group is not None:
            self.group.remove()

    # -- each look acts on those who are at large still, and says who they were

    def _settles(self, look: Callable[[], int], seconds: float = FREEZE_SECONDS) -> bool:
        """Look again until nobody was at large some times in a row; False where that took too long."""
        until, quiet = time.monotonic() + seconds, 0
        while quiet < QUIET_LOOKS:
            quiet = 0 if look() else quiet + 1
            if time.monotonic() > until:
                return False
        return True

    def _lives(self) -> bool:
        """Whether PID 1 does: the kernel ends all others before it."""
        init = look(self.init.pid)
        return init is not None and init.started == self.init.started and not init.ended

    def _at_large_frozen(self) -> int:
        """Nobody is born in a group that stands, nor leaves it; whoever is found elsewhere is taken in."""
        assert self.group is not None
        frozen = self.group.frozen(EVENT_SECONDS)
        outside = [
            process
            for process in strays(self.init, self.group.processes())
            if any(task.state not in "XZ" for task in tasks(process))
        ]
        for process in outside:
            self.group.take(process.pid)
        return len(outside) + (not frozen and self._lives())

    def _at_large_stopped(self) -> int:
        found = [process for process in members(self.init) if any(task.runs for task in tasks(process))]
        for process in found:
            send(process, signal.SIGSTOP)
        return len(found)

    def _eager(self) -> int:
        """PID 1 is ours: it stays quick, to see deadlines and memory; its children get their own nice from the spec."""
        found = 0
        for process in members(self.init):
            if process.pid == self.init.pid or process.ended:
                continue
            for task in threads(process):
                if task.nice < NICE:
                    found += 1
                    with contextlib.suppress(ProcessLookupError):
                        os.setpriority(os.PRIO_PROCESS, task.pid, NICE)
            if process.session != self.init.session:  # which it shares with programs of ours
                found += _weigh_session(process.pid)
        return found


def _frozen_from_now_on(group: Cgroup) -> bool:
    try:
        group.freeze()
    except OSError:
        return False  # an old kernel
    return True


def _weigh_session(pid: int) -> bool:
    """Where the kernel weighs sessions first and processes within them (autogroup), weigh this one's down, too."""
    path = f"/proc/{pid}/autogroup"
    try:
        with open(path, encoding="ascii") as file:
            told = AUTOGROUP.match(file.read(100))
    except OSError:
        return False  # it is gone, or this kernel has none
    if told is None or int(told[2]) >= NICE:
        return False
    try:
        with open(path, "wb", buffering=0) as weight:
            weight.write(str(NICE).encode())
    except BlockingIOError:
        time.sleep(AUTOGROUP_SECONDS)
    except OSError:
        return False  # it is gone, or not ours to weigh
    return True
