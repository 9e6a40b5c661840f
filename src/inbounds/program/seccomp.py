"""The seccomp filter of our own small programs, a denylist: what none of them ever does, and what one's row gives up.

A jail has an allowlist of its own instead, as untrusted code runs there. Numbers are from the kernel's uapi headers
(asm/unistd_64.h, asm-generic/unistd.h), x86_64 before aarch64. A refused call gives EPERM, which Python reports.
"""

import errno
import struct
from dataclasses import dataclass

Numbers = dict[str, tuple[int | None, int | None]]

# Other processes' memory, and the kernel's wider surface: no program of ours has business there.
NEVER: Numbers = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "memfd_create": (319, 279),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
}
FILES: Numbers = {
    "open": (2, None),
    "creat": (85, None),
    "openat": (257, 56),
    "openat2": (437, 437),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "chmod": (90, None),
    "fchmodat": (268, 53),
    "chown": (92, None),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "truncate": (76, 45),
}
# A program that starts others must also be able to end them.
PROGRAMS: Numbers = {
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
}
SOCKETS: Numbers = {"socket": (41, 198), "connect": (42, 203), "bind": (49, 200)}
CLONE = (56, 220)
CLONE3 = 435  # its flags are in memory, where a filter can't see them; on ENOSYS the C library falls back to clone

# linux/audit.h: machine | 64 bit | little endian
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
X32_BIT = 0x40000000  # x86_64 kernels take x32 calls with this bit set: a second way to each of them

# linux/sched.h: any new namespace, and what a thread differs in from a process
CLONE_NAMESPACES, CLONE_THREAD = 0x7E020000, 0x10000
AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
SOCK_STREAM, SOCK_DGRAM, SOCK_TYPE_MASK = 1, 2, 0xF

# linux/seccomp.h, linux/bpf_common.h, struct seccomp_data
KILL_PROCESS, ERRNO, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
LOAD, JUMP_EQUAL, JUMP_GREATER_EQUAL, JUMP_SET, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
OFFSET_NR, OFFSET_ARCH, OFFSET_ARGS = 0, 4, 16

Step = tuple[int, int, int, int]  # code, jump if true, jump if false, constant
YES: Step = (RETURN, 0, 0, ALLOW)
NO: Step = (RETURN, 0, 0, ERRNO | errno.EPERM)


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a program does after its seal: open files, start programs (or threads alone), make sockets."""

    files: bool
    programs: bool
    threads: bool
    sockets: bool


def instructions(machine: str, allowed: Allowed) -> list[bytes] | None:
    """The filter as struct sock_filter, one by one; None for an architecture that has no table here."""
    if machine not in ARCHITECTURES:
        return None
    column, audit = ARCHITECTURES[machine]
    made: list[Step] = [
        (LOAD, 0, 0, OFFSET_ARCH),
        (JUMP_EQUAL, 1, 0, audit),
        (RETURN, 0, 0, KILL_PROCESS),
        (LOAD, 0, 0, OFFSET_NR),
        (JUMP_GREATER_EQUAL, 0, 1, X32_BIT),
        NO,
        (JUMP_EQUAL, 0, 1, CLONE3),
        (RETURN, 0, 0, ERRNO | errno.ENOSYS),
    ]
    made += _when(CLONE[column], _clone(allowed))
    if allowed.sockets:
        made += _when(SOCKETS["socket"][column], _socket())
    gone = [NEVER]
    gone += [] if allowed.files else [FILES]
    gone += [] if allowed.programs else [PROGRAMS]
    gone += [] if allowed.sockets else [SOCKETS]
    for numbers in (table.values() for table in gone):
        for number in (both[column] for both in numbers):
            made += [] if number is None else _when(number, [NO])
    return [struct.pack("=HBBI", *step) for step in [*made, YES]]


def _when(number: int | None, block: list[Step]) -> list[Step]:
    """Run `block`, which returns on every path, for this call; the accumulator holds the call's number."""
    assert number is not None, "the call exists on both architectures"
    return [(JUMP_EQUAL, 0, len(block), number), *block]


def _argument(index: int) -> Step:
    return (LOAD, 0, 0, OFFSET_ARGS + 8 * index)  # the low half: the kernel reads these as int, or the flags are there


def _clone(allowed: Allowed) -> list[Step]:
    if allowed.programs:
        return [_argument(0), (JUMP_SET, 0, 1, CLONE_NAMESPACES), NO, YES]
    if allowed.threads:
        return [_argument(0), (JUMP_SET, 0, 1, CLONE_THREAD), YES, NO]
    return [NO]


def _socket() -> list[Step]:
    """Unix, and TCP or UDP over IPv4 and IPv6; no raw packets, no netlink, which root could change the host by."""
    return [
        _argument(0),
        (JUMP_EQUAL, 6, 0, AF_UNIX),
        (JUMP_EQUAL, 1, 0, AF_INET),
        (JUMP_EQUAL, 0, 5, AF_INET6),
        _argument(1),
        (AND, 0, 0, SOCK_TYPE_MASK),
        (JUMP_EQUAL, 1, 0, SOCK_STREAM),
        (JUMP_EQUAL, 0, 1, SOCK_DGRAM),
        YES,
        NO,
    ]
