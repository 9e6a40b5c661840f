"""Give up, for good, what a broker does not need: files, programs, new sockets, other processes, new threads.

Works on this process by prctl, Landlock and seccomp, after everything is imported; each mechanism reports "enforced" or
why it is absent, and the supervisor decides whether that is enough. Knows nothing of tools or HTTP.
"""

import contextlib
import ctypes
import errno
import os
import platform
import resource
import struct

PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_KILL_PROCESS = 0x80000000
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_ALLOW = 0x7FFF0000
LANDLOCK_CREATE_RULESET = 444
LANDLOCK_RESTRICT_SELF = 446
LANDLOCK_CREATE_RULESET_VERSION = 1
X32_BIT = 0x40000000

# Descriptors: the connections that server.py allows, the listeners of a run, and the event loop's own.
DESCRIPTORS_MAX = 256

ENFORCED = "enforced"

# Access rights to files by the Landlock ABI that brought them (landlock.h): all are handled and none is granted.
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
# From ABI 4: bind and connect; from ABI 6: abstract sockets and signals to others.
NET_RIGHTS, NET_ABI = 0b11, 4
SCOPES, SCOPE_ABI = 0b11, 6

# What is denied, by name and by number on the two architectures: to look at files, start programs or threads, make
# sockets, touch other processes or the kernel's wider surface. Errors are EPERM, so that Python reports them.
DENIED = {
    "x86_64": {
        "files": (2, 85, 257, 437, 82, 264, 316, 83, 258, 84, 87, 263, 86, 265, 88, 266, 90, 268, 92, 260, 133, 259),
        "programs": (59, 322, 56, 57, 58),
        "sockets": (41, 42, 49),
        "processes": (101, 310, 311, 62, 200, 234, 424, 434, 438, 129, 297),
        "kernel": (165, 166, 155, 161, 272, 308, 321, 425, 426, 427, 248, 249, 250, 298, 304, 319, 323, 428, 430, 442),
    },
    "aarch64": {
        "files": (56, 437, 38, 276, 34, 35, 37, 36, 53, 54, 33),
        "programs": (221, 281, 220),
        "sockets": (198, 203, 200),
        "processes": (117, 270, 271, 129, 130, 131, 424, 434, 438, 138, 240),
        "kernel": (40, 39, 41, 51, 97, 268, 280, 425, 426, 427, 217, 218, 219, 241, 265, 279, 282, 428, 430, 442),
    },
}
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# clone3 has its flags in memory, where a filter can't see them; libraries fall back to clone on ENOSYS.
CLONE3 = 435

STDERR = 2

_libc = ctypes.CDLL(None, use_errno=True)


def seal() -> dict[str, str]:
    """Seal this process; each mechanism's name with "enforced" or "absent: why"."""
    return {
        "not-dumpable": _prctl(PR_SET_DUMPABLE, 0),
        "no-new-privs": _prctl(PR_SET_NO_NEW_PRIVS, 1),
        "rlimits": _limits(),
        "landlock": _landlock(),
        "seccomp": _seccomp(),
    }


def close_descriptors(*keep: int) -> None:
    """Close every descriptor from 3 up but these (CVE-2024-21626: inherited descriptors)."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > STDERR and int(name) not in keep:
            with contextlib.suppress(OSError):  # the listing's own descriptor is gone by now
                os.close(int(name))


def _prctl(option: int, value: int) -> str:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        return f"absent: {os.strerror(ctypes.get_errno())}"
    return ENFORCED


def _limits() -> str:
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS_MAX, DESCRIPTORS_MAX))
    except (OSError, ValueError) as fault:
        return f"absent: {fault}"
    return ENFORCED


def _landlock() -> str:
    abi = _libc.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), LANDLOCK_CREATE_RULESET_VERSION)
    if abi < 1:
        return f"absent: {os.strerror(ctypes.get_errno())}"
    files = (1 << max(bits for since, bits in FILE_RIGHTS.items() if since <= abi)) - 1
    fields = [files]
    fields += [NET_RIGHTS] if abi >= NET_ABI else []
    fields += [SCOPES] if abi >= SCOPE_ABI else []
    attribute = struct.pack(f"={len(fields)}Q", *fields)
    ruleset = _libc.syscall(LANDLOCK_CREATE_RULESET, attribute, ctypes.c_size_t(len(attribute)), 0)
    if ruleset < 0:
        return f"absent: {os.strerror(ctypes.get_errno())}"
    refused = _libc.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0) != 0
    why = os.strerror(ctypes.get_errno())
    os.close(ruleset)
    return f"absent: {why}" if refused else ENFORCED


def _seccomp() -> str:
    machine = platform.machine()
    if machine not in DENIED:
        return f"absent: no filter for {machine}"
    program = _filter(machine)
    held = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(held))
    if _libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(header), 0, 0) != 0:
        return f"absent: {os.strerror(ctypes.get_errno())}"
    return ENFORCED


def _filter(machine: str) -> bytes:
    """Write the classic BPF program: architecture, then number by number, then allow."""
    load, jump_equal, jump_greater, give = 0x20, 0x15, 0x35, 0x06

    def step(code: int, value: int, when: int = 0, otherwise: int = 0) -> bytes:
        return struct.pack("HBBI", code, when, otherwise, value)

    def refuse(number: int, code: int) -> list[bytes]:
        return [step(jump_equal, number, 0, 1), step(give, SECCOMP_RET_ERRNO | code)]

    made = [
        step(load, 4),
        step(jump_equal, AUDIT_ARCH[machine], 1, 0),
        step(give, SECCOMP_RET_KILL_PROCESS),
        step(load, 0),
    ]
    if machine == "x86_64":
        made += [step(jump_greater, X32_BIT, 0, 1), step(give, SECCOMP_RET_ERRNO | errno.EPERM)]
    made += refuse(CLONE3, errno.ENOSYS)
    for numbers in DENIED[machine].values():
        for number in numbers:
            made += refuse(number, errno.EPERM)
    return b"".join([*made, step(give, SECCOMP_RET_ALLOW)])
