"""The child that becomes one jail's bubblewrap: joins the groups, stages the sources, gives everything up, executes.

Until it has given up root it looks at integers, and at descriptors only through the kernel; the argument list is read
afterwards. It dies with the session that started it. Knows nothing of slots' states and of what jails are for.
"""

import ctypes
import errno
import fcntl
import os
import platform
import resource
import signal
import stat
import struct
from dataclasses import dataclass
from typing import NoReturn

from inbounds.host import handles
from inbounds.host.protocol import STAGE

ARGUMENT_BYTES_MAX = 1 << 20  # the argument list of one jail: some kilobytes
ARGUMENTS_MAX = 4096  # three for each bind, of which there are at most 250
ABOVE_ALL = 300  # a number above every descriptor that bubblewrap is given, below the usual limit of 1024
STAGE_BYTES = 1 << 20  # mount points only
FAILED = 126  # the exit code of a child that did not become bubblewrap

PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 24, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
CAPABILITIES = 64  # the width of the kernel's sets
CAPABILITY_VERSION_3 = 0x20080522
CLONE_NEWNS, CLONE_NEWIPC = 0x20000, 0x8000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
SYS_MOUNT_SETATTR = 442
SYS_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219}
KEYCTL_JOIN_SESSION_KEYRING = 1

# File systems that a source may be of: those that hold files. Not proc, sys, cgroup, devpts, network or FUSE: looking
# at their files, or letting a jail do so, would be somebody else's code or the kernel's own state (statfs(2)).
FILE_SYSTEMS = {
    0xEF53: "ext4",
    0x9123683E: "btrfs",
    0x58465342: "xfs",
    0x01021994: "tmpfs",
    0x794C7630: "overlay",
    0x73717368: "squashfs",
    0xE0F5E1E2: "erofs",
    0xF2F52010: "f2fs",
    0x2FC12FC1: "zfs",
    0xCA451A4E: "bcachefs",
}

libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Order:
    """One jail: its user, the groups' files to join, the volume, whose mounts to leave, what came with the request."""

    uid: int
    gid: int
    join: list[int]
    volume: int  # the root of the raw mount
    foreign: frozenset[int]  # devices of other slots' volumes
    run_directory: str
    halted: str  # where this file is, nothing begins
    arguments: int
    inherited: list[int]
    sources: list[int]


def start(order: Order) -> tuple[int, int]:
    """Fork the child; its pid and a pidfd. The caller has one thread only, and keeps its descriptors."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(order, parent)
    return pid, os.pidfd_open(pid)


def checked(what: str, result: int) -> int:
    """Raise OSError named `what` if a libc call returned -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, *arguments: int) -> int:
    """The system call, all of whose arguments are unsigned longs."""
    padded = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)][:4]
    return checked(f"prctl {option}", int(libc.prctl(option, *padded)))


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent` dies; exit if that has happened already."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(FAILED)


def _become(order: Order, parent: int) -> NoReturn:
    """The child's whole life. Nothing is written for the client, not even why not, while this is root."""
    try:
        why = ""
        try:
            die_with(parent)
            for fd in order.join:
                os.write(fd, b"0")
            _stage(order)
        except OSError as error:
            why = str(error)
        drop(order.uid, order.gid)
        die_with(parent)  # the kernel forgets the parent-death signal on a change of user
        arguments = _arrange(order)
        try:
            if not why:
                _execute(arguments)
        except Exception as error:
            why = str(error)
        os.write(2, f"inbounds host: {why}\n".encode())
    finally:
        os._exit(FAILED)


# -- with privilege ----------------------------------------------------------------------------------------------------


def _stage(order: Order) -> None:
    """Each source as STAGE/<index>, in namespaces of this process alone where nothing else can be written to.

    The clones carry no submounts. All the rest of the host is read-only and without set-id here, so that a slot's user
    leaves files nowhere but on its volume: what is left elsewhere would be the next owner's of its number.
    """
    if os.path.lexists(order.halted):  # behind the joining: whoever halts makes it, then kills who has joined
        raise OSError(errno.EBUSY, "the slot was halted")
    trees = [_clone(fd, order) for fd in order.sources]
    checked("unshare", libc.unshare(CLONE_NEWNS | CLONE_NEWIPC))
    checked("private mounts", libc.mount(None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None))
    handles.unmount(order.run_directory, handles.MNT_DETACH)  # every slot's volume: a copy would hold it mounted
    _set_all("/", handles.RDONLY | handles.NOSUID, 0)
    # a new proc in a user namespace may be no more writable than the one that is there
    _set_all("/proc", 0, handles.RDONLY)
    stage = handles.new_mount("tmpfs", "inbounds", handles.NOSUID | handles.NODEV, "mode=0755", f"size={STAGE_BYTES}")
    handles.attach(stage, STAGE)
    for index, tree in enumerate(trees):
        place = f"{STAGE}/{index}"
        if stat.S_ISDIR(os.fstat(tree).st_mode):
            os.mkdir(place, 0o755)
        else:
            os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        handles.attach(tree, place)


def _clone(fd: int, order: Order) -> int:
    """A detached clone of a source; what is on the volume's view is taken from the volume itself, by kernel handle."""
    about = os.fstat(fd)
    if not stat.S_ISDIR(about.st_mode) and not stat.S_ISREG(about.st_mode):
        raise OSError(errno.EINVAL, "a source that is no file and no directory")
    if about.st_dev in order.foreign:
        raise OSError(errno.EXDEV, "a source on another slot's volume")
    kind = _file_system(fd)
    if kind not in FILE_SYSTEMS:
        raise OSError(errno.EINVAL, f"a source on a file system of type {kind:#x}")
    own = about.st_dev == os.fstat(order.volume).st_dev
    tree = handles.clone_tree(handles.twin(fd, order.volume) if own else fd)
    # the volume is noexec; what a jail may execute of it is decided by what seals the jail
    handles.set_attributes(tree, handles.NOSUID | handles.NODEV, handles.NOEXEC if own else 0, propagation=MS_PRIVATE)
    return tree


def _file_system(fd: int) -> int:
    room = ctypes.create_string_buffer(256)  # struct statfs is 120 bytes; its first word is the type
    checked("fstatfs", libc.fstatfs(fd, room))
    return int(struct.unpack_from("@l", room.raw)[0]) & 0xFFFF_FFFF


def _set_all(path: str, on: int, off: int) -> None:
    """Attributes of the mount at `path` and of all below it."""
    packed = struct.pack("=QQQQ", on, off, 0, 0)
    flags = ctypes.c_uint(handles.AT_RECURSIVE)
    result = libc.syscall(
        ctypes.c_long(SYS_MOUNT_SETATTR), handles.AT_FDCWD, path.encode(), flags, packed, ctypes.c_size_t(len(packed))
    )
    checked(f"mount_setattr {path}", int(result))


def bound_capabilities(kept: int) -> None:
    """Whatever this process and its children execute gains no capability but those of the mask `kept`."""
    for number in range(CAPABILITIES):
        try:
            if not kept >> number & 1:
                prctl(PR_CAPBSET_DROP, number)
        except OSError as error:
            if error.errno != errno.EINVAL:  # the kernel has no more of them
                raise


def set_capabilities(mask: int) -> None:
    """Hold the capabilities of the mask and no others; inherit none to what is executed."""
    header, low, high = struct.pack("=Ii", CAPABILITY_VERSION_3, 0), mask & 0xFFFF_FFFF, mask >> 32
    checked("capset", libc.capset(header, struct.pack("=6I", low, low, 0, high, high, 0)))


def drop(uid: int, gid: int) -> None:
    """Become a user with no group, no capability in any set and no way to gain one. OSError: it is still root."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    bound_capabilities(0)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    set_capabilities(0)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    if os.getresuid() != (uid, uid, uid) or os.getresgid() != (gid, gid, gid) or os.getgroups() or 0 in (uid, gid):
        os._exit(FAILED)


# -- without -----------------------------------------------------------------------------------------------------------


def read_arguments(fd: int) -> list[str]:
    """The argument list of a memory file: each with a zero byte behind it. OSError where it is none."""
    data = os.pread(fd, ARGUMENT_BYTES_MAX + 1, 0)
    arguments = data.split(b"\0")
    if len(data) > ARGUMENT_BYTES_MAX or len(arguments) > ARGUMENTS_MAX or arguments.pop() or not arguments:
        raise OSError(errno.E2BIG, "no argument list, or one that is too long")
    return [os.fsdecode(argument) for argument in arguments]


def _arrange(order: Order) -> int:
    """The inherited descriptors at 0, 1, 2, … and no other, but for the argument list's, which is returned."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, ABOVE_ALL) for fd in (*order.inherited, order.arguments)]
    for number, fd in enumerate(high):
        os.dup2(fd, number, inheritable=fd != high[-1])
    os.closerange(len(high), 65_536)
    return len(high) - 1


def _execute(arguments_fd: int) -> NoReturn:
    # keys that the session holds are not the jail's
    keyctl = SYS_KEYCTL.get(platform.machine())
    if keyctl is not None and libc.syscall(ctypes.c_long(keyctl), KEYCTL_JOIN_SESSION_KEYRING, None) == -1:
        found = ctypes.get_errno()
        if found != errno.ENOSYS:  # a kernel without keys has none to leave
            raise OSError(found, "keyctl")
    arguments = read_arguments(arguments_fd)
    os.chdir("/")
    os.execve(arguments[0], arguments, {})  # noqa: S606  # no shell is wanted
