"""The promoter's own seal: no new privileges, not dumpable, and writing only inside the store (ARCHITECTURE, table).

Landlock by system call (kernel.org, userspace-api/landlock); each ABI's additions are asked for where the host has
them. Says what was enforced and what is absent; knows nothing of git.
"""

import ctypes
import os
from typing import NamedTuple

from inbounds.contracts.errors import HostError

PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 38
# landlock_create_ruleset, landlock_add_rule, landlock_restrict_self: the same numbers on every architecture since 5.13
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION_FLAG, RULE_PATH_BENEATH = 1, 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
TRUNCATE = 1 << 14
# How many file-system rights each ABI knows (uapi/linux/landlock.h): ABI 1 has 13, then REFER, TRUNCATE, IOCTL_DEV.
RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15}
RIGHTS_NEWEST = 16
ABI_TCP, ABI_SCOPE = 4, 6
TCP_ALL, SCOPE_ALL = 0b11, 0b11  # bind and connect; abstract unix sockets and signals to outside


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


class Sealed(NamedTuple):
    """What is in force from now on, for this process and all it starts: "enforced" or "absent: why"."""

    no_new_privs: str
    landlock: str


def abi() -> int:
    """The host's Landlock version, 0 where there is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    return max(0, int(libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION_FLAG)))


def seal(writable: str) -> Sealed:
    """Give up all writing but below `writable` (and to /dev/null, which git opens), and TCP; there is no way back.

    HostError if the kernel refuses what it says it can do.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((PR_SET_NO_NEW_PRIVS, 1), (PR_SET_DUMPABLE, 0)):
        if libc.prctl(option, value, 0, 0, 0):
            raise HostError(f"prctl({option}): {os.strerror(ctypes.get_errno())}", where="promote")
    version = abi()
    if not version:
        return Sealed("enforced", "absent: this kernel has no Landlock")
    rights = (1 << RIGHTS_BY_ABI.get(version, RIGHTS_NEWEST)) - 1
    wanted = _Ruleset(rights, TCP_ALL if version >= ABI_TCP else 0, SCOPE_ALL if version >= ABI_SCOPE else 0)
    size = 24 if version >= ABI_SCOPE else 16 if version >= ABI_TCP else 8
    ruleset = libc.syscall(CREATE_RULESET, ctypes.byref(wanted), ctypes.c_size_t(size), 0)
    if ruleset < 0:
        raise HostError(f"landlock_create_ruleset: {os.strerror(ctypes.get_errno())}", where="promote")
    try:
        _allow(libc, ruleset, "/", rights & (EXECUTE | READ_FILE | READ_DIR))
        _allow(libc, ruleset, writable, rights)
        _allow(libc, ruleset, "/dev/null", rights & (READ_FILE | WRITE_FILE | TRUNCATE))
        if libc.syscall(RESTRICT_SELF, ruleset, 0):
            raise HostError(f"landlock_restrict_self: {os.strerror(ctypes.get_errno())}", where="promote")
    finally:
        os.close(ruleset)
    return Sealed("enforced", f"enforced: ABI {version}")


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule = _PathBeneath(rights, handle)
        if libc.syscall(ADD_RULE, ruleset, RULE_PATH_BENEATH, ctypes.byref(rule), 0):
            raise HostError(f"landlock_add_rule {path}: {os.strerror(ctypes.get_errno())}", where="promote")
    finally:
        os.close(handle)
