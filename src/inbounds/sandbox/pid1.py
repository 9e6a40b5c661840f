"""PID 1 of a jail: receives its task over descriptor 3, seals itself, reports, waits for go, runs one program, ends.

Everything in the jail dies with it, and it dies when descriptor 3 is at its end, which is when the supervisor is gone.
Runs as `python -I -S` inside bubblewrap: standard library only, importing little. Knows nothing of agents or judges.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without its enums: 7 ms of every start
import _socket
import marshal
import os
import resource
import select
import struct
import sys
import time

from inbounds.sandbox import seal
from inbounds.sandbox.memory import Memory

# typing is imported for the type checker alone: it would cost 17 ms of every jail's start
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    Task = dict[str, Any]

CONTROL_FD = 3
GO = b"G"
# tasks are a few kilobytes; an agent's configuration files may add some megabytes
TASK_BYTES_MAX = 64 << 20
DESCRIPTORS_MAX = 253  # SCM_MAX_FD
BACKLOG = 128
REAP_MAX = 100_000  # children waited for in one turn; the process limit is far below


def receive_exactly(control: _socket.socket, count: int) -> bytes:
    """Read `count` bytes; exit at once if the supervisor is gone."""
    parts = bytearray()
    while len(parts) < count:
        part = control.recv(min(count - len(parts), 1 << 20))
        if not part:
            os._exit(0)
        parts += part
    return bytes(parts)


def receive_task(control: _socket.socket) -> tuple[Task, list[int]]:
    """The task, marshalled by the supervisor (trusted), after its length, and the descriptors sent with that."""
    length, ancillary, flags, _ = control.recvmsg(4, _socket.CMSG_SPACE(4 * DESCRIPTORS_MAX), _socket.MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    for _, _, data in ancillary:  # rights alone: this side asked for nothing else
        descriptors += struct.unpack(f"{len(data) // 4}i", data)
    if flags & _socket.MSG_CTRUNC:
        raise ValueError("more descriptors than a task may have")
    if not length:
        os._exit(0)
    (size,) = struct.unpack("!I", length + receive_exactly(control, 4 - len(length)))
    if size > TASK_BYTES_MAX:
        raise ValueError(f"a task of {size} bytes")
    task = marshal.loads(receive_exactly(control, size))  # noqa: S302  # the supervisor wrote it
    if not isinstance(task, dict):
        raise TypeError("the task is no mapping")
    return task, descriptors


def tell(control: _socket.socket, words: dict[str, str], descriptors: list[int] | None = None) -> None:
    """Send one report: length, then "name<TAB>value" lines; the supervisor parses it as untrusted text."""
    lines = (f"{name}\t{value}".replace("\n", " ") for name, value in words.items())
    text = "\n".join(lines).encode("utf-8", "replace")
    rights = (
        [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(descriptors)}i", *descriptors))]
        if descriptors
        else []
    )
    control.sendmsg([struct.pack("!I", len(text)), text], rights)


def listen(listeners: list[tuple[str, str, int]]) -> list[int]:
    """Bind each (name, "tcp" or "udp", port) on the jail's loopback; descriptors in the same order."""
    descriptors = []
    for _, kind, port in listeners:
        bound = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM if kind == "tcp" else _socket.SOCK_DGRAM, 0)
        bound.bind(("127.0.0.1", port))
        if kind == "tcp":
            bound.listen(BACKLOG)
        descriptors.append(bound.detach())
    return descriptors


def write_files(files: dict[str, bytes], mode: int) -> None:
    """Write each absolute path, making its parents."""
    for path, content in files.items():
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with open(fd, "wb") as file:
            file.write(content)


def settle_in(task: Task, descriptors: list[int]) -> None:
    """Take stdout and stderr; where it was started in advance, attach what makes this jail the one that is asked for.

    The other descriptors are trees of mounts, attached nowhere yet. Nobody but this process is in the jail.
    """
    for number, fd in enumerate(descriptors[:2], 1):
        os.dup2(fd, number)
        os.close(fd)
    for target, tree in zip(task["attach"], descriptors[2:], strict=True):
        if os.path.isdir(f"/proc/self/fd/{tree}"):
            os.makedirs(target, mode=0o755, exist_ok=True)
        elif not os.path.exists(target):
            os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        seal.attach(tree, target)
        os.close(tree)


def prepare(task: Task) -> None:
    """All that needs the few capabilities that bubblewrap left: files, mount attributes, the namespace limit."""
    for path, size, inodes in task["tmpfs"]:
        seal.limit_tmpfs(path, size, inodes)
    write_files(task["etc"], 0o644)
    write_files(task["files"], 0o600)
    for path, major, minor in task["devices"]:
        seal.check_device(path, major, minor)
    for path in task["masked"]:
        seal.mask(path)
    within = [path for path in task["executable"] if seal.may_execute(path)]
    for path in task["noexec"]:
        seal.set_mount_attributes(path, seal.MOUNT_ATTR_NOEXEC, recursive=True)
    for path in within:  # a layer's node_modules, a build directory: mounts of their own in the workspace
        seal.allow_execution(path)
    frozen = seal.MOUNT_ATTR_RDONLY | seal.MOUNT_ATTR_NOEXEC | seal.MOUNT_ATTR_NOSUID
    for path in task["frozen"]:
        seal.set_mount_attributes(path, frozen, recursive=False)
    beneath = seal.cover_own_files()
    uid, gid = task["user"]
    seal.leave_user_namespace(uid, gid, beneath)
    try:
        seal.forget_keys(task["machine"])
    except OSError as error:
        # the filter refuses every call that would use a key; that it is not even possessed is a second wall
        sys.stderr.write(f"inbounds: {error}\n")
    # a second wall behind the seccomp filter; and if the host runs out of memory, a jail goes first
    for name, value in (("/proc/sys/user/max_user_namespaces", "0"), ("oom_score_adj", "1000")):
        try:
            seal.write_own(beneath, name, value)
        except OSError as error:
            # neither is a boundary by itself; what is in force is measured afterwards by trying
            sys.stderr.write(f"inbounds: {name} could not be set: {error}\n")
    os.close(beneath)


def seal_self(task: Task) -> tuple[seal.Landlock | None, str]:
    """Give up everything; the ruleset (None and why, where the kernel has no Landlock)."""
    landlock, why = None, ""
    try:
        landlock = seal.Landlock(task["rules"], task["ports"])
    except OSError as error:
        if error.errno not in (38, 95):  # ENOSYS, EOPNOTSUPP: not built in, or switched off at boot
            raise
        why = f"the kernel has no Landlock ({error.strerror})"
    # not 0: a crash would then start core_pattern's program, as root and outside of every jail; 1 means none at all
    core = 0 if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (core, core))
    seal.drop_capabilities(task["machine"])
    seal.prctl("no_new_privs", seal.PR_SET_NO_NEW_PRIVS, 1)
    seal.load_filter(task["filter"])
    if landlock:
        landlock.restrict()
    seal.prctl("dumpable", seal.PR_SET_DUMPABLE, 0)
    return landlock, why


def start(task: Task, landlock: seal.Landlock | None, streams: list[int]) -> tuple[int, str]:
    """Fork and execute the program in a session of its own; its pid, or 0 and why not.

    `streams` are its stdout and stderr, [] where those are this process's own.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        become(task, landlock, writing, streams)
    os.close(writing)
    for fd in streams:
        os.close(fd)
    why = os.read(reading, 4096).decode("utf-8", "replace")
    os.close(reading)
    if why:
        os.waitpid(pid, 0)
        return 0, why
    return pid, ""


def become(task: Task, landlock: seal.Landlock | None, writing: int, streams: list[int]) -> NoReturn:
    """In the child: limits, one more layer of Landlock, then the program; writes why not, and exits."""
    try:
        os.setsid()
        for number, fd in enumerate(streams, 1):
            os.dup2(fd, number)
        os.umask(0o022)
        os.nice(task["nice"])
        for signal in (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGINT):
            _signal.signal(signal, _signal.SIG_DFL)
        os.chdir(task["cwd"])
        if landlock:
            landlock.restrict()
        os.set_inheritable(CONTROL_FD, False)
        for limit, wanted in task["rlimits"]:
            hard = resource.getrlimit(limit)[1]
            value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(limit, (value, value))
        execute(task["argv"], task["env"])
    except OSError as error:
        os.write(writing, f"{task['argv'][0]}: {error.strerror}".encode())
    finally:
        os._exit(127)


def execute(argv: list[str], env: dict[str, str]) -> None:
    """Replace this process, looking argv[0] up in the new environment's PATH; OSError if none can be executed."""
    if "/" in argv[0]:
        os.execve(argv[0], argv, env)  # noqa: S606  # no shell is wanted
    failure: OSError = FileNotFoundError(2, "no such program in PATH")
    for directory in env.get("PATH", "").split(":"):
        try:
            os.execve(os.path.join(directory, argv[0]), argv, env)  # noqa: S606  # no shell is wanted
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            failure = error
    raise failure


def watch(control: _socket.socket, task: Task, main: int, started: float) -> dict[str, str]:
    """Wait for the program's end, the deadline, or too much memory; exit at once when the supervisor is gone."""
    deadline = started + task["deadline_ms"] / 1000
    waiting = select.poll()
    waiting.register(control.fileno(), select.POLLIN | select.POLLHUP | select.POLLRDHUP)
    watched = os.pidfd_open(main)
    waiting.register(watched, select.POLLIN)
    pause_ms, memory = task["poll_ms"], Memory(task["memory_bytes"], task["socket_bytes"])
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            return {"end": "deadline"}
        for fd, _ in waiting.poll(min(left * 1000, pause_ms)):
            if fd == CONTROL_FD:
                os._exit(0)
        for _ in range(REAP_MAX):
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return {"end": "failed", "detail": "the program was lost"}
            if pid == 0:
                break
            if pid == main:
                code = os.waitstatus_to_exitcode(status)
                return {"end": "exited", "code": str(max(code, 0)), "signal": str(max(-code, 0))}
        before = time.monotonic()
        used = memory.used()
        # counting hundreds of processes takes milliseconds: spend at most a tenth of the time on it
        pause_ms = max(task["poll_ms"], 9000 * (time.monotonic() - before))
        if used > task["memory_bytes"]:
            return {"end": "memory", "detail": f"{used} bytes of memory in use, {task['memory_bytes']} allowed"}


def let_go() -> None:
    """Close the first command's stdout and stderr here, too: their end tells that it has written all it will."""
    null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    for number in (1, 2):
        os.dup2(null, number)
    os.close(null)


def kill_all() -> bool:
    """Kill every other process of the jail; whether there was one, ended ones that nobody waited for included."""
    try:
        os.kill(-1, _signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def end_all() -> None:
    """Kill every other process of the jail and wait for each: the next command meets nobody of this one."""
    while kill_all():
        try:
            while True:
                os.waitpid(-1, 0)
        except ChildProcessError:
            continue


def main() -> None:
    """The whole life of a jail's PID 1."""
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    control = _socket.socket(fileno=CONTROL_FD)
    os.closerange(CONTROL_FD + 1, 65_536)
    task, descriptors = receive_task(control)
    settle_in(task, descriptors)
    descriptors = listen(task["listeners"])
    prepare(task)
    landlock, why = seal_self(task)
    tell(control, {"stage": "bound"}, descriptors)
    for fd in descriptors:
        os.close(fd)
    found = seal.measure(landlock, why, task)
    tell(control, {"stage": "sealed", **found})
    if receive_exactly(control, 1) != GO:
        os._exit(0)
    before = seal.inherited(task["machine"])
    streams: list[int] = []
    while True:
        started = time.monotonic()
        pid, why = start(task, landlock, streams)
        if task["standing"] and not streams:
            let_go()
        end = watch(control, task, pid, started) if pid else {"end": "failed", "detail": why}
        end["ms"] = str(int((time.monotonic() - started) * 1000))
        if not task["standing"]:
            kill_all()
            tell(control, end)
            os._exit(0)
        end_all()
        if seal.inherited(task["machine"]) != before:
            tell(control, {**end, "detail": "it changed what the next command would inherit"})
            os._exit(0)
        tell(control, {**end, "standing": "yes"})
        command, streams = receive_task(control)
        task = {**task, **command}
