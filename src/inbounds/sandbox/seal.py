"""The seal that PID 1 of a jail puts on itself: mounts, capabilities, seccomp, Landlock; and the measuring of it.

Runs inside the jail before any untrusted code. Standard library only, importing little, because its start is part of
every jail's start. Knows nothing of what will run there.
"""

from __future__ import annotations

import _socket
import ctypes
import os
import resource
import struct

# typing is imported for the type checker alone: it would cost 17 ms of every jail's start
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# system call numbers that are the same on x86_64 and aarch64 (all newer than 5.1), and capset, which is not
SYS_MOVE_MOUNT, SYS_OPENAT2, SYS_MOUNT_SETATTR = 429, 437, 442
SYS_LANDLOCK_CREATE_RULESET, SYS_LANDLOCK_ADD_RULE, SYS_LANDLOCK_RESTRICT_SELF = 444, 445, 446
SYS_IO_URING_SETUP = 425
SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
SYS_SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}
SYS_IOPRIO_GET = {"x86_64": 252, "aarch64": 31}
SYS_PTRACE = {"x86_64": 101, "aarch64": 117}
SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}

# linux/prctl.h
PR_GET_DUMPABLE, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_SECUREBITS = 3, 4, 22, 24, 28
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
SECCOMP_MODE_FILTER = 2
# linux/securebits.h: uid 0 means nothing, no fix-up on a change of uid, no raising of ambient ones; each locked
SECUREBITS = 0x1 | 0x2 | 0x4 | 0x8 | 0x40 | 0x80
CAPABILITY_VERSION_3 = 0x20080522
CAPABILITIES = 64  # the kernel answers EINVAL beyond the last it knows

# linux/mount.h
MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND = 2, 4, 32, 4096
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
ST_NOEXEC = 8
MOVE_MOUNT_BOTH_EMPTY_PATH = 0x04 | 0x40
RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS = 0x02, 0x04

CLONE_NEWUSER = 0x10000000
KEYCTL_JOIN_SESSION_KEYRING = 1

# linux/landlock.h: file system rights by the ABI that brought them
FS_EXECUTE, FS_WRITE_FILE, FS_READ_FILE, FS_READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
FS_REMOVE = (1 << 4) | (1 << 5)
FS_MAKE_DEVICES = (1 << 6) | (1 << 11)
FS_MAKE = (1 << 7) | (1 << 8) | (1 << 9) | (1 << 10) | (1 << 12)  # directory, file, socket, fifo, symlink
FS_REFER, FS_TRUNCATE, FS_IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
FS_FILE_ONLY = FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV
FS_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
NET_BIND_TCP, NET_CONNECT_TCP = 1, 2
SCOPE_ABSTRACT_UNIX, SCOPE_SIGNAL = 1, 2
RULE_PATH_BENEATH, RULE_NET_PORT = 1, 2
ABI_NET, ABI_SCOPE = 4, 6

READ = FS_READ_FILE | FS_READ_DIR
WRITE = READ | FS_WRITE_FILE | FS_REMOVE | FS_MAKE | FS_REFER | FS_TRUNCATE
# what a rule's letters mean; "d" is for device nodes
RIGHTS = {
    "r": READ,
    "x": READ | FS_EXECUTE,
    "w": WRITE,
    "wx": WRITE | FS_EXECUTE,
    "d": FS_READ_FILE | FS_WRITE_FILE | FS_IOCTL_DEV,
}

# a directory that the mounts leave writable and Landlock does not name: writing there tells the two apart
UNLISTED = "/run/inbounds/unlisted"
OWN_FILES = "/proc/1"
# a port that nothing in a fresh network namespace listens on: Landlock says EACCES, its absence ECONNREFUSED
UNDECLARED_PORT = 9

ENFORCED = "enforced"
EPERM, EACCES, ENODEV, ENOSYS = 1, 13, 19, 38  # spelled out: importing errno would say no more
S_IFMT, S_IFCHR = 0o170000, 0o020000

libc = ctypes.CDLL(None, use_errno=True)


def checked(what: str, result: int) -> int:
    """Raise OSError named `what` if a libc call returned -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def syscall(what: str, number: int, *arguments: object) -> int:
    """One system call; integers go as long, bytes as pointers; OSError on failure."""
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return checked(what, int(libc.syscall(ctypes.c_long(number), *converted)))


def prctl(what: str, option: int, *arguments: int) -> None:
    """One prctl; OSError on failure."""
    padded = [*arguments, 0, 0, 0, 0][:4]
    checked(what, int(libc.prctl(option, *[ctypes.c_ulong(a) for a in padded])))


def set_mount_attributes(path: str, attributes: int, *, recursive: bool) -> None:
    """Add mount attributes (never remove any) to the mount at `path`."""
    flags = AT_RECURSIVE if recursive else 0
    packed = struct.pack("=QQQQ", attributes, 0, 0, 0)
    syscall(f"mount_setattr {path}", SYS_MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, packed, len(packed))


def allow_execution(path: str) -> None:
    """Take noexec from the mount at `path` alone; OSError where it is the host's and locked."""
    packed = struct.pack("=QQQQ", 0, MOUNT_ATTR_NOEXEC, 0, 0)
    syscall(f"mount_setattr {path}", SYS_MOUNT_SETATTR, AT_FDCWD, path.encode(), 0, packed, len(packed))


def may_execute(path: str) -> bool:
    """Whether the mount at `path` lets anything be executed."""
    return not os.statvfs(path).f_flag & ST_NOEXEC


def attach(tree: int, path: str) -> None:
    """Attach a tree of mounts at `path`; OSError where a symbolic link is on the way, which an agent may have left."""
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)
    place = syscall(f"open {path}", SYS_OPENAT2, AT_FDCWD, path.encode(), how, len(how))
    try:
        syscall(f"attach {path}", SYS_MOVE_MOUNT, tree, b"", place, b"", MOVE_MOUNT_BOTH_EMPTY_PATH)
    finally:
        os.close(place)


def limit_tmpfs(path: str, size: int, inodes: int) -> None:
    """Bound a tmpfs in bytes and in inodes."""
    flags = MS_REMOUNT | MS_NOSUID | MS_NODEV
    options = f"size={size},nr_inodes={inodes}".encode()
    result = libc.mount(b"tmpfs", path.encode(), b"tmpfs", ctypes.c_ulong(flags), options)
    checked(f"remount {path}", int(result))


def mask(path: str) -> None:
    """Show nothing at `path`, a file of the kernel's that tells of the host; one that a kernel lacks is no matter."""
    if os.path.exists(path):
        result = libc.mount(b"/dev/null", path.encode(), None, ctypes.c_ulong(MS_BIND), None)
        checked(f"mask {path}", int(result))


def check_device(path: str, major: int, minor: int) -> None:
    """OSError where a granted node is not the character device that was granted, whatever its path led to outside."""
    found = os.lstat(path)
    if found.st_mode & S_IFMT != S_IFCHR or found.st_rdev != os.makedev(major, minor):
        raise OSError(ENODEV, f"{path} is not the character device {major}:{minor}")


def forget_keys(machine: str) -> None:
    """Leave the session keyring of who started the jail for an empty one; a kernel without keyrings is no matter."""
    try:
        syscall("session keyring", SYS_KEYCTL[machine], KEYCTL_JOIN_SESSION_KEYRING, 0)
    except OSError as error:
        if error.errno != ENOSYS:
            raise


def cover_own_files() -> int:
    """Lay a read-only view over PID 1's directory in /proc; a descriptor of the one beneath, for PID 1 alone.

    These files belong to the program's user: the user namespace in which PID 1 was executed calls him root. Where there
    is no Landlock, its autogroup and its place among those to be killed for memory could be written.
    """
    beneath = os.open(OWN_FILES, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    checked("cover", int(libc.mount(OWN_FILES.encode(), OWN_FILES.encode(), None, ctypes.c_ulong(MS_BIND), None)))
    attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
    set_mount_attributes(OWN_FILES, attributes, recursive=False)
    return beneath


def write_own(beneath: int, name: str, text: str) -> None:
    """Write one of PID 1's own files in /proc, by the descriptor from cover_own_files."""
    with open(os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=beneath), "w") as file:
        file.write(text)


def leave_user_namespace(uid: int, gid: int, beneath: int) -> None:
    """Move into a user namespace below the one that owns the jail's mounts and network, as `uid` and `gid`.

    From there no capability, whoever got it, would reach those. The move needs no other process: one id maps to itself.
    """
    outer_uid, outer_gid = os.getuid(), os.getgid()
    checked("unshare", int(libc.unshare(CLONE_NEWUSER)))
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {outer_uid} 1"),
        ("gid_map", f"{gid} {outer_gid} 1"),
    ):
        write_own(beneath, name, text)


def drop_capabilities(machine: str) -> None:
    """Empty every capability set, the bounding set first, and lock the ways back."""
    for capability in range(CAPABILITIES):
        if libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) == -1:
            break
    prctl("securebits", PR_SET_SECUREBITS, SECUREBITS)
    prctl("ambient", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    syscall("capset", SYS_CAPSET[machine], header, struct.pack("=6I", *[0] * 6))


def load_filter(program: bytes) -> None:
    """Put a seccomp filter (array of struct sock_filter) on this process and all that it starts."""
    buffer = ctypes.create_string_buffer(program, len(program))
    packed = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    fprog = ctypes.create_string_buffer(packed, len(packed))
    prctl("seccomp", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(fprog))


class Landlock:
    """A ruleset for the host's ABI, applied once to PID 1 and once more to the agent, which thereby is below PID 1."""

    def __init__(self, rules: list[tuple[str, str]], ports: list[int] | None) -> None:
        """Make the ruleset. `ports` None leaves TCP within the jail's own network namespace free.

        OSError where the kernel has no Landlock; a rule's path that does not exist is an error, too: a missing rule
        would only tighten, but it would hide a mistake.
        """
        self.abi = syscall("landlock", SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1)
        handled = FS_BY_ABI[min(self.abi, max(FS_BY_ABI))]
        net = NET_BIND_TCP | NET_CONNECT_TCP if self.abi >= ABI_NET and ports is not None else 0
        scope = SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL if self.abi >= ABI_SCOPE else 0
        size = 24 if self.abi >= ABI_SCOPE else 16 if self.abi >= ABI_NET else 8
        attributes = struct.pack("=QQQ", handled, net, scope)[:size]
        self.fd = syscall("landlock ruleset", SYS_LANDLOCK_CREATE_RULESET, attributes, size, 0)
        os.set_inheritable(self.fd, False)
        for path, letters in rules:
            self._allow(path, RIGHTS[letters] & handled)
        for port in ports or () if net else ():
            rule = struct.pack("=QQ", NET_CONNECT_TCP, port)
            syscall("landlock port", SYS_LANDLOCK_ADD_RULE, self.fd, RULE_NET_PORT, rule, 0)

    def _allow(self, path: str, rights: int) -> None:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not os.path.isdir(f"/proc/self/fd/{parent}"):
                rights &= FS_FILE_ONLY
            rule = struct.pack("=Qi", rights, parent)
            syscall(f"landlock {path}", SYS_LANDLOCK_ADD_RULE, self.fd, RULE_PATH_BENEATH, rule, 0)
        finally:
            os.close(parent)

    def restrict(self) -> None:
        """Put this process, and all that it starts, below one more layer of the ruleset."""
        syscall("landlock restrict", SYS_LANDLOCK_RESTRICT_SELF, self.fd, 0)


def inherited(machine: str) -> tuple[object, ...]:
    """What of this process passes to all that it starts and is the kernel's to keep: limits, scheduling, priorities.

    No command of a jail can change it (sandbox/seccomp.py refuses); a standing jail that finds it changed ends.
    """
    scheduling = ctypes.create_string_buffer(SCHED_ATTR_BYTES)
    syscall("sched_getattr", SYS_SCHED_GETATTR[machine], 0, scheduling, SCHED_ATTR_BYTES, 0)
    io = syscall("ioprio_get", SYS_IOPRIO_GET[machine], 1, 0)
    limits = [resource.getrlimit(number) for number in range(RLIMITS)]
    return scheduling.raw, io, limits, os.sched_getaffinity(0)


def attempt(number: int, *arguments: int) -> int:
    """The errno of a system call that ought to fail; 0 if it succeeded."""
    try:
        syscall("attempt", number, *arguments)
    except OSError as error:
        return error.errno or -1
    return 0


def _verdict(holds: bool, why: str) -> str:
    return ENFORCED if holds else f"absent: {why}"


def _measure_landlock(landlock: Landlock | None, why: str, *, ports_restricted: bool) -> dict[str, str]:
    if landlock is None:
        return dict.fromkeys(("landlock_files", "landlock_network", "landlock_scopes"), f"absent: {why}")
    found = {"landlock_files": "absent: a write that no rule allows succeeded"}
    try:
        os.close(os.open(f"{UNLISTED}/probe", os.O_CREAT | os.O_WRONLY, 0o600))
    except PermissionError:
        found["landlock_files"] = ENFORCED
    if not ports_restricted:
        found["landlock_network"] = "absent: this job may use servers of its own inside its network namespace"
    elif landlock.abi < ABI_NET:
        found["landlock_network"] = f"absent: the kernel's Landlock ABI is {landlock.abi}, TCP needs {ABI_NET}"
    else:
        with _socket_of(_socket.AF_INET) as probe:
            outcome = probe.connect_ex(("127.0.0.1", UNDECLARED_PORT))
        found["landlock_network"] = _verdict(
            outcome == EACCES, f"connecting to an undeclared port gave errno {outcome}"
        )
    scoped = landlock.abi >= ABI_SCOPE
    found["landlock_scopes"] = _verdict(scoped, f"the kernel's Landlock ABI is {landlock.abi}, scopes need {ABI_SCOPE}")
    return found


class _socket_of:  # noqa: N801  # a with-statement over _socket, which saves importing socket (8 ms of every start)
    def __init__(self, family: int) -> None:
        self.socket = _socket.socket(family, _socket.SOCK_STREAM, 0)

    def __enter__(self) -> _socket.socket:
        return self.socket

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def _measure_namespaces(host: dict[str, str]) -> dict[str, str]:
    found = {}
    for kind, outside in host.items():
        inside = os.readlink(f"/proc/self/ns/{kind}")
        found[f"{kind}_namespace"] = _verdict(inside != outside, "it is the host's own")
    with open("/proc/net/dev") as table:
        interfaces = [line.split(":")[0].strip() for line in table if ":" in line]
    if interfaces != ["lo"]:
        found["net_namespace"] = f"absent: interfaces {interfaces} are visible"
    return found


def _measure_limits(tmpfs: list[tuple[str, int, int]]) -> dict[str, str]:
    """Set a ceiling that is reached already, see it hold, and put the old one back."""
    found = {}
    old = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, old[1]))
    try:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        found["process_limit"] = "absent: a process was made beyond RLIMIT_NPROC"
    except BlockingIOError:
        found["process_limit"] = ENFORCED
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, old)
    old = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (PROBE_BYTES, old[1]))
    try:
        bytearray(2 * PROBE_BYTES)
        found["memory_limit"] = "absent: memory was had beyond RLIMIT_DATA"
    except MemoryError:
        found["memory_limit"] = ENFORCED
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, old)
    loose = [path for path, _, inodes in tmpfs if os.statvfs(path).f_files > inodes]
    found["tmpfs_limit"] = _verdict(not loose, f"{loose} have more inodes than asked for")
    return found


def measure(landlock: Landlock | None, why_not: str, task: dict[str, Any]) -> dict[str, str]:
    """Try, from inside, what the seal forbids; each mechanism with "enforced" or "absent: why"."""
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    found = _measure_namespaces(task["host_namespaces"])
    found["no_new_privs"] = _verdict(status.get("NoNewPrivs") == "1", "the kernel does not show the flag")
    empty = all(int(status.get(name, "1"), 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
    found["no_capabilities"] = _verdict(empty, "a capability set is not empty")
    refused = status.get("Seccomp") == "2" and all(
        attempt(number, *arguments) == EPERM
        for number, arguments in ((SYS_IO_URING_SETUP, (1, 0)), (SYS_PTRACE[task["machine"]], (16, 1, 0, 0)))
    )
    found["seccomp"] = _verdict(refused, "a forbidden system call was not refused")
    nested = int(libc.unshare(CLONE_NEWUSER)) == -1
    found["no_nested_user_namespace"] = _verdict(nested, "a user namespace could be made inside")
    bare = [path for path in task["noexec"] if may_execute(path)]
    found["noexec"] = _verdict(not bare, f"{bare} can hold executables")
    found["closed_descriptors"] = _verdict(len(os.listdir("/proc/self/fd")) <= EXPECTED_DESCRIPTORS, "others are open")
    dumpable = int(libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0))
    found["non_dumpable"] = _verdict(dumpable == 0, f"PR_GET_DUMPABLE says {dumpable}")
    found.update(_measure_limits(task["tmpfs"]))
    found.update(_measure_landlock(landlock, why_not, ports_restricted=task["ports"] is not None))
    return found


# stdin, stdout, stderr, the control socket, the ruleset, and the one that lists them
EXPECTED_DESCRIPTORS = 6
RLIMITS = 16  # RLIM_NLIMITS
# linux/sched/types.h: struct sched_attr with its clamps
SCHED_ATTR_BYTES = 56
# far above what PID 1 has (10 MB), far below any limit a jail is given
PROBE_BYTES = 64 << 20
