"""Landlock for our own small programs (kernel.org, userspace-api/landlock): all rights are handled, few given back.

Binds the calling thread and whatever it starts from then on, for good. Knows nothing of which program asks.
"""

import errno
import os
import struct
from collections.abc import Iterable

from inbounds.program.libc import syscall

# the same numbers on every architecture
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION_FLAG = 1
RULE_PATH, RULE_PORT = 1, 2

# linux/landlock.h: how many file rights each ABI knows; then bind and connect, then abstract sockets and signals
FS_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
ABI_TCP, ABI_SCOPES = 4, 6
TCP_BIND, TCP_CONNECT = 1, 2
SCOPES = 0b11

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _IOCTL = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
_MAKE_DEVICES = 1 << 6 | 1 << 11
_FILE_ONLY = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
# What a row of rights grants below a path.
READ = _READ_FILE | _READ_DIR
EXECUTE = READ | _EXECUTE
WRITE = _READ_FILE | _WRITE_FILE | _TRUNCATE  # what is in a file; none is made, none removed
OWN = ((1 << 15) - 1) & ~_EXECUTE & ~_MAKE_DEVICES  # make, change, move and remove all but devices


def abi() -> int:
    """The kernel's Landlock version, 0 where it has none or it is switched off."""
    try:
        return syscall(CREATE_RULESET, None, 0, VERSION_FLAG)
    except OSError as error:
        if error.errno in {errno.ENOSYS, errno.EOPNOTSUPP}:
            return 0
        raise


def restrict(version: int, paths: Iterable[tuple[str, int]], ports: Iterable[int]) -> None:
    """Leave this thread these rights below these paths and TCP connections to these ports; OSError if refused.

    A path that does not exist needs no right. `version` is what `abi` said, not 0.
    """
    handled = (1 << FS_RIGHTS_BY_ABI[min(version, max(FS_RIGHTS_BY_ABI))]) - 1
    tcp = TCP_BIND | TCP_CONNECT if version >= ABI_TCP else 0
    fields = 3 if version >= ABI_SCOPES else 2 if version >= ABI_TCP else 1
    attributes = struct.pack("=QQQ", handled, tcp, SCOPES)[: 8 * fields]
    ruleset = syscall(CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path, rights in paths:
            _allow(ruleset, path, rights & handled)
        for port in set(ports) if tcp else ():
            syscall(ADD_RULE, ruleset, RULE_PORT, struct.pack("=QQ", TCP_CONNECT, port), 0)
        syscall(RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):
            rights &= _FILE_ONLY
        syscall(ADD_RULE, ruleset, RULE_PATH, struct.pack("=Qi", rights, handle), 0)
    finally:
        os.close(handle)
