"""The control groups of a slot: ceilings in whichever version has the controller, freeze and kill in version 2 only.

Named inbounds-slot-N, at the top of each hierarchy or where systemd delegated to the service. Version 1's freezer is
never used: a SIGKILL waits there for the thaw. Knows nothing of runs, volumes or policy.
"""

import contextlib
import errno
import os
import re
import select
import signal
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from inbounds.host.protocol import SLOTS, uid_of

QUOTA_US = 1_000  # one percent of the kernel's default period of 100 ms
KILL_SECONDS = 20.0  # 1,000 processes take 0.1 s on an idle machine
REMOVE_SECONDS = 2.0  # the kernel counts the dead for some milliseconds more
FILE_BYTES_MAX = 1 << 22  # cgroup.procs of half a million processes
UNLIMITED = 1 << 60  # version 1 says "no limit" as a number near 2**63
LEAF = "inbounds-host"  # where the service itself steps aside to, in a group that systemd delegated to it
# kind -> controller, files in version 1, files in version 2; memory stands before swap, which version 1 asks for
KINDS = {
    "memory": ("memory", ("memory.limit_in_bytes",), ("memory.max",)),
    "swap": ("memory", ("memory.memsw.limit_in_bytes",), ("memory.swap.max",)),
    "processes": ("pids", ("pids.max",), ("pids.max",)),
    "cpu": ("cpu", ("cpu.cfs_quota_us",), ("cpu.max",)),
    "io": ("io", ("blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device"), ("io.max",)),
}
LEAST = {"memory": 1 << 20, "swap": 0, "processes": 1, "cpu": 1, "io": 0}  # less, and no jail could run at all
PROBE = {"memory": 1 << 26, "swap": 1 << 24, "processes": 10, "cpu": 50, "io": 1 << 24}
ENFORCED = "enforced"
GONE = {errno.ENOENT, errno.ESRCH, errno.ENODEV}  # a process that has ended, a group that was removed meanwhile
STATUS = re.compile(r"^State:\t(\w).*?^Uid:\t([\d\t]+)", re.DOTALL | re.MULTILINE)


@dataclass(slots=True)
class Group:
    """One slot's directories. places: controller -> (version, directory); unified: version 2's directory or ""."""

    uid: int
    unified: str
    places: dict[str, tuple[int, str]]
    refused: dict[str, str] = field(default_factory=dict)  # kind -> why the kernel did not take it

    @classmethod
    def make(
        cls, slot: int, *, memory: int, swap: int, processes: int, cpu_percent: int, io_bytes_per_second: int = 0
    ) -> "Group":
        """A new group with ceilings in bytes, processes and percent of one CPU (0 for io: none), where this host can.

        A controller that this host lacks is no error: `limits` says what is in force. ValueError for impossible ones.
        OSError where the kernel refuses one that it has, or where the slot has a group already; nothing is left then.
        """
        group = cls.named(_name(slot), uid_of(slot))
        ask = {"memory": memory, "swap": swap, "processes": processes, "cpu": cpu_percent, "io": io_bytes_per_second}
        group.create(ask)
        if group.refused:
            group.remove()
            raise OSError(f"ceilings refused: {group.refused}")
        return group

    @classmethod
    def find(cls, slot: int) -> "Group | None":
        """The group that the slot has already, from before a restart; None where it has none in any hierarchy."""
        group = cls.named(_name(slot), uid_of(slot))
        group.places = {name: place for name, place in group.places.items() if os.path.isdir(place[1])}
        group.unified = group.unified if os.path.isdir(group.unified) else ""
        return group if group.unified or group.places else None

    @classmethod
    def named(cls, name: str, uid: int) -> "Group":
        """A group of this name that may not be there yet."""
        unified, places = _hierarchies()
        return cls(uid, unified and f"{unified}/{name}", {k: (v, f"{path}/{name}") for k, (v, path) in places.items()})

    def create(self, ask: dict[str, int]) -> None:
        """Make the directories, none or all, and write the ceilings; what the kernel refused is in `refused`."""
        for kind, value in ask.items():
            if not LEAST[kind] <= value < UNLIMITED:
                raise ValueError(f"{kind} is {value}, {LEAST[kind]} to {UNLIMITED} is possible")
        made: list[str] = []
        try:
            for path in self._directories():
                os.mkdir(path, 0o755)
                made.append(path)
        except OSError:
            for path in made:
                os.rmdir(path)
            raise
        for kind in ("memory", "swap", "processes", "cpu"):
            value = ask[kind] * QUOTA_US if kind == "cpu" else ask[kind]
            if kind == "swap" and self._version("memory") == 1:
                value += ask["memory"]  # there it is the ceiling of both together
            self._limit(kind, str(value))
        for name in os.listdir("/sys/block") if ask["io"] else ():
            self.throttle(_read(f"/sys/block/{name}/dev").strip(), ask["io"])

    def _version(self, controller: str) -> int:
        return self.places.get(controller, (0, ""))[0]

    def files(self, kind: str) -> list[str]:
        """The files of one ceiling that are there: none where the host lacks the controller or the accounting."""
        version, path = self.places.get(KINDS[kind][0], (0, ""))
        paths = [f"{path}/{name}" for name in KINDS[kind][version]] if version else []
        return [path for path in paths if os.path.exists(path)]

    def _limit(self, kind: str, text: str) -> None:
        for path in self.files(kind):
            try:
                _write(path, text)
            except OSError as error:
                self.refused[kind] = f"{os.path.basename(path)} {text}: {error.strerror}"

    def throttle(self, device: str, rate: int) -> None:
        """Bound reads and writes of one disk ("MAJOR:MINOR") in bytes a second; a new loop device needs it, too.

        Version 1 does not know whose pages the kernel writes back later: there it holds for reads and direct writes.
        """
        self._limit("io", f"{device} rbps={rate} wbps={rate}" if self._version("io") == 2 else f"{device} {rate}")  # noqa: PLR2004 - the version

    def limits(self) -> dict[str, int]:
        """What the kernel says is in force, in the units of `make`; a kind without a ceiling is not in it."""
        found: dict[str, int] = {}
        for kind in KINDS:
            lines = [line for path in self.files(kind) for line in _read(path).splitlines()]
            if kind == "io":  # the widest of the devices', which are the same unless somebody else wrote one
                values = [int(n) for line in lines for n in re.findall(r"(?: |[rw]bps=)(\d+)\b", line)]
            else:
                values = [int(line.split()[0]) for line in lines if line.split()[0].isdigit()]
            if values and max(values) < UNLIMITED:
                found[kind] = max(values) // (QUOTA_US if kind == "cpu" else 1)
        if "swap" in found and self._version("memory") == 1:
            found["swap"] -= found.get("memory", 0)
        return found

    def remove(self) -> bool:
        """Remove every directory; False where somebody is inside still."""
        until = time.monotonic() + REMOVE_SECONDS
        for path in self._directories():
            while os.path.isdir(path):
                try:
                    os.rmdir(path)
                except OSError:
                    if time.monotonic() > until:
                        return False
                    time.sleep(0.005)
        return True

    def _directories(self) -> list[str]:
        """Each directory once: controllers may be mounted together."""
        return sorted({path for _, path in self.places.values()} | {self.unified} - {""})

    def identity(self) -> tuple[int, int] | None:
        """Number and depth of the version 2 group, as the packet filter knows it."""
        path, depth = self.unified, 0
        while path and os.stat(path).st_dev == os.stat(os.path.dirname(path)).st_dev:
            path, depth = os.path.dirname(path), depth + 1
        return (os.stat(self.unified).st_ino, depth) if self.unified else None

    def join_fds(self) -> list[int]:
        """Open descriptors (close-on-exec; the caller closes them): who writes b"0" to each is inside every group."""
        opened: list[int] = []
        try:
            for path in self._directories():
                opened += [os.open(f"{path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)]
        except OSError:
            for fd in opened:
                os.close(fd)
            raise
        return opened

    def members(self) -> set[int]:
        """The processes inside, in any hierarchy."""
        return {pid for path in self._directories() for pid in _pids(path)}

    def count(self) -> int:
        """How many processes are inside."""
        return len(self.members())

    def freeze(self, timeout: float) -> bool:
        """Stop everything inside, and whatever comes in later; whether the kernel says so within `timeout` seconds."""
        if not self.unified:
            return False
        _write(f"{self.unified}/cgroup.freeze", "1")
        return self._event(b"frozen 1", timeout)

    def kill(self, seconds: float = KILL_SECONDS) -> int:
        """Kill everything inside and every process of the slot's user, frozen or not; how many are left (0).

        The kernel kills a version 2 group at one stroke, what is being forked included. Whatever is not in it is found
        in the other hierarchies and by its user. An empty group is thawed, so that it can be used again.
        """
        until = time.monotonic() + seconds
        dead = set[int]()
        try:
            if self.unified:
                inside = _pids(self.unified)
                _write(f"{self.unified}/cgroup.kill", "1")
                # the kernel's word for all of these; asking for each once more took a tenth of the whole kill
                dead = inside if self._event(b"populated 0", seconds) else dead
        except OSError as error:
            if error.errno not in GONE:  # there is none before 5.14: the loop below does it
                raise
        if left := self._survivors(dead):
            with self._no_births():
                while left and time.monotonic() < until:
                    for pid in left:
                        self._signal(pid)
                    time.sleep(0.002)
                    left = self._survivors()
        with contextlib.suppress(FileNotFoundError):  # removed by who was faster
            if self.unified and not left:
                _write(f"{self.unified}/cgroup.freeze", "0")
        return len(left)

    def _survivors(self, dead: AbstractSet[int] = frozenset()) -> set[int]:
        """Who may execute still, in a group or of the user; `dead` need not be looked at."""
        everybody = map(int, filter(str.isdigit, os.listdir("/proc")))
        # the groups leave those out that only wait for their parent
        return self.members() | {pid for pid in everybody if pid not in dead and _executes(pid, self.uid)}

    def _signal(self, pid: int) -> None:
        """SIGKILL by a descriptor, with a look behind it: the number may be somebody else's by now."""
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            try:
                if pid in self.members() or _owner(pid) == self.uid:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)

    @contextlib.contextmanager
    def _no_births(self) -> Iterator[None]:
        """While it is killed one by one nothing in it may fork, else a fork bomb outruns the loop."""
        before = {path: _read(path).strip() for path in self.files("processes")}
        for path in before:
            _write(path, "0")
        try:
            yield
        finally:
            for path, text in before.items():
                _write(path, text)

    def _event(self, line: bytes, timeout: float) -> bool:
        """Wait for a line of cgroup.events; whether it came."""
        until = time.monotonic() + timeout
        with open(f"{self.unified}/cgroup.events", "rb", buffering=0) as events:
            waiting = select.poll()
            waiting.register(events, select.POLLPRI)
            while line not in events.read(FILE_BYTES_MAX).splitlines():
                if (left := until - time.monotonic()) <= 0:
                    return False
                waiting.poll(left * 1000)
                events.seek(0)
        return True


def mechanisms() -> dict[str, str]:
    """memory, swap, processes, cpu, io, freeze, kill -> "enforced" or "absent: why"; each really tried, then undone."""
    group = Group.named(f"inbounds-probe-{os.getpid()}", -1)
    try:
        group.create(PROBE)
    except OSError as error:
        return dict.fromkeys([*PROBE, "freeze", "kill"], f"absent: no group can be made: {error.strerror}")
    try:
        held, told = group.limits(), dict[str, str]()
        for kind, wanted in PROBE.items():
            absent = f"no hierarchy has {KINDS[kind][0]} with this ceiling"
            if group.files(kind):
                absent = group.refused.get(kind, f"asked for {wanted}, in force is {held.get(kind)}")
            told[kind] = ENFORCED if held.get(kind) == wanted else f"absent: {absent}"
        return told | _try_freeze(group)
    finally:
        group.remove()


def _try_freeze(group: Group) -> dict[str, str]:
    if not group.unified:
        return dict.fromkeys(("freeze", "kill"), "absent: no version 2 hierarchy is mounted")
    reading, writing = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if not child:
        try:
            for fd in group.join_fds():
                os.write(fd, b"0")
            os.write(writing, b"1")
            while True:
                signal.pause()
        finally:
            os._exit(1)
    try:
        os.close(writing)
        frozen = os.read(reading, 1) == b"1" and group.freeze(REMOVE_SECONDS)
        killed = os.path.exists(f"{group.unified}/cgroup.kill") and not group.kill(REMOVE_SECONDS)
        return {
            "freeze": ENFORCED if frozen else "absent: a process did not freeze",
            "kill": ENFORCED if killed else "absent: there is no cgroup.kill, or it left a process",
        }
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _name(slot: int) -> str:
    if not 0 <= slot < SLOTS:
        raise ValueError(f"slot {slot}, 0 to {SLOTS - 1} exist")
    return f"inbounds-slot-{slot}"


def _hierarchies() -> tuple[str, dict[str, tuple[int, str]]]:
    """Version 2's directory to make groups in ("" where not mounted), and controller -> (version, directory)."""
    unified, places = "", dict[str, tuple[int, str]]()
    wanted = {controller for controller, _, _ in KINDS.values()}
    for line in _read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind == "cgroup2" and not unified:
            unified = _delegated(left.split()[4])
        elif kind == "cgroup":
            mounted = {"io" if name == "blkio" else name for name in re.split("[, ]", options)}
            places |= {name: (1, left.split()[4]) for name in wanted & mounted - set(places)}
    for name in wanted & set(_read(f"{unified}/cgroup.controllers").split()) if unified else ():
        with contextlib.suppress(OSError):  # what can't be handed down bounds nobody, and `limits` lacks it
            _write(f"{unified}/cgroup.subtree_control", f"+{name}")
            places[name] = (2, unified)
    return unified, places


def _delegated(mount: str) -> str:
    """The service's own group where systemd delegated it (Delegate=yes), which it steps out of; else the top."""
    inside = next((line[3:] for line in _read("/proc/self/cgroup").splitlines() if line.startswith("0::")), "/")
    own = f"{mount}{inside}".rstrip("/").removesuffix(f"/{LEAF}")
    with contextlib.suppress(OSError):  # no such mark: not delegated
        if own != mount and os.getxattr(own, "trusted.delegate") == b"1":
            os.makedirs(f"{own}/{LEAF}", exist_ok=True)
            _write(f"{own}/{LEAF}/cgroup.procs", "0")  # a group that hands controllers down may hold no process
            return own
    return mount


def status(pid: int | str) -> tuple[str, list[int]]:
    """A process: state letter ("" where it is gone), and the four user numbers."""
    found = STATUS.search(_read(f"/proc/{pid}/status"))
    return (found[1], [int(uid) for uid in found[2].split()]) if found else ("", [])


def _owner(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except FileNotFoundError:
        return None


def _pids(path: str) -> set[int]:
    """The processes in the group of this directory."""
    return {int(pid) for pid in _read(f"{path}/cgroup.procs").split()}


def _executes(pid: int, uid: int) -> bool:
    """Whether it is the user's and a thread of it may run still; cheap: a thousand dead may wait for the host's init.

    Both are told by one look at a directory that is its user's always, dead or undumpable.
    """
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        task = os.stat(f"/proc/{pid}/task")
        if task.st_uid != uid:
            return False
        if task.st_nlink > 3:  # noqa: PLR2004 - two and one for each thread
            return True  # the first one may have ended before the others
        os.readlink(f"/proc/{pid}/exe")  # what has no memory any more has no program
        return True
    return False


def _read(path: str) -> str:
    """A file of the kernel's; "" where it is not there, or its process is gone."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(FILE_BYTES_MAX)
    except OSError as error:
        if error.errno in GONE:
            return ""
        raise


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
