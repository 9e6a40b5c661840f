"""The seccomp filter of every jail: an allowlist by architecture, as classic BPF, made here without a library.

The answer to a call that is not named is ENOSYS, to a forbidden one EPERM, to another architecture's entry point death
(ATTACKS: kernel surface). Knows the numbers of sandbox/syscalls.py and nothing of jails.
"""

import os
import platform
import struct
from dataclasses import dataclass
from errno import EPERM
from functools import lru_cache

from inbounds.contracts.errors import HostError
from inbounds.sandbox.syscalls import ALLOWED, INSPECTED, REFUSED

# linux/audit.h: machine | 64 bit | little endian
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

# linux/seccomp.h
ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000
ERRNO = 0x00050000
ENOSYS_NUMBER = 38

# linux/bpf_common.h, linux/filter.h: only the instructions used here
LOAD_WORD = 0x20
JUMP = 0x05
JUMP_EQUAL = 0x15
JUMP_GREATER_EQUAL = 0x35
JUMP_SET = 0x45
AND = 0x54
RETURN = 0x06

# struct seccomp_data: nr, arch, instruction pointer, six 64-bit arguments (low half first on both architectures)
OFFSET_NR = 0
OFFSET_ARCH = 4
OFFSET_ARGS = 16

# x86_64 kernels accept x32 calls with this bit set under the same architecture word: a second ABI, refused
X32_BIT = 0x40000000

# linux/sched.h: any new namespace, of whatever kind; CLONE_NEWTIME (0x80) overlaps the exit signal and is clone3-only
CLONE_NAMESPACES = 0x7E020000
SOCKET_TYPE_MASK = 0xF
# asm-generic/socket.h: how much a socket may hold, as it is asked for, and as root may ask
SOL_SOCKET, SO_SNDBUF, SO_RCVBUF, SO_SNDBUFFORCE, SO_RCVBUFFORCE = 1, 7, 8, 32, 33
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
SOCK_STREAM, SOCK_DGRAM = 1, 2
IPPROTO_TCP, IPPROTO_UDP = 6, 17
# asm-generic/ioctls.h: put characters into a terminal's input (CVE-2017-5226); load a line discipline (CVE-2017-2636)
TIOCSTI, TIOCLINUX, TIOCSETD = 0x5412, 0x541C, 0x5423
PER_LINUX, ADDR_NO_RANDOMIZE, PERSONALITY_QUERY = 0x0, 0x0040000, 0xFFFFFFFF
# sys/resource.h, linux/ioprio.h: what a priority is set of
PRIO_PROCESS, PRIO_USER = 0, 2
IOPRIO_WHO_PROCESS, IOPRIO_WHO_USER = 1, 3
RLIMIT_CORE = 4
# A jail's PID 1 has the program's user: the kernel would let the program change its scheduling and its limits.
INIT = 1

# the kernel takes at most BPF_MAXINSNS of them
INSTRUCTIONS_MAX = 4096

# what PID 1 needs before it seals itself with the strict filter, on top of that filter
SETUP_EXTRA = ("mount", "mount_setattr", "move_mount", "unshare", "keyctl", "setrlimit", "prlimit64")

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant
Program = tuple[Instruction, ...]


def refuse(errno: int) -> int:
    """The filter's return value that makes a call fail with `errno`."""
    return ERRNO | errno


@dataclass(frozen=True, slots=True)
class _Range:
    """Calls first..last get the same block of instructions, which must return on every path."""

    first: int
    last: int
    block: Program


def _return(value: int) -> Instruction:
    return (RETURN, 0, 0, value)


def _load_argument(index: int) -> Instruction:
    # the low 32 bits: the kernel reads these arguments as int, or the flags in question are all below 2^32
    return (LOAD_WORD, 0, 0, OFFSET_ARGS + 8 * index)


def _one_of(values: tuple[int, ...], then: Program, otherwise: Program) -> Program:
    """Run `then` if the accumulator is one of `values`, else `otherwise`; both must return."""
    tests: list[Instruction] = [(JUMP_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
    return (*tests, (JUMP, 0, 0, len(then)), *then, *otherwise)


def _clone_block() -> Program:
    return (
        _load_argument(0),
        (JUMP_SET, 0, 1, CLONE_NAMESPACES),
        _return(refuse(EPERM)),
        _return(ALLOW),
    )


def _ioctl_block() -> Program:
    refused = (TIOCSTI, TIOCLINUX, TIOCSETD)
    return (_load_argument(1), *_one_of(refused, (_return(refuse(EPERM)),), (_return(ALLOW),)))


def _personality_block() -> Program:
    allowed = (PER_LINUX, ADDR_NO_RANDOMIZE, PERSONALITY_QUERY)
    return (_load_argument(0), *_one_of(allowed, (_return(ALLOW),), (_return(refuse(EPERM)),)))


def _socket_block() -> Program:
    """Unix; TCP and UDP over IPv4 and IPv6 (no raw, ICMP, SCTP); netlink's route family, which getifaddrs asks.

    The route family answers about the jail's own network namespace, where nothing may be changed without capabilities.
    """
    no, yes = (_return(refuse(EPERM)),), (_return(ALLOW),)
    protocol = (_load_argument(2), *_one_of((0, IPPROTO_TCP, IPPROTO_UDP), yes, no))
    inet = (
        _load_argument(1),
        (AND, 0, 0, SOCKET_TYPE_MASK),
        *_one_of((SOCK_STREAM, SOCK_DGRAM), protocol, no),
    )
    netlink = (_load_argument(2), *_one_of((0,), yes, no))
    not_unix = _one_of((AF_INET, AF_INET6), inet, _one_of((AF_NETLINK,), netlink, no))
    return (_load_argument(0), *_one_of((AF_UNIX,), yes, not_unix))


def _socketpair_block() -> Program:
    """Unix alone: for every other family the kernel makes two sockets, its module loaded, before it says no."""
    return (_load_argument(0), *_one_of((AF_UNIX,), (_return(ALLOW),), (_return(refuse(EPERM)),)))


def _setsockopt_block() -> Program:
    """A socket's buffers stay what they are, and "success" is said, as by a host with low maxima (socket(7)).

    What lies unread in a queue is in nobody's memory: PID 1 counts sockets, which tells something only with a bound.
    """
    sizes = (SO_SNDBUF, SO_RCVBUF, SO_SNDBUFFORCE, SO_RCVBUFFORCE)
    size = (_load_argument(2), *_one_of(sizes, (_return(refuse(0)),), (_return(ALLOW),)))
    return (_load_argument(1), *_one_of((SOL_SOCKET,), size, (_return(ALLOW),)))


def _not_init_block() -> Program:
    """Calls whose first argument is a process; PID 1 would be starved by SCHED_IDLE and its deadlines with it."""
    return (_load_argument(0), *_one_of((INIT,), (_return(refuse(EPERM)),), (_return(ALLOW),)))


def _priority_block(process: int, user: int) -> Program:
    """Priorities of PID 1, by its number or as one of its user's; `process` and `user` are the numbers of the kinds."""
    no, yes = (_return(refuse(EPERM)),), (_return(ALLOW),)
    one = (_load_argument(1), *_one_of((INIT,), no, yes))
    return (_load_argument(0), *_one_of((process,), one, _one_of((user,), no, yes)))


def _setrlimit_block() -> Program:
    """RLIMIT_CORE stays what PID 1 has made it (1: no core dump, no helper of the host's), and "success" is said.

    It could be lowered to 0, whereupon the kernel hands each crash to core_pattern's program, which is root's and
    outside. gpg and ssh-agent set it to 0 and end where they are refused; what they ask for is what they have.
    """
    return (_load_argument(0), *_one_of((RLIMIT_CORE,), (_return(refuse(0)),), (_return(ALLOW),)))


def _prlimit64_block() -> Program:
    """As setrlimit where a core limit is set; limits of PID 1 are nobody's business (it could not count memory)."""
    no, yes, said = (_return(refuse(EPERM)),), (_return(ALLOW),), (_return(refuse(0)),)
    both = _any_bits(3, no, said)  # the old limit is asked for as well, and nobody would write it
    core = _any_bits(2, both, yes)
    return (_load_argument(0), *_one_of((INIT,), no, (_load_argument(1), *_one_of((RLIMIT_CORE,), core, yes))))


def _any_bits(index: int, then: Program, otherwise: Program) -> Program:
    """Run `then` if argument `index`, of 64 bits, is not 0, else `otherwise`; both must return."""
    low, high = _load_argument(index), (LOAD_WORD, 0, 0, OFFSET_ARGS + 8 * index + 4)
    return (low, (JUMP_EQUAL, 0, 2, 0), high, (JUMP_EQUAL, len(then), 0, 0), *then, *otherwise)


INSPECTORS = {
    "clone": _clone_block,
    "ioctl": _ioctl_block,
    "personality": _personality_block,
    "socket": _socket_block,
    "socketpair": _socketpair_block,
    "setsockopt": _setsockopt_block,
    "setpriority": lambda: _priority_block(PRIO_PROCESS, PRIO_USER),
    "ioprio_set": lambda: _priority_block(IOPRIO_WHO_PROCESS, IOPRIO_WHO_USER),
    "setrlimit": _setrlimit_block,
    "prlimit64": _prlimit64_block,
    **dict.fromkeys(("sched_setparam", "sched_setscheduler", "sched_setattr", "sched_setaffinity"), _not_init_block),
}


def _search(ranges: list[_Range]) -> list[Instruction]:
    """A balanced search over sorted, gapless ranges; the accumulator holds the call's number."""
    if len(ranges) == 1:
        return list(ranges[0].block)
    middle = len(ranges) // 2
    low, high = _search(ranges[:middle]), _search(ranges[middle:])
    # a conditional jump reaches 255 instructions, an unconditional one any distance
    return [(JUMP_GREATER_EQUAL, 0, 1, ranges[middle].first), (JUMP, 0, 0, len(low)), *low, *high]


def _ranges(column: int, extra: tuple[str, ...]) -> list[_Range]:
    """Every number from 0 to 2^32-1 with its block, neighbours with the same block joined."""
    blocks: dict[int, Program] = {}
    for table, answer in ((ALLOWED, ALLOW), (REFUSED, refuse(EPERM))):
        for name, numbers in table.items():
            number = numbers[column]
            if number is not None:
                blocks[number] = (_return(ALLOW if name in extra else answer),)
    for name, numbers in INSPECTED.items():
        number = numbers[column]
        if number is not None:
            blocks[number] = (_return(ALLOW),) if name in extra else INSPECTORS[name]()
    unknown = (_return(refuse(ENOSYS_NUMBER)),)
    joined = [_Range(0, 0, blocks.get(0, unknown))]
    edges = sorted({n for number in blocks for n in (number, number + 1)} - {0})
    for first in edges:
        block = blocks.get(first, unknown)
        if block != joined[-1].block:
            joined.append(_Range(first, first, block))
    return joined


@lru_cache(maxsize=8)
def program(machine: str = "", extra: tuple[str, ...] = ()) -> bytes:
    """The filter as an array of struct sock_filter, ready for bubblewrap's --seccomp or for prctl.

    `machine` is the kernel's name of the architecture (default: this host's); `extra` are forbidden calls to allow, for
    the moments before PID 1 seals itself. HostError on an architecture that has no table.
    """
    machine = machine or platform.machine()
    if machine not in ARCHITECTURES:
        raise HostError(f"no system call table for {machine}", expected=" or ".join(ARCHITECTURES))
    column, audit = ARCHITECTURES[machine]
    head: list[Instruction] = [
        (LOAD_WORD, 0, 0, OFFSET_ARCH),
        (JUMP_EQUAL, 1, 0, audit),
        _return(KILL_PROCESS),
        (LOAD_WORD, 0, 0, OFFSET_NR),
        (JUMP_GREATER_EQUAL, 0, 1, X32_BIT),
        _return(refuse(ENOSYS_NUMBER)),
    ]
    instructions = head + _search(_ranges(column, extra))
    if len(instructions) > INSTRUCTIONS_MAX:
        raise ValueError(f"the filter has {len(instructions)} instructions, the kernel takes {INSTRUCTIONS_MAX}")
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


def memory_file(name: str, content: bytes) -> int:
    """A descriptor of an unnamed file in memory that holds `content`, at its beginning; the caller closes it."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    with open(fd, "wb", buffering=0, closefd=False) as file:
        written = file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    if written != len(content):
        os.close(fd)
        raise HostError(f"memory file {name} was written short", fix="free some memory")
    return fd
