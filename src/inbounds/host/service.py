"""The host service's first process: the socket, a process for each connection, and an eye on all slots.

It reads nothing that a client sends; sessions do (session.py). When one dies, or lets its slot's deadline pass, this
cleans up. Knows no policy. ADR 11.
"""

import contextlib
import errno
import grp
import os
import pwd
import resource
import select
import signal
import socket
import stat
import struct
import time
from collections.abc import Callable
from typing import TypeVar

from inbounds.host import events, filter, fscrypt, groups, handles, jailer, slots  # noqa: A004  # the field's word
from inbounds.host.protocol import Mechanism, Phase
from inbounds.host.session import Session, say
from inbounds.host.slots import Paths

GROUP = "inbounds-operators"
SESSIONS_MAX = 160  # two for each slot: a supervisor's, and one that asks
SESSIONS_PER_USER = 64  # beside forty slots there is room to ask
BACKLOG = 64
SO_PEERGROUPS = 59
GROUPS_BYTES = 1024  # as much as getsockopt() gives here: 256 groups
START_SECONDS = 20.0  # how long a service before this one may take to die of its SIGKILL
END_SECONDS = 120.0  # how long sessions may take to kill and unmount when the service is told to end
KILL_SECONDS = 5.0  # nobody may wait for this process long
LOOK_SECONDS = 5.0  # how often this process looks for slots that nobody holds, or whose deadline is past
GRACE_MS = 10_000  # how late a session may be before this process kills for it
RUN_BYTES, RUN_INODES = 4 << 20, 4096  # mount points, the socket, and a log where no systemd takes it
LOG_BYTES_MAX = 1 << 20  # where no systemd takes it: begun anew beyond that
DESCRIPTORS = 2048  # of one process: a request may bring 253
SERVICE = slots.ALLOCATION + 1  # the byte of the lock file that stands for being the service

PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36
# Capabilities that the service needs, by the kernel's numbers; the others it gives up, for all that it starts too.
KEPT_CAPABILITIES = {
    "chown": 0,  # the volume's root
    "dac_override": 1,  # files of the slots' users
    "dac_read_search": 2,  # files by kernel handle
    "fowner": 3,  # access lists
    "kill": 5,
    "setgid": 6,
    "setuid": 7,
    "setpcap": 8,  # emptying each jail's bounding set
    "net_admin": 12,  # the packet filter
    "sys_ptrace": 19,  # the user namespace of an id map, by a child that cannot be traced
    "sys_admin": 21,  # mounts, namespaces, loop devices, fanotify
    "sys_resource": 24,  # ceilings
    "audit_write": 29,  # the account tools tell the audit log
    "setfcap": 31,  # id maps that name root, where root is the operator
    "perfmon": 38,  # and
    "bpf": 39,  # the packet filter by group
}

Found = TypeVar("Found")


def permitted(connection: socket.socket, uid: int, gid: int, group: str) -> bool:
    """Whether it is root, or somebody of the group: by the groups it had when it connected, or by the accounts now."""
    if uid == 0:
        return True
    try:
        wanted = grp.getgrnam(group)
    except KeyError:
        return False
    packed = b""
    with contextlib.suppress(OSError):  # ERANGE, more groups than that: the accounts decide
        packed = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, GROUPS_BYTES)
    if wanted.gr_gid in (gid, *struct.unpack(f"{len(packed) // 4}I", packed)):
        return True
    try:
        account = pwd.getpwuid(uid)
    except KeyError:
        return False
    return account.pw_gid == wanted.gr_gid or account.pw_name in wanted.gr_mem


def seal() -> None:
    """What this service and all its children do without: core dumps, being traced, set-id programs, capabilities.

    A filter of system calls is no part: jails inherit it, and theirs may be made only tighter. Sockets of the network
    can't be forbidden for the same reason.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    jailer.prctl(PR_SET_DUMPABLE, 0)
    jailer.prctl(jailer.PR_SET_NO_NEW_PRIVS, 1)
    kept = sum(1 << number for number in KEPT_CAPABILITIES.values())
    jailer.bound_capabilities(kept)
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        [had] = [int(line.split()[1], 16) for line in file if line.startswith("CapPrm:")]
    jailer.set_capabilities(had & kept)


class Service:
    """The service over its paths. `step` is called at each step of a slot's life (tests kill there)."""

    def __init__(
        self,
        paths: Paths | None = None,
        *,
        group: str = GROUP,
        step: Callable[[str], None] = slots.nothing,
        kept: bool = True,
    ) -> None:
        """Nothing happens before `run`. Without `kept` nobody cleans up behind a death (some tests do)."""
        self.paths, self.group, self.step, self.kept = paths or Paths(), group, step, kept
        self.sessions: dict[int, int] = {}  # pid -> the peer's user
        self.janitor = self.keeper = 0
        self.own: list[int] = []  # descriptors that no session needs

    def run(self) -> None:
        """Serve until SIGTERM, then end every session in order. OSError where it cannot start."""
        os.umask(0o022)
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        seal()
        self.prepare()
        told, tell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
        stopping: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.settle()
        self.has = self.try_out()
        listener = self.listen()
        self.own += [told, tell, listener.fileno()]
        service = os.getpid()
        while not stopping:
            if self.kept and not self.keeper:
                self.keeper = self.fork(lambda: self.keep(service), outlives=True)
            waiting = select.poll()
            for fd in (listener.fileno(), told):
                waiting.register(fd, select.POLLIN)
            ready = {fd for fd, _ in waiting.poll(LOOK_SECONDS * 1000)}
            if told in ready:
                os.read(told, 4096)
            if listener.fileno() in ready:
                self.accept(listener)
            self.reap()
            self.look()
        listener.close()
        self.end()

    # -- start and end -------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """The directories, and being the only service over them."""
        for directory in (self.paths.state, f"{self.paths.state}/slots"):
            os.makedirs(directory, mode=0o700, exist_ok=True)
            about = os.lstat(directory)
            if not stat.S_ISDIR(about.st_mode) or about.st_uid != 0 or about.st_mode & 0o077:
                raise OSError(errno.EPERM, f"{directory} is not root's alone")
        held = _within(START_SECONDS, lambda: slots.lock(self.paths, SERVICE))
        if held is None:
            raise OSError(errno.EADDRINUSE, f"another service runs over {self.paths.state}")
        self.own.append(held)
        with open(self.paths.pid, "w", encoding="ascii") as file:
            file.write(str(os.getpid()))
        os.makedirs(self.paths.run, mode=0o755, exist_ok=True)
        if not handles.mounts_at(self.paths.run):
            # of its own, so that a jail can leave all volumes with one unmount, and nothing propagates from it
            options = ("mode=0755", f"size={RUN_BYTES}", f"nr_inodes={RUN_INODES}")
            attributes = handles.NOSUID | handles.NODEV | handles.NOEXEC
            made = handles.new_mount("tmpfs", "inbounds", attributes, *options)
            handles.attach(made, self.paths.run)
            handles.set_attributes(made, 0, propagation=jailer.MS_PRIVATE)
            os.close(made)

    def settle(self) -> None:
        """Undo what a service before this one left in the middle; its sessions may still be dying."""
        _within(START_SECONDS, lambda: not self.unfinished(held=True) or None)
        self.clean_up()

    def clean_up(self) -> None:
        """Undo what nobody holds and was begun."""
        for problem in slots.recover(self.paths, self.step):
            say(problem)

    def unfinished(self, *, held: bool) -> list[int]:
        """Slots that are neither free nor kept, and that a session holds, or that none does."""
        there = [number for number, record in slots.records(self.paths).items() if record.phase != Phase.KEPT]
        return [number for number in there if slots.is_held(self.paths, number) == held]

    def try_out(self) -> Mechanism:
        """What this host can give, by trying."""
        found = Mechanism.USER | Mechanism.IMAGE | Mechanism.ACL | Mechanism.WATCHDOG
        verdicts = groups.mechanisms() | {"filter": filter.mechanism(), "events": events.mechanism()}
        for kind, verdict in verdicts.items():
            if verdict == groups.ENFORCED and kind.upper() in Mechanism.__members__:
                found |= Mechanism[kind.upper()]
        return found | (Mechanism.ENCRYPTED if _encrypts() else Mechanism(0))

    def listen(self) -> socket.socket:
        """The socket, for root and the operators' group."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.paths.socket)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        before = os.umask(0o177)
        listener.bind(self.paths.socket)
        os.umask(before)
        os.chown(self.paths.socket, 0, grp.getgrnam(self.group).gr_gid)
        os.chmod(self.paths.socket, 0o660)  # before it listens
        listener.listen(BACKLOG)
        return listener

    def end(self) -> None:
        """End every session in order, then what they left, then this."""
        for pid in self.sessions:
            os.kill(pid, signal.SIGTERM)
        if _within(END_SECONDS, lambda: None if self.reap() else True) is None:
            for pid in self.sessions:
                os.kill(pid, signal.SIGKILL)
        self.settle()
        if self.keeper:
            os.kill(self.keeper, signal.SIGKILL)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.paths.socket)
        handles.unmount(self.paths.run, handles.MNT_DETACH)
        with contextlib.suppress(OSError):  # it may not be ours alone
            os.rmdir(self.paths.run)

    # -- meanwhile -----------------------------------------------------------------------------------------------------

    def accept(self, listener: socket.socket) -> None:
        """A process for who connects, unless there are too many: those are closed without a word."""
        try:
            connection, _ = listener.accept()
        except OSError:
            return  # it has gone already
        with connection:
            _, uid, gid = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            theirs = sum(user == uid for user in self.sessions.values())
            if len(self.sessions) >= SESSIONS_MAX or theirs >= SESSIONS_PER_USER:
                say(f"user {uid}: too many connections")
                return
            pid = self.fork(lambda: self.session(connection, uid, gid))
            self.sessions[pid] = uid

    def session(self, connection: socket.socket, uid: int, gid: int) -> None:
        """In a process of its own."""
        if permitted(connection, uid, gid, self.group):
            Session(connection, (uid, gid), self.paths, self.has, self.step).run()
        else:
            say(f"user {uid} is not of the group {self.group}")

    def keep(self, service: int) -> None:
        """In a process of its own: when the first one is dead, however it died, end what its sessions had."""
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        with contextlib.suppress(ProcessLookupError):
            over = os.pidfd_open(service)
            if os.getppid() == service:  # else the number may be another's by now
                select.select([over], [], [])
        say("the service is dead: its slots are killed and unmounted")
        self.settle()

    def fork(self, what: Callable[[], object], *, outlives: bool = False) -> int:
        """A child that does one thing and, unless it `outlives` this process, dies with it."""
        parent = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        try:
            if not outlives:
                jailer.die_with(parent)
            jailer.prctl(PR_SET_CHILD_SUBREAPER, 1)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for fd in self.own:
                os.close(fd)
            what()
        except BaseException as error:
            say(f"{type(error).__name__}: {error}")
        finally:
            os._exit(0)

    def reap(self) -> bool:
        """Forget who has ended; whether anybody is left."""
        with contextlib.suppress(ChildProcessError):
            while pid := os.waitpid(-1, os.WNOHANG)[0]:
                self.sessions.pop(pid, None)
                self.janitor = 0 if pid == self.janitor else self.janitor
                self.keeper = 0 if pid == self.keeper else self.keeper
        return bool(self.sessions or self.janitor)

    def look(self) -> None:
        """Kill where a session lets its deadline pass, whatever hangs it; undo, in a child, what a dead one left."""
        about = os.fstat(2)
        if stat.S_ISREG(about.st_mode) and about.st_size > LOG_BYTES_MAX:
            os.ftruncate(2, 0)
        now = time.time() * 1000
        for number, record in slots.records(self.paths).items():
            if record.phase == Phase.OPEN and record.deadline_ms + GRACE_MS < now:
                group = groups.Group.find(number)
                if group and group.count():
                    say(f"slot {number}: killed long behind its deadline, {group.kill(KILL_SECONDS)} left")
        if not self.janitor and self.unfinished(held=False):
            self.janitor = self.fork(self.clean_up)


def _encrypts() -> bool:
    """Whether this kernel takes a key for a file system's own encryption."""
    name = f"inbounds:probe-{os.getpid()}"
    try:
        fscrypt.draw(name)
        fscrypt.forget(name)
    except OSError:
        return False
    return True


def _within(seconds: float, found: Callable[[], Found | None]) -> Found | None:
    """What it finds, as soon as it is not None; None when the time is over."""
    until = time.monotonic() + seconds
    while (result := found()) is None and time.monotonic() < until:
        time.sleep(0.02)
    return result
