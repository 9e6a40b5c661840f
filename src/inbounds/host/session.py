"""One client of the host service: its requests, its one slot, the jails started there, and the end of all that.

A process of its own for each connection, so that one that is busy, or hangs on what a client sent, delays nobody. It
ends with the connection, at the deadline, or with the service. Knows no policy.
"""

import contextlib
import errno
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable

from inbounds.host import filter, jailer, protocol, share, slots  # noqa: A004  # the field's word
from inbounds.host.events import Events
from inbounds.host.groups import Group
from inbounds.host.protocol import MESSAGE_BYTES, Flag, Mechanism, Op, Phase, Request
from inbounds.host.slots import Paths, Record, Refused, Slot
from inbounds.host.watchdog import Watchdog

FREEZE_SECONDS = 2.0  # 1,000 processes freeze in 50 ms; one in an uninterruptible wait may take seconds
END_SECONDS = 20.0  # for a killed process to end; the kernel takes milliseconds unless it waits for a disk
EXECUTED_ON = ("/", "/usr")  # file systems whose programs a jail may execute, beside its volume's
DEADLINE_MS_MAX = 400 * 86_400_000  # no run is longer than a year
ATTACHED_MS = 60_000  # how long a slot lives at least after ATTACH: its old deadline may be past
JAILS_MAX = 64  # at once in one slot; a run has a standing one and a tester or two

Answer = tuple[tuple[int, ...], list[int]]  # the integers, and descriptors to send beside them, which are closed then


def say(text: str) -> None:
    """One line of the log; a full or closed log is no reason to stop serving."""
    with contextlib.suppress(OSError):
        os.write(2, f"inbounds host: {text}\n".encode())


class Session:
    """One connection. `owner`: the peer's user and group; `has`: what this host can give."""

    def __init__(
        self,
        connection: socket.socket,
        owner: tuple[int, int],
        paths: Paths,
        has: Mechanism,
        step: Callable[[str], None] = slots.nothing,
    ) -> None:
        """The peer was found permitted; whatever it asks for is its own user's."""
        self.connection, self.owner, self.paths, self.has, self.step = connection, owner, paths, has, step
        self.slot: Slot | None = None
        self.events: Events | None = None
        self.jails: dict[int, int] = {}  # pid -> pidfd
        self.frozen = False
        self.watchdog = Watchdog(self.expired)
        self.over = False
        self.told = True  # whether the client knows of its slot
        self.used = True  # whether a jail ever began in it
        self.filter: filter.Changes | None = None  # where packets are to be dropped

    def run(self) -> None:
        """Until the client is gone, or breaks the protocol, or the deadline comes: then kill and unmount."""
        told, tell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            while not self.over:
                waiting = select.poll()
                for fd in (self.connection.fileno(), told, self.watchdog.fileno(), *self.jails.values()):
                    waiting.register(fd, select.POLLIN)
                for source in (self.events, self.filter):
                    if source:
                        waiting.register(source.fileno(), select.POLLIN)
                ready = {fd for fd, _ in waiting.poll(filter.LOOK_SECONDS * 1000 if self.filter else None)}
                self.watchdog.handle()
                if self.filter and (self.filter.fileno() in ready or self.filter.old()) and not self.filtered():
                    break
                if self.events and self.events.fileno() in ready:
                    self.events.handle()
                self.reap()
                if told in ready or (self.connection.fileno() in ready and not self.answer()):
                    break
        finally:
            if self.slot:
                # what its client was never told of, or no agent was ever in, is nobody's to come back for
                self.leave(self.slot.close if self.told and self.used else self.slot.discard)

    # -- messages ------------------------------------------------------------------------------------------------------

    def answer(self) -> bool:
        """Take one request and answer it; False where the connection has to end."""
        descriptors: list[int] = []
        back: list[int] = []
        try:
            data = self.receive(descriptors)
            if not data:
                return False
            request = protocol.unpack_request(data, len(descriptors))
            try:
                if not request.allowed():
                    raise Refused(errno.EINVAL, "an integer out of its bounds")
                numbers, back = self.carry_out(request, descriptors)
                number = self.slot.number if self.slot else request.slot
                reply = protocol.pack_reply(request.op, 0, number, *numbers)
            except OSError as error:
                say(f"user {self.owner[0]}, {request.op.name}: {error}")
                reply = protocol.pack_reply(request.op, error.errno or errno.EIO, request.slot)
            # a client that does not read has a full socket: nobody waits for it (socket.send_fds ignores flags)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(back)}i", *back))] if back else []
            self.connection.sendmsg([reply], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            self.told = True
        except (protocol.ProtocolError, OSError) as error:
            say(f"user {self.owner[0]}: {error}")
            return False
        else:
            return True
        finally:
            for fd in (*descriptors, *back):
                os.close(fd)

    def receive(self, descriptors: list[int]) -> bytes:
        """One message, b"" at the end; its descriptors are added to the list."""
        space = socket.CMSG_SPACE(protocol.DESCRIPTORS_MAX * 4)
        flags = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
        data, ancillary, said, _ = self.connection.recvmsg(MESSAGE_BYTES + 1, space, flags)
        for level, kind, packed in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors += struct.unpack(f"{len(packed) // 4}i", packed[: len(packed) // 4 * 4])
        if said & socket.MSG_CTRUNC:
            raise protocol.ProtocolError("descriptors that were cut off")
        return data

    def carry_out(self, request: Request, descriptors: list[int]) -> Answer:
        """One request, its integers within their bounds. OSError: the errno to answer."""
        match request.op:
            case Op.HELLO:
                return (protocol.VERSION, int(self.has)), []
            case Op.OPEN:
                return self.open(request)
            case Op.ATTACH:
                return self.attach(request.slot)
            case Op.STATE:
                return self.state(request.slot), []
            case Op.SLOTS:
                return self.listed(), []
            case Op.HALT:
                who, kill = self.owner[0], bool(request["kill"])
                return slots.halt(self.paths, request.slot, who, kill=kill, seconds=FREEZE_SECONDS), []
            case Op.JAIL:
                return self.jail(*self.mine(request.slot), request, descriptors)
            case Op.FREEZE:
                _, group = self.mine(request.slot)
                self.frozen = True
                return (int(group.freeze(FREEZE_SECONDS)), group.count()), []
            case Op.KILL:
                return (self.kill(self.mine(request.slot)[0], request["pid"]),), []
            case Op.DEADLINE:
                return (self.set_deadline(*self.mine(request.slot), request["deadline_ms"]),), []
            case Op.SLOW:
                return (self.slow(*self.mine(request.slot), request["cpu_percent"]),), []
            case Op.DETACH:
                self.leave(self.mine(request.slot)[0].close)
            case Op.DISCARD:
                slot = self.slot
                if slot is None or slot.number != request.slot:
                    self.no_other()
                    slot = self.slot = slots.take(self.paths, request.slot, self.owner[0], self.step)
                self.leave(slot.discard)
        return (), []

    # -- the slot ------------------------------------------------------------------------------------------------------

    def mine(self, number: int) -> tuple[Slot, Group]:
        """This connection's slot and its groups. Refused: ENOENT where it has another one, or none."""
        if self.slot is None or self.slot.number != number or self.slot.group is None:
            raise Refused(errno.ENOENT, f"slot {number} is not this connection's")
        return self.slot, self.slot.group

    def no_other(self) -> None:
        """A connection has one slot, so that its end is one slot's end."""
        if self.slot:
            raise Refused(errno.EBUSY, f"this connection has slot {self.slot.number}")

    def open(self, request: Request) -> Answer:
        """A new slot, which is this connection's."""
        self.no_other()
        wanted = Mechanism(0)
        for flag, mechanism in ((Flag.ENCRYPT, Mechanism.ENCRYPTED), (Flag.EVENTS, Mechanism.EVENTS)):
            wanted |= mechanism if request["flags"] & flag else Mechanism(0)
        if wanted & ~self.has:
            raise Refused(errno.EOPNOTSUPP, f"this host cannot give {wanted & ~self.has!r}")
        _check_deadline(request["deadline_ms"])
        size, inodes, memory, processes, percent, deadline, flags, throughput = request.numbers
        phase, (uid, gid) = int(Phase.OPENING), self.owner
        wish = Record(phase, uid, gid, size, inodes, memory, processes, percent, deadline, flags, throughput)
        slot = slots.claim(self.paths, wish, self.step)
        self.told = self.used = False
        return self.begin(slot, slot.make, slot.discard)

    def attach(self, number: int) -> Answer:
        """A slot that this user opened before; what an earlier service left of it is undone first."""
        self.no_other()
        record = slots.owned(self.paths, number, self.owner[0])
        if record.phase in (Phase.OPENING, Phase.DISCARDING):
            raise Refused(errno.ENOENT, f"slot {number} is being removed")
        slot = slots.take(self.paths, number, self.owner[0], self.step)

        self.used = True

        def up() -> None:
            if slot.record.phase != Phase.KEPT:
                slot.close()
            # time to set another deadline, where the one before has come
            slot.set_deadline(max(slot.record.deadline_ms, int(time.time() * 1000) + ATTACHED_MS))
            slot.attach()

        return self.begin(slot, up, slot.close)

    def begin(self, slot: Slot, up: Callable[[], None], undo: Callable[[], None]) -> Answer:
        """Bring it up for this connection; behind a fault it is as if nobody had asked."""
        try:
            up()
            return self.enter(slot)
        except BaseException:
            self.slot = slot
            self.leave(undo)
            raise

    def enter(self, slot: Slot) -> Answer:
        """From now on the slot lives as long as this connection."""
        self.frozen, back = False, list[int]()
        mechanisms = slot.mechanisms()
        if mechanisms & Mechanism.FILTER:
            self.filter = filter.Changes()
        if slot.record.flags & Flag.EVENTS:
            reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            places = [slot.image.raw_fd(), *(os.open(place, os.O_PATH | os.O_CLOEXEC) for place in EXECUTED_ON)]
            try:
                self.events = Events(places[0], writing)
                for place in places:
                    self.events.executed_on(place)
            except OSError:
                os.close(reading)
                raise
            finally:
                for place in places:
                    os.close(place)
            back.append(reading)
            mechanisms |= Mechanism.EVENTS
        self.slot = slot
        self.watchdog.set(slot.number, slot.record.deadline_ms, living=False)
        return (slot.uid, slot.uid, int(mechanisms)), back

    def expired(self, number: int) -> bool:
        """The deadline: as if the client had gone."""
        say(f"slot {number}: its deadline has come")
        self.over = True
        return True

    def filtered(self) -> bool:
        """Whether this slot's packets are dropped still, where they were when it came up; else it ends at once."""
        if not self.filter or not self.slot:
            return True
        if not self.filter.holds(self.slot.number, self.slot.uid):
            say(f"slot {self.slot.number}: somebody has taken its packet filter away")
            self.over = True
        return not self.over

    def listed(self) -> tuple[int, ...]:
        """The slots of this user, and which of them are kept: two times eighty bits."""
        there = {n: r for n, r in slots.records(self.paths).items() if r.owner == self.owner[0]}
        kept = [number for number, record in there.items() if record.phase == Phase.KEPT]
        sets = [sum(1 << number for number in chosen) for chosen in (there, kept)]
        return tuple(half for bits in sets for half in (bits & protocol.LOW, bits >> protocol.LOW_BITS))

    def set_deadline(self, slot: Slot, group: Group, deadline_ms: int) -> int:
        """A nearer one; a later one only while nothing runs. The one that is in force."""
        _check_deadline(deadline_ms)
        slot.set_deadline(self.watchdog.set(slot.number, deadline_ms, living=group.count() > 0))
        return slot.record.deadline_ms

    def slow(self, slot: Slot, group: Group, percent: int) -> int:
        """Less of the processors for all that runs, or with 0 what it was opened with; what is in force."""
        return share.leave(group, slot.uid, percent, slot.record.cpu_percent)

    def state(self, number: int) -> tuple[int, ...]:
        """Of this connection's slot what is used; of another one of the same user only its phase."""
        slot = self.slot
        if slot is None or slot.number != number or slot.group is None:
            record = slots.owned(self.paths, number, self.owner[0])
            return 0, 0, 0, 0, record.phase, record.deadline_ms
        if self.events:
            self.events.drain()  # who asks has in the pipe what was done before the question
        lost = self.events.lost if self.events else 0
        return slot.group.count(), *slot.image.used(), lost, slot.record.phase, slot.record.deadline_ms

    def leave(self, how: Callable[[], None]) -> None:
        """Close or discard the slot. Whatever that comes to, the slot is no longer this connection's."""
        slot, self.slot = self.slot, None
        assert slot is not None
        try:
            self.watchdog.clear(slot.number)
            self.kill_all(slot)
            if self.events:
                events, self.events = self.events, None
                events.close()  # all that happened is told, then the volume is let go
            if self.filter:
                self.filter.close()
                self.filter = None
            how()
        finally:
            slot.release()
            self.reap()

    # -- jails ---------------------------------------------------------------------------------------------------------

    def jail(self, slot: Slot, group: Group, request: Request, descriptors: list[int]) -> Answer:
        """Start one; the answer does not wait for it."""
        if self.frozen or len(self.jails) >= JAILS_MAX:
            raise Refused(errno.EBUSY, "the slot is frozen, or has all the jails that it may")
        if os.path.lexists(self.paths.halted(slot.number)):
            raise Refused(errno.EBUSY, "the slot was halted")
        if not self.filtered():
            raise Refused(errno.ENETDOWN, "the packet filter is gone")
        self.used = True
        sources = 1 + request["inherited"]
        opened: list[int] = []
        try:
            opened.append(slot.image.raw_fd())
            opened += group.join_fds()
            pid, pidfd = jailer.start(
                jailer.Order(
                    uid=slot.uid,
                    gid=slot.uid,
                    join=opened[1:],
                    volume=opened[0],
                    foreign=slots.foreign(self.paths, slot.number),
                    run_directory=self.paths.run,
                    halted=self.paths.halted(slot.number),
                    arguments=descriptors[0],
                    inherited=descriptors[1:sources],
                    sources=descriptors[sources:],
                )
            )
        finally:
            for fd in opened:
                os.close(fd)
        self.jails[pid] = pidfd
        self.step("jail")
        return (pid,), [os.dup(pidfd)]

    def kill(self, slot: Slot, pid: int) -> int:
        """One jail or, with 0, all that the slot has; how many processes are left."""
        if pid == 0:
            left = self.kill_all(slot)
            self.frozen = self.frozen and left > 0
            return left
        if pid not in self.jails:
            raise Refused(errno.ESRCH, f"{pid} is no jail of this slot")
        self.end([pid])
        return int(pid in self.jails)

    def kill_all(self, slot: Slot) -> int:
        """Also those that are on their way into the slot's groups, and root still; how many processes are left."""
        for pidfd in self.jails.values():
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        left = slot.kill()
        self.end(list(self.jails))
        return left

    def end(self, pids: list[int]) -> None:
        """Kill these jails' outer processes, wait for them (for a bounded time), and end what they leave behind."""
        ended, until = select.poll(), time.monotonic() + END_SECONDS
        for pid in pids:
            signal.pidfd_send_signal(self.jails[pid], signal.SIGKILL)
            ended.register(self.jails[pid], select.POLLIN)
        left = len(pids)
        while left and time.monotonic() < until:
            for fd, _ in ended.poll(100):
                ended.unregister(fd)
                left -= 1
        self.reap()

    def reap(self) -> None:
        """Wait for whatever has ended, and end what it left behind.

        When bubblewrap's outer process is dead, its inner one becomes this subreaper's child. It may be PID 1 of a
        half-made jail that waits for a word from a parent that is gone: nothing else would ever end it.
        """
        ended = False
        with contextlib.suppress(ChildProcessError):
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                if pid in self.jails:
                    os.close(self.jails.pop(pid))
                    ended = True
        while ended and (adopted := _children() - set(self.jails)):
            for pid in adopted:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)  # the kernel ends a namespace's processes before its init


def _check_deadline(deadline_ms: int) -> None:
    if not 0 < deadline_ms - time.time() * 1000 < DEADLINE_MS_MAX:
        raise Refused(errno.EINVAL, "a deadline that is past, or beyond a year")


def _children() -> set[int]:
    """Of this process, dying ones too: an init that waits for its namespace's end is in no control group any more."""
    try:
        with open("/proc/thread-self/children", "rb") as file:
            return {int(pid) for pid in file.read().split()}
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return {int(name) for name in os.listdir("/proc") if name.isdigit() and _parent(int(name)) == os.getpid()}


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0  # it has ended
