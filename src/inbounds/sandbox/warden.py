"""The warden: one small process per supervisor that starts bubblewrap for it, drops root first, and kills at the end.

Started as `python -I -S warden.py --control-fd N --supervisor-fd M`; N is a socketpair with the supervisor, M its
pidfd. Single-threaded, so that fork is safe and a parent-death signal means this process, not a thread of the
supervisor. All privileged code that rootless inbounds has is in this file. Standard library only; knows nothing of
what jails are for.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import struct
import sys

# Some milliseconds each, of every first jail's start: typing for the type checker alone, json and socket at first use.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any, NoReturn

MESSAGE_BYTES_MAX = 1 << 16  # the argument list of one jail: a few kilobytes
DESCRIPTORS_MAX = 253  # SCM_MAX_FD
ABOVE_ALL = 300  # a number above every descriptor that bubblewrap is given, below the usual limit of 1024

CLONE_NEWNS, CLONE_NEWUSER, CLONE_INTO_CGROUP = 0x20000, 0x10000000, 0x200000000
MS_PRIVATE = 0x40000
MS_REC_PRIVATE = 0x4000 | MS_PRIVATE
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID_NODEV = 1, 2 | 4
RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS = 0x02, 0x04
MS_NOSUID_NODEV = 2 | 4
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_CLONE3, SYS_OPENAT2, SYS_MOUNT_SETATTR = 428, 429, 435, 437, 442
AT_FDCWD, AT_EMPTY_PATH, AT_RECURSIVE = -100, 0x1000, 0x8000
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC = 1, 0o2000000
MOVE_MOUNT_F_EMPTY_PATH = 4

# Where sources are staged, in a mount namespace that only one bubblewrap has: any directory that everybody may enter.
STAGE = "/tmp"  # noqa: S108  # hidden by a private tmpfs before anything is put there

libc = ctypes.CDLL(None, use_errno=True)


def checked(what: str, result: int) -> int:
    """Raise OSError named `what` if a libc call returned -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent` dies; exit if that has happened already."""
    checked("prctl", libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0))
    if os.getppid() != parent:
        os._exit(1)


def open_tree(fd: int) -> int:
    """A copy of the tree of mounts at a descriptor, attached nowhere."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE
    return checked("open_tree", int(libc.syscall(ctypes.c_long(SYS_OPEN_TREE), fd, b"", ctypes.c_uint(flags))))


def stage(sources: list[int]) -> None:
    """Make each descriptor's tree appear as STAGE/<index>, in a mount namespace of this process alone.

    The trees are cloned from descriptors, so that no path is walked as root a second time and parents that the jail's
    user may not enter (root's HOME) do not matter. Nothing shows in the host's mount table; all ends with the process.
    """
    trees = [open_tree(fd) for fd in sources]
    checked("unshare", libc.unshare(CLONE_NEWNS))
    checked("private mounts", libc.mount(None, b"/", None, ctypes.c_ulong(MS_REC_PRIVATE), None))
    options = b"mode=0755,size=1m"
    checked("stage", libc.mount(b"inbounds", STAGE.encode(), b"tmpfs", ctypes.c_ulong(MS_NOSUID_NODEV), options))
    for index, (fd, tree) in enumerate(zip(sources, trees, strict=True)):
        place = f"{STAGE}/{index}"
        if os.path.isdir(f"/proc/self/fd/{fd}"):
            os.mkdir(place, 0o755)
        else:
            os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        moved = libc.syscall(
            ctypes.c_long(SYS_MOVE_MOUNT),
            tree,
            b"",
            AT_FDCWD,
            place.encode(),
            ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH),
        )
        checked("move_mount", int(moved))
        os.close(tree)
    # the clones were in their originals' peer groups until now
    checked("private mounts", libc.mount(None, b"/", None, ctypes.c_ulong(MS_REC_PRIVATE), None))


def become_bubblewrap(request: dict[str, Any], descriptors: list[int], parent: int) -> NoReturn:
    """In the child: stage and drop if asked to, arrange the descriptors from 0 upwards, execute."""
    try:
        die_with(parent)
        inherited, sources = descriptors[: request["inherit"]], descriptors[request["inherit"] :]
        uid, gid = request["uid"], request["gid"]
        if os.getuid() == 0:
            stage(sources)
            sources = []
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            # the kernel forgets the parent-death signal on a change of user
            die_with(parent)
        # inherited ones go to 0, 1, 2, …; the sources, which bubblewrap binds by descriptor, follow them
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, ABOVE_ALL) for fd in inherited + sources]
        for number, fd in enumerate(high):
            os.dup2(fd, number, inheritable=True)
        os.closerange(len(high), 65_536)
        if 0 in (os.getuid(), os.getgid()):
            os._exit(126)  # a jail is never root's
        os.execve(request["argv"][0], request["argv"], {})  # noqa: S606  # no shell is wanted
    except BaseException as error:
        os.write(2, f"inbounds warden: {error}\n".encode())
    finally:
        os._exit(126)


def open_plain(path: str) -> int:
    """An O_PATH descriptor; OSError where a symbolic link is on the way."""
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)
    number = libc.syscall(ctypes.c_long(SYS_OPENAT2), AT_FDCWD, os.fsencode(path), how, ctypes.c_size_t(len(how)))
    return checked(f"open {path}", int(number))


def open_again(path: str, known: int) -> int:
    """The same file as `known`, found by its path in this process's own mount namespace; OSError if it is another."""
    fd = open_plain(path)
    if not os.path.samestat(os.fstat(fd), os.fstat(known)):
        raise FileNotFoundError(f"{path} has been replaced")
    return fd


def clone(wanted: list[tuple[str, bool]], sources: list[int]) -> list[int]:
    """Each source as a tree of mounts attached nowhere, for a jail's PID 1 to attach: (path, writable) and descriptor.

    Private, nosuid and nodev, and read-only where not writable, all of it before anybody else has it. Root clones what
    the descriptors show. An ordinary user may clone only in a mount namespace of its own, where a descriptor of the
    host's is foreign: there the path is walked once more, without links, and must lead to the same file.
    """
    if os.getuid() != 0:
        checked("unshare", libc.unshare(CLONE_NEWUSER | CLONE_NEWNS))
        sources = [open_again(path, fd) for (path, _), fd in zip(wanted, sources, strict=True)]
    trees = []
    for (_, writable), fd in zip(wanted, sources, strict=True):
        tree = open_tree(fd)
        attributes = MOUNT_ATTR_NOSUID_NODEV | (0 if writable else MOUNT_ATTR_RDONLY)
        packed = struct.pack("=QQQQ", attributes, 0, MS_PRIVATE, 0)
        flags = ctypes.c_uint(AT_EMPTY_PATH | AT_RECURSIVE)
        size = ctypes.c_size_t(len(packed))
        number = libc.syscall(ctypes.c_long(SYS_MOUNT_SETATTR), tree, b"", flags, packed, size)
        checked("mount_setattr", int(number))
        trees.append(tree)
    return trees


def answer_clone(control: socket.socket, request: dict[str, Any], descriptors: list[int]) -> None:
    """In a child, because an ordinary user's goes into namespaces of its own: send the trees, or say why not."""
    import json
    import socket

    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            die_with(parent)
            socket.send_fds(control, [b"{}"], clone(request["clone"], descriptors))
            os._exit(0)
        except OSError as error:
            control.send(json.dumps({"error": str(error)}).encode())
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(pid, 0)[1] != 0:
        control.send(b'{"error": "the clone was not made"}')


def fork_into(group: int) -> int:
    """Fork; the child is born in the control group behind a descriptor, if there is one and the kernel can (5.7).

    Moving a process later takes 10 ms. A fork without glibc is safe in a process of one thread whose child only
    executes.
    """
    if group != -1:
        arguments = struct.pack("=11Q", CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, group)
        pid = int(libc.syscall(ctypes.c_long(SYS_CLONE3), arguments, ctypes.c_size_t(len(arguments))))
        if pid != -1:
            return pid
    return os.fork()


def start(request: dict[str, Any], descriptors: list[int], children: dict[int, int]) -> tuple[int, int]:
    """Start a bubblewrap with these descriptors, which are closed here; its pid, and a pidfd that is in `children`."""
    parent = os.getpid()
    group = descriptors[-1] if request["group"] else -1
    pid = fork_into(group)
    if pid == 0:
        become_bubblewrap(request, descriptors[:-1] if group != -1 else descriptors, parent)
    for fd in descriptors:
        os.close(fd)
    watched = os.pidfd_open(pid)
    children[watched] = pid
    return pid, watched


def serve_one(control: socket.socket, children: dict[int, int]) -> bool:
    """Take one request: a bubblewrap (answer: its pid and pidfd) or clones; False when the supervisor is gone."""
    import json
    import socket

    message, ancillary, flags, _ = control.recvmsg(MESSAGE_BYTES_MAX, socket.CMSG_SPACE(DESCRIPTORS_MAX * 4))
    descriptors: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors += struct.unpack(f"{len(data) // 4}i", data[: len(data) // 4 * 4])
    if not message:
        return False
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        raise ValueError("a request that was cut short")
    request = json.loads(message)
    if "clone" in request:
        answer_clone(control, request, descriptors)
        for fd in descriptors:
            os.close(fd)
        return True
    pid, watched = start(request, descriptors, children)
    socket.send_fds(control, [json.dumps({"pid": pid}).encode()], [watched])
    return True


def has_children() -> bool:
    """Whether the kernel knows of any child, ended or not: cheaper than looking, where a host has many processes."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def own_children() -> list[int]:
    """Every process whose parent this is, adopted ones included."""
    me, found = os.getpid(), []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue  # it ended between the listing and the reading
            if parent == me:
                found.append(int(name))
    return found


def kill_and_wait(pids: list[int]) -> None:
    """Kill children and wait until the kernel has ended them; PID 1 of a jail takes the whole jail along."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        os.waitpid(pid, 0)


def reap(children: dict[int, int]) -> None:
    """Wait for whatever has ended, and end what it left behind.

    When bubblewrap's outer process is dead, its inner one becomes this subreaper's child. It may be PID 1 of a
    half-made jail that waits for a word from a parent that is gone: nothing else would ever end it.
    """
    ended = False
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            break
        for watched, known in list(children.items()):
            if known == pid:
                ended = True
                del children[watched]
                os.close(watched)
    if ended and has_children():
        kill_and_wait([pid for pid in own_children() if pid not in children.values()])


def become_subreaper() -> None:
    """Have what a bubblewrap leaves behind become this process's child."""
    checked("prctl", libc.prctl(PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0))


def keep(control: socket.socket, supervisor: int, children: dict[int, int]) -> None:
    """Serve until the supervisor (a pidfd) or its end of `control` is gone, then leave nothing alive."""
    try:
        while True:
            waiting = select.poll()
            for fd in (control.fileno(), supervisor, *children):
                waiting.register(fd, select.POLLIN)
            ready = {fd for fd, _ in waiting.poll()}
            if supervisor in ready:
                break
            if control.fileno() in ready and not serve_one(control, children):
                break
            reap(children)
    finally:
        kill_and_wait(list(children.values()))
        # more than one round: killing bubblewrap's outer process is what makes its inner one a child of this one
        while has_children():
            kill_and_wait(own_children())


def main(arguments: list[str]) -> None:
    """A warden's whole life."""
    import socket

    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    control = socket.socket(fileno=int(options["--control-fd"]))
    supervisor = int(options["--supervisor-fd"])
    for fd in (control.fileno(), supervisor):
        os.set_inheritable(fd, False)
    become_subreaper()
    keep(control, supervisor, {})


if __name__ == "__main__":
    main(sys.argv[1:])
