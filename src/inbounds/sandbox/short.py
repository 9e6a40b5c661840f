"""One command in one jail whose layout is known from before, in few imports: for a person who waits.

The same bubblewrap arguments, the same PID 1 and the same task as `jail.spawn` makes them; what holds is measured and
required as there. Anything out of the ordinary before the command starts is NotNowError: nothing is left, and the
caller goes the long way, which says what is wrong. Runs in a process of one thread. Knows nothing of who keeps layouts.
"""

from __future__ import annotations

import _socket
import marshal
import os
import select
import struct
import time

from inbounds.sandbox import warden

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Kept = dict[str, Any]

SETUP_SECONDS_MAX = 30  # as in jail.py
REPORT_BYTES_MAX = 1 << 16
CHUNK = 1 << 16
PAUSE_SECONDS = 0.05  # as in output.py: beyond the ceiling one chunk per stream in this time
DIGITS_MAX = 15
ENFORCED = "enforced"
NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")


class NotNowError(Exception):
    """The jail did not come to its seal; nothing of it is left."""


class Short:
    """A jail that waits for its command, then that command. Make one, `await_seal`, `run`; `close` in any case."""

    def __init__(self, kept: Kept, argv: tuple[str, ...], sources: tuple[str, ...], uid: int, gid: int) -> None:
        """Start it. `kept`: argv, memory, task, require, output_bytes; `sources`: the host's paths, in its order."""
        self._kept = kept
        self._warden = 0
        self._reading: list[int] = []
        self.control, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        self._leash, end = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        opened: list[int] = [theirs.detach()]
        writing: list[int] = []
        try:
            opened += [os.open("/dev/null", flags | os.O_CLOEXEC) for flags in (os.O_RDONLY, os.O_WRONLY)]
            opened.append(os.memfd_create("inbounds-said", os.MFD_CLOEXEC))
            inherit = [opened[1], opened[2], opened[3], opened[0]]
            for name, content in kept["memory"]:
                opened.append(_memory_file(name, content))
                inherit.append(opened[-1])
            places = []
            for path in sources:
                places.append(warden.open_plain(path))
                opened.append(places[-1])
            request = {"argv": kept["argv"], "inherit": len(inherit), "uid": uid, "gid": gid, "group": False}
            self._warden = _forked(request, [*inherit, *places], end)
            for _ in range(2):
                reading, other = os.pipe2(os.O_CLOEXEC)
                self._reading.append(reading)
                writing.append(other)
                os.fchown(other, uid, gid)
            task = marshal.dumps({**kept["task"], "argv": list(argv), "host_namespaces": host_namespaces()})
            rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("2i", *writing))]
            self.control.settimeout(SETUP_SECONDS_MAX)
            self.control.sendmsg([struct.pack("!I", len(task))], rights)
            self.control.sendall(task)
        except (OSError, KeyError, TypeError, ValueError) as error:
            self.close()
            raise NotNowError(str(error)) from error
        except BaseException:
            self.close()
            raise
        finally:
            end.close()
            for fd in (*opened, *writing):
                os.close(fd)

    def await_seal(self) -> None:
        """Wait for PID 1's two reports; NotNowError where what is required was not found in force inside."""
        try:
            bound, sealed = self._report(), self._report()
        except (OSError, ValueError) as error:
            raise NotNowError(str(error)) from error
        if bound.get("stage") != "bound" or sealed.get("stage") != "sealed":
            raise NotNowError("PID 1 did not say that it is sealed")
        missing = [name for name in self._kept["require"] if sealed.get(name) != ENFORCED]
        if missing:
            raise NotNowError(f"not enforced: {', '.join(missing)}")

    def run(self, targets: tuple[int, int]) -> tuple[dict[str, str], list[int]]:
        """Let the command start, copy its output as it comes; PID 1's last report, and the bytes of each stream.

        The report is {} where there was none: its PID 1 was lost, or did not end at its deadline and was killed.
        """
        self.control.sendall(b"G")
        until = time.monotonic() + self._kept["task"]["deadline_ms"] / 1000 + SETUP_SECONDS_MAX
        waiting = select.poll()
        control = self.control.fileno()
        for fd in (control, *self._reading):
            waiting.register(fd, select.POLLIN)
        streams = dict(zip(self._reading, targets, strict=True))
        order, written = tuple(self._reading), [0, 0]
        words: dict[str, str] = {}
        open_still = {control, *order}
        while open_still:
            left = until - time.monotonic()
            if left <= 0:
                break
            flooded = False
            for fd, _ in waiting.poll(left * 1000):
                if fd == control:
                    words = self._last()
                elif part := os.read(fd, CHUNK):
                    flooded = self._pass_on(part, streams[fd], written, order.index(fd)) or flooded
                    continue
                waiting.unregister(fd)
                open_still.discard(fd)
            if flooded:
                time.sleep(PAUSE_SECONDS)
        return words, written

    def _pass_on(self, part: bytes, target: int, written: list[int], index: int) -> bool:
        """Write what there is room for; whether there was more."""
        room = max(0, int(self._kept["output_bytes"]) - written[index])
        written[index] += len(part)
        view = memoryview(part)[:room]
        while view:
            view = view[os.write(target, view) :]
        return room < len(part)

    def close(self) -> None:
        """End what still runs, wait for the last of it, and close everything; a second time does nothing."""
        self.control.close()
        self._leash.close()
        if self._warden:
            os.waitpid(self._warden, 0)  # it ends when nothing of the jail is left
            self._warden = 0
        for fd in self._reading:
            os.close(fd)
        self._reading = []

    def _last(self) -> dict[str, str]:
        try:
            return self._report()
        except (OSError, ValueError):
            return {}

    def _report(self) -> dict[str, str]:
        """One report of PID 1: its length, then "name<TAB>value" lines; what is not printable becomes a space."""
        (size,) = struct.unpack("!I", self._exactly(4))
        if size > REPORT_BYTES_MAX:
            raise ValueError("PID 1 said more than it should")
        words = {}
        for line in self._exactly(size).decode("utf-8", "replace").split("\n"):
            name, found, value = line.partition("\t")
            if found:
                words[name] = "".join(c if c.isprintable() else " " for c in value)
        return words

    def _exactly(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = self.control.recv(count - len(parts))
            if not part:
                raise ValueError("the jail ended")
            parts += part
        return bytes(parts)


def number(text: str) -> int:
    """A number in a report; 0 for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX else 0


def host_namespaces() -> dict[str, str]:
    """This process's own namespaces by kind, for PID 1 to compare with."""
    paths = {kind: f"/proc/self/ns/{kind}" for kind in NAMESPACES}
    return {kind: os.readlink(path) for kind, path in paths.items() if os.path.exists(path)}


def _memory_file(name: str, content: bytes) -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    written = os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    if written != len(content):
        os.close(fd)
        raise OSError(f"memory file {name} was written short")
    return fd


def _forked(request: dict[str, Any], descriptors: list[int], end: _socket.socket) -> int:
    """A warden by fork, which is safe in a process of one thread: it starts the jail, and leaves nothing alive.

    It is told of this process by a pidfd, as one that is started as a program, and lets go of all else that is here.
    """
    me = os.pidfd_open(os.getpid())
    pid = os.fork()
    if pid:
        os.close(me)
        return pid
    try:
        os.setsid()  # Ctrl-C is for the parent, which then ends its jail in order
        os.chdir("/")
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for standard in (0, 1):
            os.dup2(null, standard)
        needed = {0, 1, 2, me, end.fileno(), *descriptors}
        for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
            if fd not in needed:
                try:
                    os.close(fd)
                except OSError:
                    continue  # the listing's own
        warden.become_subreaper()
        children: dict[int, int] = {}
        warden.start(request, descriptors, children)
        warden.keep(end, me, children)  # type: ignore[arg-type]  # it asks for recvmsg alone, and nobody sends
    finally:
        os._exit(0)
