"""From a specification to bubblewrap's arguments and PID 1's task: what a jail shows, and the rules for it.

Pure but for looking at the host's directories. Knows nothing of processes.
"""

import marshal
import os
import platform
import resource
import struct
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import MAGIC_NUMBER
from typing import Any

from inbounds.contracts.job import HOME, LAYER, OUT, WORK
from inbounds.sandbox import seal, seccomp
from inbounds.sandbox.host import ETC_SHARED, SYSTEM, Bubblewrap, host_namespaces, interpreter_prefix, jail_python
from inbounds.sandbox.identity import Identity
from inbounds.sandbox.spec import Bind, JailSpec
from inbounds.sandbox.warden import STAGE

# Who the program is inside: never root, the same number everywhere.
UID = GID = 1000
HOSTNAME = "inbounds"

# What bubblewrap leaves to PID 1 in the jail's own user namespace until it has sealed itself: remounting, port 53,
# and mapping uid 0 of this namespace into the next one (which the kernel asks SETFCAP for).
CAPABILITIES = ("CAP_SYS_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_SETFCAP")

# PID 1's own program, put into the jail as bytecode: no path of the host's, no compiling at each start.
PROGRAM_ROOT = "/run/inbounds/lib"
PROGRAM = ("pid1", "seal", "memory")
BOOT = f"import sys;sys.path.append({PROGRAM_ROOT!r});from inbounds.sandbox.pid1 import main;main()"

# the jail's own, each a tmpfs of its own
TMP, VAR_TMP, SHM = "/tmp", "/var/tmp", "/dev/shm"  # noqa: S108  # nobody else is in the jail
SHM_BYTES = 64 << 20  # what container engines give, too
POLL_MS = 100  # memory and orphans are looked at ten times a second

ETC = {
    "/etc/passwd": f"root:x:0:0::/nonexistent:/usr/sbin/nologin\nagent:x:{UID}:{GID}::{HOME}:/bin/sh\n",
    "/etc/group": f"root:x:0:\nagent:x:{GID}:\n",
    "/etc/hosts": f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost\n",
    "/etc/hostname": f"{HOSTNAME}\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    # the listener there records every name and refuses it
    "/etc/resolv.conf": "nameserver 127.0.0.1\noptions timeout:2 attempts:1\n",
}
# What /proc says of the host rather than of the jail: its keys' names, and its kernel's command line.
MASKED = ("/proc/keys", "/proc/key-users", "/proc/cmdline")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "pts")


@dataclass(frozen=True, slots=True)
class Layout:
    """Bubblewrap's arguments, PID 1's task, and the host paths to open, in the order the arguments count on."""

    argv: tuple[str, ...]
    task: bytes
    sources: tuple[str, ...]
    memory_files: tuple[tuple[str, bytes], ...]


# Descriptors that bubblewrap inherits: stdin, stdout, stderr, control; then the memory files; then the sources.
FIRST_MEMORY_FILE = 4


@lru_cache(maxsize=1)
def _program_files() -> tuple[tuple[str, bytes], ...]:
    """PID 1's modules as bytecode files of the running interpreter's version."""
    files = []
    for name in PROGRAM:
        path = os.path.join(os.path.dirname(__file__), f"{name}.py")
        with open(path, "rb") as file:
            code = compile(file.read(), f"<inbounds {name}>", "exec", dont_inherit=True)
        files.append((name, MAGIC_NUMBER + struct.pack("<III", 0, 0, 0) + marshal.dumps(code)))
    return tuple(files)


def _shown(spec: JailSpec) -> list[Bind]:
    """Everything that is bound from a descriptor, outermost first: the interpreter, the binds, the decoys."""
    prefix = interpreter_prefix()
    first = [Bind(prefix, prefix, executable=True)] if prefix else []
    return [*first, *attached(spec)]


def attached(spec: JailSpec) -> list[Bind]:
    """What makes a jail this jail, outermost first: the binds, the decoys. A spare is given them when it is taken."""
    binds = sorted(spec.binds, key=lambda bind: bind.target.count("/"))
    decoys = [Bind(path, f"{HOME}/{name}") for name, path in sorted(spec.decoys.items())]
    return [*binds, *decoys]


def _system_arguments() -> list[str]:
    arguments = ["--ro-bind", "/usr", "/usr"]
    for path in SYSTEM:
        if os.path.islink(path):
            arguments += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            arguments += ["--ro-bind", path, path]
    for path in ETC_SHARED:
        if os.path.exists(path):
            arguments += ["--ro-bind", os.path.realpath(path), path]
    return arguments


def _tmpfs(spec: JailSpec) -> list[tuple[str, int, int]]:
    limits = spec.limits
    return [
        *_own(spec),
        *((path, limits.build_bytes, limits.inodes) for path in spec.build),
    ]


def _own(spec: JailSpec) -> list[tuple[str, int, int]]:
    """What every jail has."""
    limits = spec.limits
    return [
        (SHM, SHM_BYTES, 10_000),
        (TMP, limits.tmp_bytes, limits.inodes),
        (HOME, limits.home_bytes, limits.inodes),
    ]


def _arguments(spec: JailSpec, binary: str, places: list[str], memory: int) -> list[str]:
    """Bubblewrap's command line; `places` are the sources as bubblewrap sees them: a path, or "fd:N"."""
    out = [binary, "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    out += ["--unshare-cgroup-try", "--uid", "0", "--gid", "0", "--hostname", HOSTNAME]
    out += ["--die-with-parent", "--as-pid-1", "--seccomp", str(FIRST_MEMORY_FILE)]
    for capability in CAPABILITIES:
        out += ["--cap-add", capability]
    out += _system_arguments()
    out += ["--proc", "/proc", "--dev", "/dev"]
    for path, size, _ in _own(spec):
        out += ["--perms", "0700" if path == HOME else "1777", "--size", str(size), "--tmpfs", path]
    out += ["--symlink", "../tmp", VAR_TMP, "--dir", "/etc", "--size", "65536", "--tmpfs", seal.UNLISTED]
    for directory in (WORK, OUT):
        out += ["--dir", directory]
    shown = _shown(spec)
    for bind, place in zip(shown, places, strict=False):
        option = "--bind" if bind.writable else "--ro-bind"
        if place.startswith("fd:"):
            out += [f"{option}-fd", place[3:], bind.target]
        else:
            out += [option, place, bind.target]
    for device, place in zip(spec.devices, places[len(shown) :], strict=True):
        out += ["--dev-bind", place, device.target]
    for path in spec.build:  # over the binds: where it is missing, bubblewrap makes the directory in the workspace
        out += ["--perms", "0755", "--size", str(spec.limits.build_bytes), "--tmpfs", path]
    for index in range(1, memory):
        name = PROGRAM[index - 1]
        out += ["--file", str(FIRST_MEMORY_FILE + index), f"{PROGRAM_ROOT}/inbounds/sandbox/{name}.pyc"]
    return [*out, "--chdir", "/", "--", jail_python(), "-I", "-S", "-c", BOOT]


def _below(path: str, others: tuple[str, ...]) -> bool:
    return any(path == other or path.startswith(other.rstrip("/") + "/") for other in others)


def _executable(bind: Bind) -> bool:
    return bind.executable or bind.target == LAYER


def _rules(spec: JailSpec) -> list[tuple[str, str]]:
    """Landlock rules; reading is bounded by what is mounted, so that "/" is readable."""
    rules = [("/", "r"), ("/usr", "x"), (TMP, "w"), (HOME, "w"), (SHM, "w")]
    rules += [(path, "x") for path in SYSTEM if os.path.isdir(path) and not os.path.islink(path)]
    rules += [(f"/dev/{name}", "d") for name in DEVICES] + [(device.target, "d") for device in spec.devices]
    prefix = interpreter_prefix()
    rules += [(prefix, "x")] if prefix else []
    for bind in spec.binds:
        letters = ("w" if bind.writable else "") + ("x" if _executable(bind) else "")
        rules += [(bind.target, letters)] if letters else []
    return rules + [(path, "wx") for path in spec.build] + [(path, "x") for path in spec.executables]


def _rlimits(spec: JailSpec) -> list[tuple[int, int]]:
    limits = spec.limits
    return [
        # PID 1 is one of the user namespace's processes
        (resource.RLIMIT_NPROC, limits.processes + 1),
        (resource.RLIMIT_NOFILE, limits.open_files),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_DATA, limits.memory_bytes),
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        # somebody whose host lets him have real-time scheduling does not lend it to a jail
        (resource.RLIMIT_RTPRIO, 0),
        (resource.RLIMIT_NICE, 0),
    ]


def environment(spec: JailSpec) -> dict[str, str]:
    """The program's environment, from nothing but constants and the specification."""
    prefix = interpreter_prefix()
    path = [f"{LAYER}/bin", *([f"{prefix}/bin"] if prefix else []), "/usr/local/bin", "/usr/bin", "/bin"]
    base = {"HOME": HOME, "USER": "agent", "LOGNAME": "agent", "SHELL": "/bin/sh", "LANG": "C.UTF-8"}
    return {**base, "TMPDIR": TMP, "PATH": ":".join(path), **spec.env}


def _task(spec: JailSpec) -> dict[str, Any]:
    writable = [path for path, _, _ in _tmpfs(spec)] + [bind.target for bind in spec.binds if not _executable(bind)]
    exec_free = [path for path in writable if not _below(path, (*spec.executables, *spec.build))]
    ports = None if spec.local_servers else [x.port for x in spec.listeners if x.kind == "tcp"]
    return {
        "argv": list(spec.argv),
        "user": (UID, GID),
        "cwd": spec.cwd,
        "env": environment(spec),
        "listeners": [(x.name, x.kind, x.port) for x in spec.listeners],
        "files": {f"{HOME}/{name}": content for name, content in spec.files.items()},
        "etc": {path: text.encode() for path, text in ETC.items()},
        "tmpfs": _tmpfs(spec),
        "masked": MASKED,
        "noexec": [*exec_free, seal.UNLISTED, *(device.target for device in spec.devices)],
        "executable": [bind.target for bind in spec.binds if _executable(bind)] + list(spec.build),
        "devices": [(device.target, device.major, device.minor) for device in spec.devices],
        "frozen": ["/dev", "/"],
        "rules": _rules(spec),
        "ports": ports,
        "rlimits": _rlimits(spec),
        "memory_bytes": spec.limits.memory_bytes,
        "socket_bytes": _socket_bytes(),
        "nice": spec.limits.nice,
        "deadline_ms": spec.deadline_ms,
        "poll_ms": POLL_MS,
        "machine": platform.machine(),
        "filter": seccomp.program(),
        "host_namespaces": host_namespaces(),
        "standing": spec.standing,
        "attach": [],
    }


@lru_cache(maxsize=1)
def _socket_bytes() -> int:
    """What a socket of this host may send unread; in a network namespace of one's own it cannot be asked for."""
    with open("/proc/sys/net/core/wmem_default", "rb") as file:
        return int(file.read())


def spare_task(spec: JailSpec) -> bytes:
    """The task for a PID 1 started in advance; after stdout and stderr comes a tree of mounts for each target."""
    return marshal.dumps({**_task(spec), "attach": [bind.target for bind in attached(spec)]})


def command_task(spec: JailSpec) -> bytes:
    """The next command of a standing jail; descriptors beside it: stdout, stderr."""
    chosen = {"argv": list(spec.argv), "cwd": spec.cwd, "env": environment(spec), "deadline_ms": spec.deadline_ms}
    return marshal.dumps(chosen)


def lay_out(spec: JailSpec, identity: Identity, bwrap: Bubblewrap) -> Layout:
    """Everything the warden and PID 1 need for one jail of this host."""
    memory_files = (("seccomp", seccomp.program(extra=seccomp.SETUP_EXTRA)), *_program_files())
    sources = [bind.source for bind in _shown(spec)]
    binary = bwrap.path
    if identity.staged:
        sources += [device.source for device in spec.devices]
        places = [f"{STAGE}/{index}" for index in range(len(sources))]
        if bwrap.root:
            binary = f"{STAGE}/{len(sources)}{bwrap.path.removeprefix(bwrap.root)}"
            sources.append(bwrap.root)
    else:
        first = FIRST_MEMORY_FILE + len(memory_files)
        places = [f"fd:{first + index}" for index in range(len(sources))]
        # bubblewrap binds devices by path only; what came is compared by PID 1, before anybody else is in the jail
        places += [device.source for device in spec.devices]
    argv = _arguments(spec, binary, places, len(memory_files))
    return Layout(tuple(argv), marshal.dumps(_task(spec)), tuple(sources), memory_files)
