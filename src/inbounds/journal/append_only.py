"""The append-only attribute of a file (`chattr +a`): while it is set, the kernel takes additions and nothing else.

Knows one flag of one descriptor. Setting and clearing take CAP_LINUX_IMMUTABLE and a file system that has it (ext4,
xfs, btrfs); everywhere else the answer says why not, and the caller goes on without.
"""

import fcntl
import os
import struct
from pathlib import Path

# <linux/fs.h>: _IOR('f', 1, long), _IOW('f', 2, long), the same number on x86-64 and arm64; the kernel moves 4 bytes.
_GET_FLAGS, _SET_FLAGS, _APPEND = 0x8008_6601, 0x4008_6602, 0x20


def is_set(fd: int) -> bool:
    """Whether the file has the attribute; False also where the file system has no such thing."""
    try:
        return bool(_flags(fd) & _APPEND)
    except OSError:
        return False


def protect(fd: int) -> str:
    """Set the attribute; "" if it is set now, otherwise why it is not ("Operation not permitted", …)."""
    return _change(fd, on=True)


def release(fd: int) -> str:
    """Clear the attribute, so that the file can be cut and deleted; "" if it is not set now, otherwise why it is."""
    return _change(fd, on=False) if is_set(fd) else ""


def release_path(path: Path) -> str:
    """`release` for a file that is to be deleted; "" too where there is no such file. Links are not followed."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return error.strerror or str(error)
    try:
        return release(fd)
    finally:
        os.close(fd)


def _change(fd: int, *, on: bool) -> str:
    try:
        flags = _flags(fd)
        fcntl.ioctl(fd, _SET_FLAGS, struct.pack("=q", flags | _APPEND if on else flags & ~_APPEND))
    except OSError as error:
        return error.strerror or str(error)
    # Some file systems take the call and drop the flag: what is reported is what is there.
    return "" if is_set(fd) == on else "the file system does not keep the attribute"


def _flags(fd: int) -> int:
    raw = fcntl.ioctl(fd, _GET_FLAGS, bytes(8))
    return int(struct.unpack("=I", raw[:4])[0])
