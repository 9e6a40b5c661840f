"""The messages between a supervisor and the host service: one fixed struct of integers each way, descriptors beside it.

Pure: packs and unpacks at both ends, and says what each integer may be. No path, name or document is ever sent. Knows
nothing of sockets, users or kernels.
"""

import enum
import struct
from dataclasses import dataclass

VERSION = 1
MAGIC = 0x494E4200 | VERSION  # "INB" and the version
FORM = struct.Struct("!IIQ8Q")  # magic, op or errno, slot, eight integers
MESSAGE_BYTES = FORM.size
NUMBERS = 8
DESCRIPTORS_MAX = 253  # SCM_MAX_FD

SOCKET_NAME = "host.sock"  # below the run directory
RUN_DIRECTORY = "/run/inbounds"
STATE_DIRECTORY = "/var/lib/inbounds"
STAGE = "/tmp"  # noqa: S108  # where a jail's sources stand as STAGE/<index>: a private tmpfs of that jail alone

SLOTS = 80
FIRST_UID = 61_100  # above what rootless runs of root take, below systemd's dynamic users (61,184)
LOW_BITS = 64  # of a set of slots as bits: the first integer's, the second has the rest
LOW = (1 << LOW_BITS) - 1
NO_SLOT = 0xFFFF_FFFF  # in a request that is about none: HELLO, OPEN

# What bubblewrap inherits: 0, 1, 2, the control socket, then its memory files: seldom more than a dozen.
INHERITED_MAX = 64


class Op(enum.IntEnum):
    """What is asked. The integers of each are in `NAMES`, in that order; those not named must be 0."""

    HELLO = 1
    OPEN = 2
    ATTACH = 3
    JAIL = 4
    FREEZE = 5
    KILL = 6
    DEADLINE = 7
    DETACH = 8
    DISCARD = 9
    STATE = 10
    SLOW = 11
    HALT = 12
    SLOTS = 13


class Flag(enum.IntFlag):
    """The flags of OPEN. A flag that the host cannot keep is answered with EOPNOTSUPP, never ignored."""

    ENCRYPT = 1  # at rest, with a key of this slot that DISCARD destroys
    EVENTS = 2  # files read, written and executed come through the pipe


class Mechanism(enum.IntFlag):
    """What is in force for a slot (or, in HELLO's answer, what this host can give)."""

    USER = 1 << 0  # a user and group of its own
    IMAGE = 1 << 1  # hard limits on bytes and inodes
    ENCRYPTED = 1 << 2
    ACL = 1 << 3  # the view is the operator's and the slot's group's alone
    MEMORY = 1 << 4
    SWAP = 1 << 5
    PROCESSES = 1 << 6
    CPU = 1 << 7
    IO = 1 << 8
    FREEZE = 1 << 9  # all at one stroke, by version 2's freezer
    FILTER = 1 << 10  # the packet filter by user or cgroup
    EVENTS = 1 << 11
    WATCHDOG = 1 << 12


class Phase(enum.IntEnum):
    """Where a slot is in its life; written down before a step (-ING) and behind it."""

    FREE = 0
    OPENING = 1
    OPEN = 2
    CLOSING = 3
    KEPT = 4  # nothing runs, nothing is mounted, the image is in root's custody
    ATTACHING = 5
    DISCARDING = 6


# What each integer is, from below to above, with the reason of the bounds. Anything else is answered with EINVAL.
NAMES: dict[Op, tuple[tuple[str, int, int], ...]] = {
    Op.HELLO: (),
    Op.OPEN: (
        ("bytes", 16 << 20, 1 << 42),  # an ext4 smaller than 16 MiB has no journal; 4 TiB is more than any workspace
        ("inodes", 1_024, 1 << 27),
        ("memory_bytes", 32 << 20, 1 << 44),  # an interpreter alone takes 10 MiB
        ("processes", 8, 1 << 20),  # bubblewrap, PID 1 and one program need four
        ("cpu_percent", 1, 100_000),  # of one CPU
        ("deadline_ms", 1, 1 << 52),  # Unix time
        ("flags", 0, int(Flag.ENCRYPT | Flag.EVENTS)),
        ("io_bytes_per_second", 0, 1 << 44),  # 0: no ceiling of its own
    ),
    Op.ATTACH: (),
    Op.JAIL: (
        ("inherited", 4, INHERITED_MAX),
        ("sources", 0, DESCRIPTORS_MAX - 4 - 1),
        ("flags", 0, 0),
    ),
    Op.FREEZE: (),
    Op.KILL: (("pid", 0, 1 << 22),),  # one jail, by the pid that JAIL answered; 0: all that the slot has
    Op.DEADLINE: (("deadline_ms", 1, 1 << 52),),
    Op.DETACH: (),
    Op.DISCARD: (),
    Op.STATE: (),
    Op.HALT: (("kill", 0, 1),),  # from another connection than the slot's: 0 freezes, 1 kills; no jail begins behind it
    Op.SLOTS: (),
    Op.SLOW: (("cpu_percent", 0, 100_000),),  # of one CPU, never more than is in force; 0: what OPEN asked for, again
}

# What an answer's integers are, for both ends to count on.
ANSWERS: dict[Op, tuple[str, ...]] = {
    Op.HELLO: ("version", "mechanisms"),
    Op.OPEN: (
        "uid",
        "gid",
        "mechanisms",
    ),  # and the pipe of events, where EVENTS is among the mechanisms
    Op.ATTACH: ("uid", "gid", "mechanisms"),  # as OPEN
    Op.JAIL: ("pid",),  # one descriptor: its pidfd
    Op.FREEZE: ("frozen", "processes"),
    Op.KILL: ("survivors",),
    Op.DEADLINE: ("deadline_ms",),
    Op.DETACH: (),
    Op.DISCARD: (),
    Op.STATE: ("processes", "bytes", "inodes", "events_lost", "phase", "deadline_ms"),
    Op.HALT: ("frozen", "processes"),  # behind a kill: those that are left
    Op.SLOTS: ("low", "high", "kept_low", "kept_high"),  # this user's, and those that nobody holds: a bit for each
    Op.SLOW: ("cpu_percent",),  # in force; 0: no ceiling can be set, and all of it yields to everybody instead
}


class ProtocolError(Exception):
    """A message that this protocol has not: the connection is closed, nothing is answered."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, its shape checked; `allowed` says whether its integers are."""

    op: Op
    slot: int
    numbers: tuple[int, ...]

    def __getitem__(self, name: str) -> int:
        """An integer by its name in `NAMES`."""
        return self.numbers[[known for known, _, _ in NAMES[self.op]].index(name)]

    def allowed(self) -> bool:
        """Whether every integer is within its bounds, and every unused one 0."""
        bounds = [(low, high) for _, low, high in NAMES[self.op]] + [(0, 0)] * (NUMBERS - len(NAMES[self.op]))
        slots = self.slot == NO_SLOT if self.op in (Op.HELLO, Op.OPEN, Op.SLOTS) else self.slot < SLOTS
        return slots and all(low <= n <= high for n, (low, high) in zip(self.numbers, bounds, strict=True))


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: `errno` 0, or why not; the integers by name."""

    errno: int
    slot: int
    numbers: dict[str, int]


def _pack(head: int, slot: int, numbers: tuple[int, ...]) -> bytes:
    return FORM.pack(MAGIC, head, slot, *numbers, *[0] * (NUMBERS - len(numbers)))


def _unpack(data: bytes) -> tuple[int, int, tuple[int, ...]]:
    if len(data) != MESSAGE_BYTES:
        raise ProtocolError(f"a message of {len(data)} bytes instead of {MESSAGE_BYTES}")
    magic, head, slot, *numbers = FORM.unpack(data)
    if magic != MAGIC:
        raise ProtocolError(f"a message that begins with {magic:#x} instead of {MAGIC:#x}")
    return head, slot, tuple(numbers)


def pack_request(op: Op, slot: int = NO_SLOT, **numbers: int) -> bytes:
    """A request's bytes; every integer of `NAMES[op]` by its name. ValueError where one lacks or is unknown."""
    names = [name for name, _, _ in NAMES[op]]
    if set(names) != set(numbers):
        raise ValueError(f"{op.name} has the integers {names}, not {sorted(numbers)}")
    return _pack(op, slot, tuple(numbers[name] for name in names))


def unpack_request(data: bytes, descriptors: int) -> Request:
    """A request from a client, with so many descriptors beside it. ProtocolError where the connection has to end."""
    head, slot, numbers = _unpack(data)
    if head not in Op.__members__.values():
        raise ProtocolError(f"operation {head}")
    request = Request(Op(head), slot, numbers)
    # JAIL: the argument memfd, the inherited ones, the sources
    wanted = 1 + request["inherited"] + request["sources"] if request.op is Op.JAIL else 0
    if descriptors != wanted:
        raise ProtocolError(f"{descriptors} descriptors with {request.op.name} instead of {wanted}")
    return request


def pack_reply(op: Op, errno: int, slot: int, *numbers: int) -> bytes:
    """An answer's bytes: nothing but the errno where there is one."""
    if len(numbers) != (0 if errno else len(ANSWERS[op])):
        raise ValueError(f"{len(numbers)} integers answer {op.name}")
    return _pack(errno, slot, numbers)


def unpack_reply(op: Op, data: bytes) -> Reply:
    """The answer to `op`. ProtocolError where it is none."""
    errno, slot, numbers = _unpack(data)
    return Reply(errno, slot, dict(zip(ANSWERS[op], numbers, strict=False)))


def uid_of(slot: int) -> int:
    """The user number, and group number, of a slot."""
    return FIRST_UID + slot


def members_of(low: int, high: int) -> list[int]:
    """The slots of a set that stands in two integers."""
    return [number for number in range(SLOTS) if (low | high << LOW_BITS) >> number & 1]


def view_of(slot: int, run_directory: str = RUN_DIRECTORY) -> str:
    """Where the operator's supervisor works on a slot's volume."""
    return f"{run_directory}/slots/{slot}/view/volume"
