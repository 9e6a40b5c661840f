"""A control group of one jail's own, for freezing it at one stroke and for bounding its share of the CPUs.

Version 2 only (a frozen group of version 1 can't be killed). Nothing of the host's is configured: a group is made below
the supervisor's own or, where that is delegated, beside it, and uses the controllers that are there. Named inbounds-*,
removed with its jail; what a killed supervisor left empty goes when the next one is made, or by `clean`.
"""

import contextlib
import os
import select
import time
from collections.abc import Iterator
from dataclasses import dataclass

from inbounds.sandbox.census import look

PREFIX = "inbounds-"
PERIOD_US = 100_000  # the kernel's own default for cpu.max
REMOVE_SECONDS = 1.0  # the kernel counts the dead for some milliseconds more
FILE_BYTES_MAX = 1 << 20  # cgroup.procs of a jail: a hundred thousand pids
EVENTS_BYTES_MAX = 1 << 12  # two short lines
DELEGATE = ("user.delegate", "trusted.delegate")  # systemd's marks on a group that it leaves to others


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One group's directory."""

    path: str

    @classmethod
    def make(cls, name: str, *, cpu: bool = False) -> "Cgroup | None":
        """A group inbounds-PID-STARTED-NAME, PID being ours; None where this host gives us none, or none with cpu."""
        for base in _bases():
            if cpu and "cpu" not in _read(f"{base}/cgroup.subtree_control").split():
                continue
            _sweep(base)
            path = f"{base}/{PREFIX}{_self()}-{name}"
            try:
                os.mkdir(path, 0o755)
            except FileExistsError:
                pass  # of this very jail, from a moment ago
            except OSError:
                continue  # not ours to write to: a usual host, without delegation
            return cls(path)
        return None

    @classmethod
    def best(cls, name: str) -> "Cgroup | None":
        """One with a share of the CPUs where there is such a controller, else one without; None where there is none."""
        return cls.make(name, cpu=True) or cls.make(name)

    def holds(self, pid: int) -> bool:
        """Whether the process is inside."""
        return pid in self.processes()

    def take(self, pid: int) -> None:
        """Move a process in, all its threads; its children are born here. OSError; one that is gone needs no moving."""
        with contextlib.suppress(ProcessLookupError):
            _write(f"{self.path}/cgroup.procs", str(pid))

    def processes(self) -> set[int]:
        """The processes inside with a thread that lives; all threads of a process are in the same group."""
        return {int(number) for number in _read(f"{self.path}/cgroup.procs").split()}

    def freeze(self) -> None:
        """Have the kernel freeze all that is inside or comes in; it does so a moment later. OSError where it can't."""
        _write(f"{self.path}/cgroup.freeze", "1")

    def frozen(self, seconds: float) -> bool:
        """Whether the kernel says within so many seconds that nothing inside executes."""
        until = time.monotonic() + seconds
        waiting = select.poll()
        with contextlib.suppress(OSError):  # it went with its jail: nothing is frozen in it
            events = os.open(f"{self.path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
            try:
                waiting.register(events, select.POLLPRI)
                while b"frozen 1" not in os.pread(events, EVENTS_BYTES_MAX, 0).splitlines():
                    if (left := until - time.monotonic()) <= 0:
                        return False
                    waiting.poll(left * 1000)
                return True
            finally:
                os.close(events)
        return False

    def limit_cpu(self, percent: int) -> bool:
        """At most so much of the CPUs that this process may use. False where there is no such controller."""
        quota = PERIOD_US * len(os.sched_getaffinity(0)) * percent // 100
        try:
            _write(f"{self.path}/cpu.max", f"{quota} {PERIOD_US}")
        except OSError:
            return False
        return True

    def remove(self) -> bool:
        """Remove it; False where somebody is inside still."""
        until = time.monotonic() + REMOVE_SECONDS
        while True:
            try:
                os.rmdir(self.path)
            except FileNotFoundError:
                return True
            except OSError:
                if time.monotonic() > until:
                    return False
                time.sleep(0.005)
            else:
                return True


def clean() -> None:
    """Remove what supervisors left behind that were killed: for a recovery, which may make no jail of its own."""
    for base in _bases():
        _sweep(base)


def _self() -> str:
    """This process, told apart from who has its number later: a host may be through with all of them in minutes."""
    me = look(os.getpid())
    assert me is not None, "/proc shows every process itself"
    return f"{me.pid}-{me.started}"


def _sweep(base: str) -> None:
    """Groups of the dead go; one with somebody inside stays (the kernel refuses)."""
    with contextlib.suppress(OSError):  # one that can't be listed has none of ours
        for name in os.listdir(base):
            owner, _, rest = name.removeprefix(PREFIX).partition("-")
            if name.startswith(PREFIX) and owner.isdigit():
                alive = look(int(owner))
                if alive is None or rest.partition("-")[0] != str(alive.started):
                    with contextlib.suppress(OSError):
                        os.rmdir(f"{base}/{name}")


def _bases() -> Iterator[str]:
    """Directories that a group may be made in: this process's own, then the one above it if it was delegated to us."""
    own = _own()
    if own is None:
        return
    if os.access(own, os.W_OK):
        yield own
    above = os.path.dirname(own)
    if os.path.exists(f"{above}/cgroup.procs") and os.access(above, os.W_OK) and _delegated(above):
        yield above


def _own() -> str | None:
    """The directory of this process's own version 2 group."""
    inside = next((line[3:] for line in _read("/proc/self/cgroup").splitlines() if line.startswith("0::")), None)
    for line in _read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        root, place = left.split()[3:5]
        if right.split()[0] == "cgroup2" and inside is not None:
            within = os.path.relpath(inside, root)
            path = os.path.normpath(os.path.join(place, within))
            return path if not within.startswith("..") and os.path.isdir(path) else None
    return None


def _delegated(path: str) -> bool:
    """Whether a group was handed to us: to a user by its owner, to root (who may write all) by systemd's mark."""
    if os.geteuid() != 0:
        return True
    for name in DELEGATE:
        with contextlib.suppress(OSError):  # no such mark
            if os.getxattr(path, name) == b"1":
                return True
    return False


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(FILE_BYTES_MAX)
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
