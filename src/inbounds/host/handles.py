"""Mounts and files by descriptor: the system calls for which the standard library has no function, by ctypes.

Kernel handles of files, detached clones of trees, attributes of mounts, new mounts, user namespaces for id maps.
Knows nothing of slots, images or jails.
"""

import ctypes
import errno
import os
import re
import struct
from dataclasses import dataclass
from typing import NamedTuple

_libc = ctypes.CDLL(None, use_errno=True)
# The same on every architecture that Linux 5.15 has but alpha (asm-generic/unistd.h).
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 442

AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _MOVE_FROM_EMPTY, _MOVE_TO_EMPTY = 1, 0x4, 0x40
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6  # fsconfig(2)

RDONLY, NOSUID, NODEV, NOEXEC, NOATIME = 0x1, 0x2, 0x4, 0x8, 0x10  # MOUNT_ATTR_*
IDMAP = 0x100000
ATIME_MASK = 0x70  # MOUNT_ATTR__ATIME: must be cleared wherever an atime rule is set
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

HANDLE_BYTES_MAX = 128  # MAX_HANDLE_SZ
_NEWUSER = 0x10000000
_LOG_BYTES_MAX = 4096  # of a file system's complaint: for a message, no more


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(what: str, number: int, *arguments: int | bytes | None) -> int:
    passed = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *passed), what)


@dataclass(frozen=True, slots=True)
class Handle:
    """What the kernel calls a file within one file system; `mount` is the id of the mount it was taken from."""

    kind: int
    name: bytes
    mount: int


def handle_of(fd: int) -> Handle:
    """The handle of what a descriptor (O_PATH too) names. OSError: the file system has none (EOPNOTSUPP)."""
    room = ctypes.create_string_buffer(struct.pack("=Ii", HANDLE_BYTES_MAX, 0), 8 + HANDLE_BYTES_MAX)
    mount = ctypes.c_int()
    _checked(_libc.name_to_handle_at(fd, b"", room, ctypes.byref(mount), AT_EMPTY_PATH), "name_to_handle_at")
    length, kind = struct.unpack_from("=Ii", room.raw)
    return Handle(kind, room.raw[8 : 8 + length], mount.value)


def open_handle(mount_fd: int, handle: Handle, flags: int) -> int:
    """The same inode, reached through the mount of `mount_fd` (no O_PATH). Needs CAP_DAC_READ_SEARCH."""
    packed = struct.pack("=Ii", len(handle.name), handle.kind) + handle.name
    room = ctypes.create_string_buffer(packed, len(packed))
    return _checked(_libc.open_by_handle_at(mount_fd, room, flags | os.O_CLOEXEC), "open_by_handle_at")


def twin(fd: int, mount_fd: int) -> int:
    """An O_PATH descriptor of `fd`'s inode on the mount of `mount_fd`; EXDEV where it is of another file system.

    That the inode is within the mount's tree is the caller's to know: it is where `fd` comes from a mount of that tree.
    """
    theirs = os.fstat(fd)
    if theirs.st_dev != os.fstat(mount_fd).st_dev:
        raise OSError(errno.EXDEV, "the descriptor is of another file system than the mount")
    found = open_handle(mount_fd, handle_of(fd), os.O_PATH | os.O_NOFOLLOW)
    if not os.path.samestat(theirs, os.fstat(found)):
        os.close(found)
        raise OSError(errno.ESTALE, "the handle led to another inode")
    return found


def clone_tree(fd: int, path: str = "", *, recursive: bool = False) -> int:
    """A detached clone of the mount at `path` below `fd` (or of `fd` itself): it goes with its last descriptor."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    return _syscall("open_tree", _OPEN_TREE, fd, os.fsencode(path), flags)


def set_attributes(fd: int, on: int, off: int = 0, *, id_map: int = 0, propagation: int = 0) -> None:
    """Attributes of the mount whose root `fd` is. `id_map` is a user namespace's descriptor, where IDMAP is in `on`."""
    packed = struct.pack("=QQQQ", on, off, propagation, id_map)
    _syscall("mount_setattr", _MOUNT_SETATTR, fd, b"", AT_EMPTY_PATH, packed, len(packed))


def attach(tree_fd: int, path: str, *, at: int = AT_FDCWD) -> None:
    """Mount a detached tree at `path` (below `at`; "" is `at` itself)."""
    flags = _MOVE_FROM_EMPTY | (0 if path else _MOVE_TO_EMPTY)
    _syscall("move_mount", _MOVE_MOUNT, tree_fd, b"", at, os.fsencode(path), flags)


def new_mount(kind: str, source: str, attributes: int, *options: str) -> int:
    """A detached mount of a file system of that kind; options are "name" or "name=value"."""
    context = _syscall("fsopen", _FSOPEN, kind.encode(), 1)
    try:
        for option in (f"source={source}", *options):
            name, is_string, value = option.partition("=")
            verb = _SET_STRING if is_string else _SET_FLAG
            given = os.fsencode(value) if is_string else None
            _syscall(f"fsconfig {name}", _FSCONFIG, context, verb, name.encode(), given, 0)
        _syscall(f"mount of {source}", _FSCONFIG, context, _CREATE, None, None, 0)
        return _syscall("fsmount", _FSMOUNT, context, 1, attributes)
    except OSError as fault:
        raise OSError(fault.errno, f"{fault.strerror} {_complaint(context)}".strip()) from fault
    finally:
        os.close(context)


def _complaint(context: int) -> str:
    try:
        return os.read(context, _LOG_BYTES_MAX).decode(errors="replace").strip()
    except OSError:  # ENODATA: it said nothing
        return ""


def unmount(path: str, flags: int = 0) -> None:
    """umount2(2), never through a symbolic link."""
    _checked(_libc.umount2(os.fsencode(path), flags | UMOUNT_NOFOLLOW), f"unmount {path}")


class Mount(NamedTuple):
    """One line of mountinfo: the file system's device, and which directory of it is the mount's root."""

    device: int
    root: str


def mounts_at(path: str) -> list[Mount]:
    """The mounts at exactly this path in this mount namespace, the topmost last."""
    with open("/proc/self/mountinfo", "rb") as table:
        rows = [line.split(b" ", 5) for line in table]
    wanted = os.fsencode(path)
    found = [row for row in rows if _plain(row[4]) == wanted]
    return [Mount(os.makedev(*map(int, row[2].split(b":"))), os.fsdecode(_plain(row[3]))) for row in found]


def _plain(escaped: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", _octal, escaped)


def _octal(escaped: re.Match[bytes]) -> bytes:
    return bytes([int(escaped[1], 8)])


def user_namespace(uid_map: str, gid_map: str) -> int:
    """A user namespace with these maps ("inside outside count" by line), as a descriptor: for an id-mapped mount.

    On an id-mapped mount "inside" is what the disk says and "outside" what the system sees (mount_setattr(2)).
    """
    ready, told = os.pipe()
    stay, leave = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(leave)
            failed = ctypes.get_errno() if _libc.unshare(_NEWUSER) else 0
            os.write(told, struct.pack("=i", failed))
            os.read(stay, 1)  # ends with the parent's end of the pipe, however the parent ends
        finally:
            os._exit(0)  # never back into the caller's code
    try:
        os.close(told)
        os.close(stay)
        answer = os.read(ready, 4)
        if answer != bytes(4):
            raise OSError(struct.unpack("=i", answer)[0] if answer else errno.ECHILD, "no user namespace could be made")
        for name, text in (("uid_map", uid_map), ("gid_map", gid_map)):
            with open(f"/proc/{child}/{name}", "w", encoding="ascii") as file:
                file.write(text)
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready)
        os.close(leave)
        os.waitpid(child, 0)
