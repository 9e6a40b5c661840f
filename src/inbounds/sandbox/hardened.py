"""The host service's client (ADR 11): is it there, what can it give, and a slot of it in which a run's jails live.

What answers must be root: whoever else listens at that place is refused. Nothing that is said here is a path or a name;
the service is told integers and descriptors. Knows nothing of runs.
"""

import contextlib
import errno
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from inbounds.contracts.errors import HostError
from inbounds.host import protocol
from inbounds.host.protocol import Mechanism, Op
from inbounds.sandbox import seccomp
from inbounds.sandbox.fileevents import FileEvents
from inbounds.sandbox.maturity import INSTALL
from inbounds.sandbox.restraint import CGROUP_FREEZE, KILLED, NICE
from inbounds.sandbox.spec import ENFORCED, HARDENED

SOCKET = f"{protocol.RUN_DIRECTORY}/{protocol.SOCKET_NAME}"
PLACE = "INBOUNDS_HOST_SOCKET"  # where it is, never whether it is trusted: what answers there must be root
GROUP = "inbounds-operators"
# How long an answer may take. An image of a terabyte is made within two minutes, one that is torn down as well; the
# others are system calls, on a machine that may be swapping.
SECONDS_MAX = {Op.OPEN: 150, Op.ATTACH: 150, Op.DISCARD: 150, Op.DETACH: 60, Op.KILL: 60, Op.HALT: 60}
SECONDS_MAX_USUAL = 20
# What a dead supervisor's connection leads to (kill, unmount) may not be over when the next one asks.
LETTING_GO_SECONDS = 60
STATUS_BYTES_MAX = 16 << 10

# Which of the service's bits stands for which mechanisms.
BITS: dict[Mechanism, tuple[str, ...]] = {
    Mechanism.USER: ("dedicated_user",),
    Mechanism.IMAGE: ("volume_image", "bytes_limit", "inodes_limit"),
    Mechanism.ENCRYPTED: ("encryption",),
    Mechanism.ACL: ("acl",),
    Mechanism.MEMORY: ("cgroup_memory",),
    Mechanism.SWAP: ("cgroup_swap",),
    Mechanism.PROCESSES: ("cgroup_processes",),
    Mechanism.CPU: ("cgroup_cpu",),
    Mechanism.IO: ("cgroup_io",),
    Mechanism.FREEZE: ("freezer",),
    Mechanism.FILTER: ("packet_filter",),
    Mechanism.EVENTS: ("file_events",),
    Mechanism.WATCHDOG: ("watchdog",),
}
REFUSALS = {
    errno.EUSERS: "every slot is taken",
    errno.EDQUOT: "you have as many slots, or as much of the disk, as one user may",
    errno.ENOSPC: "the disk has no room for the image",
    errno.EBUSY: "it is in use, or frozen",
    errno.ENOENT: "there is no such slot",
    errno.EPERM: "the slot is another user's",
    errno.EOPNOTSUPP: "this host cannot give what was asked for",
    errno.EINVAL: "a limit is out of what the service takes",
}
GROUPED = ("cgroup_memory", "cgroup_swap", "cgroup_processes", "cgroup_cpu", "cgroup_io", "freezer")


class RefusalError(HostError):
    """The service answered with an errno, which is `number`."""

    def __init__(self, op: Op, number: int) -> None:
        """In words."""
        said = REFUSALS.get(number, os.strerror(number))
        full = number in {errno.EUSERS, errno.EDQUOT, errno.ENOSPC}
        super().__init__(
            f"the host service refused {op.name}: {said} ({errno.errorcode.get(number, number)})",
            fix="inbounds discard an old run" if full else "inbounds doctor",
        )
        self.number = number


class ServiceGoneError(HostError):
    """The service, or this connection to it, is no more: what ran in the slot is dead or dying."""


def place() -> str:
    """The service's socket."""
    return os.environ.get(PLACE) or SOCKET


def connect(path: str = "", owner: int = 0) -> socket.socket:
    """A connection to the service; HostError with what to type. `owner`: whose process must answer."""
    path = path or place()
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        made.settimeout(SECONDS_MAX_USUAL)
        made.connect(path)
        _, uid, _ = struct.unpack("iII", made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    except OSError as error:
        made.close()
        why = {
            errno.ENOENT: "the host service is not installed",
            errno.EACCES: f"you are not in the group {GROUP}",
        }.get(error.errno or 0, f"the host service does not answer ({error.strerror or error})")
        raise HostError(why, where=path, fix=INSTALL) from None
    if uid != owner:
        made.close()
        raise HostError(f"what answers belongs to user {uid}, not to root", where=path, fix=INSTALL)
    return made


def named(bits: int) -> dict[str, str]:
    """The service's bits as mechanisms: name -> "enforced" or "absent: why"."""
    have = {name for bit, names in BITS.items() if bits & bit for name in names}
    return {name: ENFORCED if name in have else "absent: the host service has it not in force" for name in HARDENED}


def ask(connection: socket.socket, op: Op, slot: int = protocol.NO_SLOT, fds: Sequence[int] = (),
        **numbers: int) -> tuple[protocol.Reply, list[int]]:  # fmt: skip
    """One request and its answer with the descriptors beside it; ServiceGoneError where there is no right answer."""
    received: list[int] = []
    try:
        connection.settimeout(SECONDS_MAX.get(op, SECONDS_MAX_USUAL))
        socket.send_fds(connection, [protocol.pack_request(op, slot, **numbers)], list(fds))
        answer, received, flags, _ = socket.recv_fds(connection, protocol.MESSAGE_BYTES + 1, 2)
        if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
            answer = b""
        reply = protocol.unpack_reply(op, answer)
    except (OSError, protocol.ProtocolError) as error:
        for fd in received:
            os.close(fd)
        raise ServiceGoneError(f"the host service is gone: {op.name}: {error}", fix="inbounds doctor") from error
    if reply.errno:
        for fd in received:
            os.close(fd)
        return reply, []
    return reply, received


@dataclass(frozen=True, slots=True)
class Reach:
    """Whether hardened runs can be had here. enforcement: mechanism of HARDENED -> "enforced" or "absent: why"."""

    problem: str = ""
    fix: str = ""
    enforcement: Mapping[str, str] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        """Whether the service answered and serves this user."""
        return not self.problem


def _absent(why: str, fix: str) -> Reach:
    return Reach(why, fix, dict.fromkeys(HARDENED, f"absent: {why}"))


UNASKED = _absent("policy says rootless", "")


def reach(path: str = "", owner: int = 0) -> Reach:
    """Ask the service what it can give; never raises for what a host lacks."""
    try:
        with connect(path, owner) as connection:
            reply, _ = ask(connection, Op.HELLO)
    except HostError as error:
        return _absent(error.found, error.fix)
    if reply.errno or reply.numbers["version"] != protocol.VERSION:
        return _absent("the host service is of another version", INSTALL)
    return Reach(enforcement=named(reply.numbers["mechanisms"]))


def halt(numbers: Sequence[int], *, kill: bool = False, path: str = "", owner: int = 0) -> dict[int, str]:
    """Freeze, or kill, all that runs in these slots of ours, whoever holds them; slot -> "cgroup.freeze" or "killed".

    What the kernel does not freeze in time is killed. No jail begins in them before they are attached again. A slot
    that is not in the answer had no process to freeze, is not ours, survived, or nobody answers.
    """
    told = _halted(numbers, kill, path, owner)
    if kill:
        return {number: KILLED for number, (_, left) in told.items() if not left}
    frozen = {number: CGROUP_FREEZE for number, (frozen, there) in told.items() if frozen and there}
    at_large = [number for number, (frozen, there) in told.items() if there and not frozen]
    return frozen | (halt(at_large, kill=True, path=path, owner=owner) if at_large else {})


def _halted(numbers: Sequence[int], kill: bool, path: str, owner: int) -> dict[int, tuple[bool, int]]:
    """What the service answered for each, frozen and processes; all are asked before the first has answered."""
    asked: dict[int, socket.socket] = {}
    told: dict[int, tuple[bool, int]] = {}
    with contextlib.ExitStack() as stack:
        for number in numbers:
            with contextlib.suppress(OSError, HostError):  # who asks looks again, and says what lives
                connection = stack.enter_context(connect(path, owner))
                connection.send(protocol.pack_request(Op.HALT, number, kill=int(kill)))
                asked[number] = connection
        for number, connection in asked.items():
            connection.settimeout(SECONDS_MAX[Op.HALT])
            with contextlib.suppress(OSError, protocol.ProtocolError):
                reply = protocol.unpack_reply(Op.HALT, connection.recv(protocol.MESSAGE_BYTES + 1))
                if not reply.errno:
                    told[number] = bool(reply.numbers["frozen"]), reply.numbers["processes"]
    return told


@dataclass(frozen=True, slots=True)
class SlotLimits:
    """The ceilings of one slot. cpu_percent is of one CPU; deadline_ms Unix time, when the watchdog ends it."""

    bytes: int
    inodes: int
    memory_bytes: int
    processes: int
    cpu_percent: int
    deadline_ms: int
    encrypt: bool = False
    io_bytes_per_second: int = 0


class Slot:
    """A slot held by one connection: when that ends, by whomever, all that runs in it is killed and it is unmounted.

    Thread-safe. `view` is where the supervisor's files stand; `files`, if anything, tells what its processes did there.
    """

    def __init__(self, connection: socket.socket, path: str, reply: protocol.Reply, events: int) -> None:
        """Use `open` or `attach`."""
        self._connection, self._lock = connection, threading.Lock()
        self._closed = False
        self.number = reply.slot
        self.uid, self.gid, self.bits = (reply.numbers[name] for name in ("uid", "gid", "mechanisms"))
        self.view = protocol.view_of(self.number, os.path.dirname(path))
        self.files = FileEvents(events, settle=self.state) if events != -1 else None
        self.limits: SlotLimits | None = None

    @classmethod
    def open(cls, limits: SlotLimits, path: str = "", owner: int = 0) -> "Slot":
        """A new slot with these ceilings; HostError where the service has none, or the host no room."""
        flags = protocol.Flag(0)
        reachable = reach(path, owner)
        if reachable.problem:
            raise HostError(reachable.problem, fix=reachable.fix)
        if limits.encrypt:
            flags |= protocol.Flag.ENCRYPT
        if reachable.enforcement["file_events"] == ENFORCED:
            flags |= protocol.Flag.EVENTS
        made = cls._begin(
            Op.OPEN, protocol.NO_SLOT, path, owner,
            bytes=limits.bytes, inodes=limits.inodes, memory_bytes=limits.memory_bytes, processes=limits.processes,
            cpu_percent=limits.cpu_percent, deadline_ms=limits.deadline_ms, flags=int(flags),
            io_bytes_per_second=limits.io_bytes_per_second,
        )  # fmt: skip
        made.limits = limits
        return made

    @classmethod
    def attach(cls, number: int, path: str = "", owner: int = 0) -> "Slot":
        """A slot of ours from before; what still ran in it is dead. HostError where it is gone or held by another."""
        until = time.monotonic() + LETTING_GO_SECONDS
        while True:
            try:
                return cls._begin(Op.ATTACH, number, path, owner)
            except RefusalError as error:
                if error.number != errno.EBUSY or time.monotonic() > until:
                    raise
            time.sleep(0.1)

    @classmethod
    def _begin(cls, op: Op, slot: int, path: str, owner: int, **numbers: int) -> "Slot":
        path = path or place()
        connection = connect(path, owner)
        try:
            reply, fds = ask(connection, op, slot, (), **numbers)
        except BaseException:
            connection.close()
            raise
        if reply.errno:
            connection.close()
            raise RefusalError(op, reply.errno)
        return cls(connection, path, reply, fds[0] if fds else -1)

    def _ask(self, op: Op, fds: Sequence[int] = (), **numbers: int) -> tuple[dict[str, int], list[int]]:
        with self._lock:
            if self._closed:
                raise ServiceGoneError(f"slot {self.number} was given back")
            try:
                reply, received = ask(self._connection, op, self.number, fds, **numbers)
            except ServiceGoneError:
                self._shut()  # a late answer would be taken for the next request's
                raise
        if reply.errno:
            raise RefusalError(op, reply.errno)
        return reply.numbers, received

    # -- jails: the interface of launch.Launcher

    def launch(
        self, argv: tuple[str, ...], inherit: list[int], sources: list[int], uid: int = 0, gid: int = 0
    ) -> tuple[int, int]:
        """Have bubblewrap started in the slot, as the slot's user; its pid and a pidfd, to be closed."""
        del uid, gid  # the slot's, whatever is asked
        arguments = seccomp.memory_file("arguments", b"".join(os.fsencode(word) + b"\0" for word in argv))
        try:
            numbers, received = self._ask(
                Op.JAIL, [arguments, *inherit, *sources], inherited=len(inherit), sources=len(sources), flags=0
            )
        finally:
            os.close(arguments)
        if len(received) != 1:
            raise ServiceGoneError("the host service answered without a pidfd")
        return numbers["pid"], received[0]

    def alive(self) -> bool:
        """Whether the connection stands."""
        return not self._closed and not _hung_up(self._connection, 0)

    def when_gone(self, tell: Callable[[], None]) -> None:
        """Call `tell` from a thread of its own when the service ends the connection; not when this side does."""

        def watch() -> None:
            while not _hung_up(self._connection, 1000):
                if self._closed:
                    return
            if not self._closed:
                tell()

        threading.Thread(target=watch, name="inbounds-slot", daemon=True).start()

    # -- all of it at once

    def freeze(self) -> tuple[bool, int]:
        """Stop every process at one stroke: (whether the kernel says so, how many there are). Nothing undoes it."""
        numbers, _ = self._ask(Op.FREEZE)
        return bool(numbers["frozen"]), numbers["processes"]

    def kill(self, pid: int = 0) -> int:
        """Kill one jail by the pid that `launch` gave, or everything; how many processes are left (0)."""
        try:
            return self._ask(Op.KILL, pid=pid)[0]["survivors"]
        except RefusalError as error:
            if error.number != errno.ESRCH:
                raise
            return 0  # it has ended by itself meanwhile

    def hold(self, kill: Callable[[], object]) -> str:
        """Freeze, or `kill` where the kernel did not come to it; how, as Jail.freeze says it."""
        with contextlib.suppress(HostError):
            if self.freeze()[0]:
                return CGROUP_FREEZE
        kill()
        return KILLED

    def strike(self, pid: int) -> bool:
        """Kill one jail; False where the service is gone and somebody else has to. HostError: it has survivors."""
        try:
            left = self.kill(pid)
        except ServiceGoneError:
            return False
        if left:
            raise HostError(f"{left} processes of slot {self.number} survived a kill", fix="inbounds doctor")
        return True

    def slow(self, percent: int) -> str:
        """Leave all that runs in it `percent` of the CPUs, or with 0 what it was opened with; what was done, in words.

        Where the host has no such controller its processes get niceness instead, which is not given back.
        """
        asked = max(1, len(os.sched_getaffinity(0)) * percent) if percent else 0
        held = self._ask(Op.SLOW, cpu_percent=asked)[0]["cpu_percent"]
        if not held:
            return f"nice {NICE}: this host has no ceiling of processors" if asked else "niceness is not given back"
        return f"slot {self.number}: at most {held}% of one CPU"

    def deadline(self, at_ms: int) -> int:
        """When the watchdog ends it: it comes nearer at any time, later only while no jail lives. The one in force."""
        return self._ask(Op.DEADLINE, deadline_ms=at_ms)[0]["deadline_ms"]

    def state(self) -> dict[str, int]:
        """processes, bytes, inodes, events_lost, phase, deadline_ms."""
        return self._ask(Op.STATE)[0]

    # -- the end

    def detach(self) -> None:
        """Kill, unmount, and leave the image in root's custody: `attach` finds it again."""
        self._ask(Op.DETACH)
        self.close()

    def discard(self) -> None:
        """Kill, unmount, destroy the image and its key, give the number back. HostError: something is left of it."""
        self._ask(Op.DISCARD)
        self.close()

    @staticmethod
    def discard_kept(number: int, path: str = "", owner: int = 0) -> None:
        """Destroy a slot of ours that nobody holds; nothing happens where there is none. HostError: it stays."""
        with connect(path, owner) as connection:
            reply, _ = ask(connection, Op.DISCARD, number)
        if reply.errno not in (0, errno.ENOENT):
            raise RefusalError(Op.DISCARD, reply.errno)

    def close(self) -> None:
        """Let go; the service does what a dead supervisor leads to."""
        with self._lock:
            self._shut()
        if self.files is not None:
            self.files.close()

    def _shut(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError):  # the service's end may be gone
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    # -- what is in force

    def enforcement(self, pid: int) -> dict[str, str]:
        """The hardened mechanisms of the jail whose PID 1 is `pid`: the service's word, and what can be seen from here.

        The service's bit alone is not enough where the kernel can be asked without it: user and group, control groups,
        the volume's mount and its sizes, who may enter it.
        """
        found = named(self.bits)
        for name, why in {**self._seen_of(pid), **self._seen_of_volume()}.items():
            if found[name] == ENFORCED:
                found[name] = f"absent: {why}"
        return found

    def _seen_of(self, pid: int) -> dict[str, str]:
        """Mechanism -> what speaks against it, of a process."""
        wrong: dict[str, str] = {}
        status = _lines(f"/proc/{pid}/status")
        for key, own in (("Uid:", self.uid), ("Gid:", self.gid)):
            line = next((words[1:] for words in status if words[:1] == [key]), [])
            if line != [str(own)] * 4:
                wrong["dedicated_user"] = f"PID 1 has {key} {' '.join(line) or 'unknown'}, not {own}"
        if next((words[1:] for words in status if words[:1] == ["Groups:"]), [""]):
            wrong["dedicated_user"] = "PID 1 has groups of others"
        ours = f"inbounds-slot-{self.number}"
        inside = [words[0] for words in _lines(f"/proc/{pid}/cgroup") if words]
        if not any(path.endswith(ours) for path in inside):
            wrong |= dict.fromkeys(GROUPED, f"PID 1 is in no group named {ours}")
        return wrong

    def _seen_of_volume(self) -> dict[str, str]:
        try:
            about, gate = os.statvfs(self.view), os.stat(os.path.dirname(self.view))
        except OSError as error:
            return {"volume_image": f"{self.view}: {error.strerror}"}
        wrong = {}
        wanted = os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC
        if about.f_flag & wanted != wanted or not os.path.ismount(self.view):
            wrong["volume_image"] = "the view is no mount that is nosuid, nodev and noexec"
        if gate.st_mode & 0o007 or gate.st_uid != 0:
            wrong["acl"] = "the view can be entered by others"
        if self.limits and about.f_blocks * about.f_frsize > self.limits.bytes:
            wrong["bytes_limit"] = f"the volume has {about.f_blocks * about.f_frsize} bytes"
        # ext4 rounds its inodes up to whole blocks in each group of blocks
        if self.limits and about.f_files > 2 * self.limits.inodes:
            wrong["inodes_limit"] = f"the volume has room for {about.f_files} files"
        return wrong


def _hung_up(connection: socket.socket, ms: int) -> bool:
    """Whether the other side is gone; waits so long for it."""
    waiting = select.poll()
    try:
        waiting.register(connection.fileno(), select.POLLRDHUP)
        return any(found & (select.POLLRDHUP | select.POLLHUP | select.POLLERR) for _, found in waiting.poll(ms))
    except (OSError, ValueError):  # closed by this side
        return True


def _lines(path: str) -> list[list[str]]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return [line.split() for line in file.read(STATUS_BYTES_MAX).splitlines()]
    except OSError:
        return []
