"""How the gateway gives up what it does not need, after opening what it does and before its first thread.

Non-dumpable, no core, no new privileges, no inherited descriptors, and Landlock: writes reach the ledger's own files
only, reads what names and TLS need, TCP goes to the configured ports only. Knows nothing of requests.
"""

import contextlib
import ctypes
import errno
import os
import resource
import struct
import sys
from collections.abc import Iterable
from typing import Any

PR_SET_DUMPABLE = 4
PR_SET_NO_NEW_PRIVS = 38
NR_CREATE_RULESET, NR_ADD_RULE, NR_RESTRICT_SELF = 444, 445, 446  # the same number on every architecture
VERSION_FLAG = 1
RULE_PATH, RULE_PORT = 1, 2

# landlock(7): file-system rights by the ABI that brought them; all known ones are taken, few are given back
FS_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
WRITE_FILE, READ_FILE, READ_DIR, TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 14
NET_CONNECT, NET_BIND = 1 << 1, 1 << 0
SCOPE_ABSTRACT_SOCKET, SCOPE_SIGNAL = 1, 2
ABI_NET, ABI_SCOPE = 4, 6
DNS_PORT = 53

# Read after the seal by getaddrinfo, TLS and the import system; nothing of a home directory or a repository.
READABLE = (
    *("/usr", "/lib", "/lib64", "/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/resolv.conf", "/etc/hosts"),
    *("/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/localtime", "/etc/ld.so.cache"),
    *("/etc/services", "/etc/protocols", "/dev/urandom", "/dev/null"),
)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *arguments: Any) -> int:
    result = int(_libc().syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def landlock_abi() -> int:
    """The kernel's Landlock ABI, 0 where it has none or it is switched off."""
    try:
        return _syscall(NR_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(VERSION_FLAG))
    except OSError as error:
        if error.errno in {errno.ENOSYS, errno.EOPNOTSUPP}:
            return 0
        raise


def _allow_path(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # what does not exist needs no permission
    try:
        if not os.path.isdir(path):
            rights &= ~READ_DIR
        rule = struct.pack("<Qi", rights, descriptor)
        _syscall(NR_ADD_RULE, ruleset, RULE_PATH, rule, ctypes.c_uint32(0))
    finally:
        os.close(descriptor)


def _restrict(abi: int, readable: Iterable[str], writable: Iterable[str], ports: Iterable[int]) -> None:
    """Build the ruleset for this ABI and apply it to the calling thread (and the threads it starts later)."""
    rights = (1 << FS_RIGHTS_BY_ABI[min(abi, max(FS_RIGHTS_BY_ABI))]) - 1
    net = NET_CONNECT | NET_BIND if abi >= ABI_NET else 0
    scoped = SCOPE_ABSTRACT_SOCKET | SCOPE_SIGNAL if abi >= ABI_SCOPE else 0
    size = 24 if abi >= ABI_SCOPE else 16 if abi >= ABI_NET else 8
    attributes = struct.pack("<QQQ", rights, net, scoped)[:size]
    ruleset = _syscall(NR_CREATE_RULESET, attributes, ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for path in readable:
            _allow_path(ruleset, path, READ_FILE | READ_DIR)
        for path in writable:
            _allow_path(ruleset, path, (READ_FILE | WRITE_FILE | TRUNCATE) & rights)
        for port in set(ports) if net else ():
            _syscall(NR_ADD_RULE, ruleset, RULE_PORT, struct.pack("<QQ", NET_CONNECT, port), ctypes.c_uint32(0))
        _syscall(NR_RESTRICT_SELF, ruleset, ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def undumpable() -> None:
    """No other process of this user reads our memory, environment or core; OSError where the kernel refuses."""
    libc = _libc()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for option, value in ((PR_SET_DUMPABLE, 0), (PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            code = ctypes.get_errno()
            raise OSError(code, f"prctl {option}: {os.strerror(code)}")


def close_inherited(keep: Iterable[int]) -> None:
    """Close every descriptor that is not in `keep` (CVE-2024-21626: a leaked one is a way out)."""
    kept = set(keep)
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with contextlib.suppress(OSError):  # the listing's own descriptor is gone by now
                os.close(int(name))


def seal(*, writable: Iterable[str], readable: Iterable[str] = (), ports: Iterable[int] = ()) -> dict[str, str]:
    """Apply Landlock to this thread and say what holds: mechanism -> "enforced" or "absent: why".

    Call before any thread starts: Landlock binds the caller and what it starts, not its siblings.
    """
    facts = {"non-dumpable": "enforced", "no-new-privileges": "enforced"}
    abi = landlock_abi()
    if not abi:
        return {**facts, "landlock": "absent: this kernel has no Landlock, or it is switched off"}
    code = {os.path.dirname(os.path.realpath(__file__)), sys.prefix, sys.base_prefix, *(p for p in sys.path if p)}
    resolver = os.path.dirname(os.path.realpath("/etc/resolv.conf"))
    more = () if resolver == "/etc" else (resolver,)
    _restrict(abi, (*READABLE, *sorted(code), *more, *readable), writable, (*ports, DNS_PORT))
    net = "enforced" if abi >= ABI_NET else f"absent: Landlock ABI {abi} knows no network rules"
    return {**facts, "landlock": f"enforced (ABI {abi})", "landlock-ports": net}
