"""What a jail is asked to be, and what it said of itself: frozen values, nothing acts here.

Paths on the left of a bind are the host's, all others are the jail's. Knows nothing of bubblewrap or of kernels.
"""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from inbounds.contracts.errors import OperatorError
from inbounds.contracts.job import HOME, WORK
from inbounds.sandbox.gpu import DEVICES_MAX, TARGET, Device

ENFORCED = "enforced"

# Every mechanism that PID 1 measures from inside, with what it stands for; the keys of Jail.enforcement.
MECHANISMS: dict[str, str] = {
    "user_namespace": "an own user namespace: no capability of the host's",
    "mnt_namespace": "only the declared directories exist",
    "pid_namespace": "no other process of the host is visible, and all end together",
    "net_namespace": "no network but the declared listeners",
    "ipc_namespace": "no shared memory or queues of the host",
    "uts_namespace": "a host name of its own",
    "cgroup_namespace": "the host's cgroup paths are hidden",
    "no_new_privs": "set-id programs give nothing",
    "no_capabilities": "every capability set is empty",
    "no_nested_user_namespace": "no user namespace can be made inside",
    "seccomp": "system calls outside the allowlist are refused",
    "landlock_files": "files: only what the rules name",
    "landlock_network": "TCP: only the declared ports",
    "landlock_scopes": "no signals or abstract sockets to the outside of the jail, nor to its PID 1",
    "noexec": "what the agent wrote cannot be executed or mapped as a program",
    "closed_descriptors": "no descriptor of the host's was inherited",
    "non_dumpable": "PID 1 cannot be read or written by processes of its own user",
    "process_limit": "a ceiling of processes and threads",
    "memory_limit": "a ceiling of memory: one process at once, their sum within a poll interval",
    "tmpfs_limit": "HOME and /tmp are bounded in bytes and inodes",
    "dedicated_user": "a user of its own, without an account",
}

# What the host service adds in hardened mode (ADR 11): said by the service, seen from inside where a jail can see it.
HARDENED: dict[str, str] = {
    "dedicated_user": "a user and a group of its own, which no other run has had unscanned",
    "volume_image": "a disk image, mounted nosuid,nodev,noexec, is the only writable place",
    "bytes_limit": "a hard ceiling of bytes on disk",
    "inodes_limit": "a hard ceiling of files on disk",
    "acl": "the volume is entered by the operator and the run's own group alone",
    "cgroup_memory": "a hard ceiling of memory for all of its processes together",
    "cgroup_swap": "swap is under the same ceiling",
    "cgroup_processes": "a hard ceiling of processes and threads, whatever namespaces they make",
    "cgroup_cpu": "a ceiling of processor time",
    "cgroup_io": "a ceiling of disk traffic",
    "packet_filter": "what its user or group sends is dropped, beneath the network namespace",
    "file_events": "the kernel tells which files were read, written and executed",
    "freezer": "all of it stops at one stroke, before the evidence is taken",
    "watchdog": "the wall clock is enforced without the supervisor",
    "encryption": "the image is encrypted with a key of this run, destroyed with it",
}

# A jail that lacks one of these is not started (fail closed). The others lower a run's level and are for policy to ask.
REQUIRED = (
    "user_namespace",
    "mnt_namespace",
    "pid_namespace",
    "net_namespace",
    "ipc_namespace",
    "no_new_privs",
    "no_capabilities",
    "no_nested_user_namespace",
    "seccomp",
    "closed_descriptors",
    "non_dumpable",
    "process_limit",
)

# Who may get several commands in one jail. Never a judge: what it judges could lie in wait for the next command.
STANDING_ROLES = ("coder",)

# Who may be given a device: the agent, and the tests of what it made. No other judge executes what needs one.
DEVICE_ROLES = ("coder", "tester")

# SCM_RIGHTS carries at most 253 descriptors in one message; a thread and its interfaces need a handful
BINDS_MAX = 64
LISTENERS_MAX = 8
FILES_BYTES_MAX = 32 << 20  # an agent's configuration is kilobytes; a bundled tool some megabytes
ARGUMENT_BYTES_MAX = 1 << 20  # execve's own limit is 2 MiB for arguments and environment together


@dataclass(frozen=True, slots=True)
class Bind:
    """A host directory or file shown inside the jail; the source must not pass through a symbolic link.

    A writable bind is noexec unless `executable` says otherwise; a read-only one, too.
    """

    source: str
    target: str
    writable: bool = False
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that PID 1 binds on the jail's 127.0.0.1 and passes out by descriptor."""

    name: str
    kind: Literal["tcp", "udp"]
    port: int


@dataclass(frozen=True, slots=True)
class JailLimits:
    """Ceilings of one jail; every one has a default, because an absent limit is a hole.

    memory_bytes: hard per process (RLIMIT_DATA), polled for the sum. processes counts threads as well. cpu_seconds is
    per process; the deadline bounds them together. output_bytes is per stream of stdout and stderr.
    """

    processes: int = 512  # node starts 11 threads, a parallel test run some dozens of processes
    open_files: int = 4096  # node and git open hundreds
    file_bytes: int = 2 << 30  # the largest single file
    memory_bytes: int = 4 << 30
    home_bytes: int = 512 << 20  # copilot alone unpacks 240 MB into its HOME
    tmp_bytes: int = 512 << 20
    build_bytes: int = 512 << 20  # of each build directory, in memory like /tmp
    inodes: int = 200_000  # for HOME, /tmp and build directories each; a node_modules has 50,000
    cpu_seconds: int = 4 * 3600
    output_bytes: int = 16 << 20
    nice: int = 5


@dataclass(frozen=True, slots=True)
class JailSpec:
    """One program to run in one jail.

    binds: what of the host it sees. listeners: its only ways out. files: HOME-relative name -> content, written before
    the start. decoys: HOME-relative name -> host file to show there read-only. executables: further paths inside the
    jail below which programs may be executed. local_servers: the program may use TCP servers of its own inside its
    network namespace (test suites do). require: mechanisms without which it must not start. standing: it takes further
    commands of the same role and iteration after the first; files in HOME, /tmp and /dev/shm pass from one to the next.
    devices: granted nodes of a GPU, the only ones beside the harmless that are in its /dev. build: directories of its
    own, in memory, where what it writes can be executed; whatever a bind shows there is hidden.
    """

    role: str
    argv: tuple[str, ...]
    cwd: str = WORK
    env: Mapping[str, str] = field(default_factory=dict)
    binds: tuple[Bind, ...] = ()
    listeners: tuple[Listener, ...] = ()
    limits: JailLimits = JailLimits()
    deadline_ms: int = 600_000
    files: Mapping[str, bytes] = field(default_factory=dict)
    decoys: Mapping[str, str] = field(default_factory=dict)
    executables: tuple[str, ...] = ()
    local_servers: bool = False
    require: tuple[str, ...] = REQUIRED
    standing: bool = False
    devices: tuple[Device, ...] = ()
    build: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise OperatorError if the specification is impossible or oversized."""
        problems = [
            (not self.argv or not all(self.argv[:1]), "a jail without a program"),
            (len(self.binds) + len(self.decoys) > BINDS_MAX, f"more than {BINDS_MAX} binds"),
            (len(self.listeners) > LISTENERS_MAX, f"more than {LISTENERS_MAX} listeners"),
            (len({x.name for x in self.listeners}) < len(self.listeners), "two listeners of one name"),
            (sum(map(len, self.files.values())) > FILES_BYTES_MAX, f"more than {FILES_BYTES_MAX} bytes of files"),
            (sum(len(a) for a in self.argv) > ARGUMENT_BYTES_MAX, f"more than {ARGUMENT_BYTES_MAX} bytes of arguments"),
            (any("\0" in text for text in (*self.argv, *self.env, *self.env.values())), "a null byte in argv or env"),
            (self.deadline_ms <= 0, "no deadline"),
            (len(self.devices) > DEVICES_MAX, f"more than {DEVICES_MAX} devices"),
            (self.devices and self.role not in DEVICE_ROLES, "a device for a role that needs none"),
            (
                any(not TARGET.fullmatch(d.target) or not _absolute(d.source) for d in self.devices),
                "a device that is no GPU's",
            ),
            (self.standing and self.role not in STANDING_ROLES, "a standing jail for a judge"),
            (
                any(not _absolute(b.target) or not _absolute(b.source) for b in self.binds),
                "a bind's path that is not plain",
            ),
            (
                any(not _absolute(path) or not path.startswith(f"{WORK}/") for path in self.build),
                "a build directory that is not in the workspace",
            ),
            (self.cwd != "/" and not _absolute(self.cwd), "a working directory that is not absolute"),
            (any(not _relative(name) for name in (*self.files, *self.decoys)), "a file name that leaves HOME"),
        ]
        for wrong, what in problems:
            if wrong:
                raise OperatorError(what, where=f"jail {self.role}", expected="a jail specification within its limits")


def _absolute(path: str) -> bool:
    return path.startswith("/") and posixpath.normpath(path) == path and path != "/" and "\0" not in path


def _relative(path: str) -> bool:
    joined = posixpath.normpath(posixpath.join(HOME, path))
    return not path.startswith("/") and joined == posixpath.join(HOME, path) and "\0" not in path


@dataclass(frozen=True, slots=True)
class JailExit:
    """How a jail ended. `exited`: the program did, with exit_code or signal. The other reasons name who ended it.

    killed: the supervisor. deadline, memory: PID 1, at the limit. failed: it could not start, or its PID 1 was lost.
    stdout_bytes and stderr_bytes count what was written, kept or not.
    """

    reason: Literal["exited", "killed", "deadline", "memory", "failed"]
    exit_code: int
    signal: int
    ms: int
    detail: str = ""
    stdout_bytes: int = 0
    stderr_bytes: int = 0
