"""Starts PID 1 of a jail, for one layout or in advance: a spare that waits, with nothing in it, for any jail's task.

What takes long (namespaces, the interpreter) is done by then; what makes it this jail (binds, limits, rules, the seal
and its measuring) is done after, in the order of every start. Knows nothing of jails' lives.
"""

import contextlib
import itertools
import os
import select
import signal
import socket
import threading
import time
from dataclasses import dataclass

from inbounds.contracts.errors import HostError
from inbounds.sandbox import seccomp
from inbounds.sandbox.cgroup import Cgroup
from inbounds.sandbox.host import bubblewrap
from inbounds.sandbox.identity import Identity
from inbounds.sandbox.launch import launcher, open_source
from inbounds.sandbox.layout import Layout, lay_out
from inbounds.sandbox.spec import JailSpec

EMPTY = JailSpec(role="spare", argv=("true",), cwd="/")
# A jail that has just been told to go has the CPUs first; the next spare is wanted after seconds, rarely before.
LATER_SECONDS = 0.1
END_SECONDS_MAX = 30

_names = itertools.count()


@dataclass(frozen=True, slots=True)
class Started:
    """A PID 1 that waits for its task: the socket to it, a pidfd of the bubblewrap around it, its control group."""

    control: socket.socket
    pidfd: int
    group: Cgroup | None
    pid: int  # of bubblewrap, as the host service knows it
    said: int  # a file in memory: what bubblewrap, or PID 1 before its task, had to complain of

    def discard(self) -> None:
        """End it, with its bubblewrap; nothing is left."""
        self.control.close()
        with contextlib.suppress(ProcessLookupError):  # ended already
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        ended(self.pidfd, END_SECONDS_MAX)
        os.close(self.pidfd)
        os.close(self.said)
        if self.group:
            self.group.remove()


def ended(pidfd: int, seconds: float) -> bool:
    """Whether the process ends within so many seconds."""
    waiting = select.poll()
    waiting.register(pidfd, select.POLLIN)
    return bool(waiting.poll(seconds * 1000))


def start(layout: Layout, identity: Identity) -> Started:
    """Have bubblewrap started. It is not given the program's stdout and stderr, whose end would then be its own."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    group = Cgroup.best(f"{next(_names)}") if identity.slot is None else None  # a slot has its own
    said = os.memfd_create("inbounds-said", os.MFD_CLOEXEC)
    opened = [theirs.detach()]
    try:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        opened += [os.open("/dev/null", flags | os.O_CLOEXEC) for flags in (os.O_RDONLY, os.O_WRONLY)]
        inherit = [opened[1], opened[2], said, opened[0]]
        for name, content in layout.memory_files:
            opened.append(seccomp.memory_file(name, content))
            inherit.append(opened[-1])
        sources = []
        for path in layout.sources:
            sources.append(open_source(path))
            opened.append(sources[-1])
        directory = -1
        if group:
            directory = os.open(group.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            opened.append(directory)
        if identity.slot:
            pid, pidfd = identity.slot.launch(layout.argv, inherit, sources)
        else:
            pid, pidfd = launcher().launch(layout.argv, inherit, sources, identity.uid, identity.gid, directory)
    except BaseException:
        ours.close()
        os.close(said)
        if group:
            group.remove()
        raise
    finally:
        for fd in opened:
            os.close(fd)
    if group and not group.holds(pid):  # an old kernel
        group.remove()
        group = None
    return Started(ours, pidfd, group, pid, said)


class Spares:
    """Keeps one jail started in advance for one identity, on a thread of its own; thread-safe."""

    def __init__(self, identity: Identity, *, again: bool = True) -> None:
        """Begin at once with the first; `again`: make another one whenever it has been taken."""
        self._identity, self._again = identity, again
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._spare: tuple[Layout, Started] | None = None
        self._closed = False
        self._wanted.set()
        threading.Thread(target=self._keep, name="inbounds-spare", daemon=True).start()

    def take(self, identity: Identity) -> Started | None:
        """The spare, if there is one that is still what a new one would be; it may be on its way yet."""
        if identity != self._identity:
            return None
        with self._lock:
            spare, self._spare = self._spare, None
            if spare is None or self._closed:
                return None
        if self._again:
            self._wanted.set()
        if spare[0] == lay_out(EMPTY, self._identity, bubblewrap()) and not ended(spare[1].pidfd, 0):
            return spare[1]
        spare[1].discard()
        return None

    def close(self) -> None:
        """End it, and make no other."""
        with self._lock:
            self._closed = True
            spare, self._spare = self._spare, None
        self._wanted.set()
        if spare:
            spare[1].discard()

    def _keep(self) -> None:
        later = 0.0
        while True:
            self._wanted.wait()
            self._wanted.clear()
            time.sleep(later)
            later = LATER_SECONDS
            with self._lock:
                if self._closed:
                    return
                try:
                    self._spare = self._make()
                except (HostError, OSError):
                    return  # without a spare the next jail is started from nothing, and says what is wrong

    def _make(self) -> tuple[Layout, Started]:
        layout = lay_out(EMPTY, self._identity, bubblewrap())
        return layout, start(layout, self._identity)
