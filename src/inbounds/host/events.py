"""What a slot's processes do to files, by fanotify: compact records into a pipe that the supervisor reads.

The kernel's queue is bounded and so is what is kept here: whoever reads too slowly gets INCOMPLETE, never a gap that
nobody sees. A stream without END at its end is incomplete, too. Knows nothing of what the files are or may be.
"""

import ctypes
import os
import select
import struct
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from inbounds.host.groups import ENFORCED, status
from inbounds.host.handles import AT_FDCWD, NODEV, NOEXEC, NOSUID, Handle, new_mount, open_handle
from inbounds.host.whereabouts import Whereabouts

# What happened: bits of a record. CLOSED is the end of the last use of a file that was open for writing, maps included:
# a write through a map shows nowhere else.
OPENED, READ, WRITTEN, CLOSED, CREATED, DELETED, MOVED_FROM, MOVED_TO, EXECUTED = (1 << n for n in range(9))
DIRECTORY = 1 << 16  # it is about a directory
GONE = 1 << 17  # the process had ended when its event was read: it may have been another user's (the supervisor's)
PARTIAL = 1 << 18  # the directory is gone, the path is the name in it alone
INCOMPLETE, END = 1 << 24, 1 << 25  # events were lost before this one; everything up to the end was told
RECORD = struct.Struct("!IIQH")  # bits, process, Unix ms when it was read, bytes of the path behind it

BATCH_BYTES = 1 << 16  # told at once: some 800 events, whose paths are 3 MB at the very worst
BACKLOG_BYTES_MAX = 16 << 20  # taken in and not told yet: 200,000 events; the kernel's own queue holds 16,384
READS_MAX = 16  # in a row: some 10 ms, for the loop has other things to do
EXEC_BYTES = 1 << 12  # each of these events is an open descriptor: some 170
DIRECTORIES_MAX = 4_096  # paths remembered; an opened file costs four system calls otherwise
DRAIN_SECONDS = 5.0  # a full queue takes half a second; a client waits four times as long for its answer
CLOSE_SECONDS = 5.0  # for the supervisor to take what is left

FLAGS = {0x20: OPENED, 1: READ, 2: WRITTEN, 8: CLOSED, 0x100: CREATED, 0x200: DELETED, 0x40: MOVED_FROM, 0x80: MOVED_TO}
MASKS = [sum(bit for flag, bit in FLAGS.items() if mask & flag) for mask in range(0x1000)]  # ready for the loop
OPEN_EXEC, OVERFLOW, ON_DIRECTORY = 0x1000, 0x4000, 0x40000000
CLOEXEC, NONBLOCK, BY_NAME = 1, 2, 0xC00  # fanotify_init: directory handle and name
ADD, FILE_SYSTEM = 1, 0x100  # fanotify_mark
EVENT = struct.Struct("=IBBHQii")
HANDLE = struct.Struct("=Ii")  # bytes and kind, before the handle itself
HANDLE_AT = EVENT.size + 4 + 8  # behind the header of the information and the number of the file system
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Record:
    """One event as the supervisor sees it; the path is relative to the volume, or absolute where EXECUTED elsewhere."""

    what: int
    process: int
    at_ms: int
    path: bytes


def unpack(data: bytes) -> tuple[list[Record], bytes]:
    """The whole records in a part of the stream, and the rest to put before the next part."""
    found, at = list[Record](), 0
    while len(data) - at >= RECORD.size:
        what, process, at_ms, size = RECORD.unpack_from(data, at)
        if len(data) - at < RECORD.size + size:
            break
        at += RECORD.size
        found.append(Record(what, process, at_ms, data[at : at + size]))
        at += size
    return found, data[at:]


class Events:
    """Watches one volume for one user. `fileno` is readable when `handle` has something to do."""

    def __init__(self, volume: int, pipe: int, uid: int | None = None) -> None:
        """Watch the file system of `volume` (a descriptor, duplicated) and own `pipe`; the user is its root's owner.

        OSError where the kernel can't; EMFILE beyond 128 watches of root.
        """
        self.lost = 0  # how often the kernel's queue ran over
        self._uid = os.fstat(volume).st_uid if uid is None else uid
        self._pipe, self._out = pipe, bytearray()
        self._backlog, self._held = deque[tuple[bytes, dict[int, int]]](), 0  # with whose each process is; bytes
        self._directories, self._whereabouts = dict[bytes, bytes](), Whereabouts()
        self._volume = os.dup(volume)
        self._root = os.readlink(f"/proc/self/fd/{self._volume}".encode())
        self._poll, self._groups = select.epoll(), list[int]()
        self._polls_pipe = False
        os.set_blocking(pipe, False)
        try:
            self._by_name = self._group(BY_NAME)
            _mark(self._by_name, sum(FLAGS) | ON_DIRECTORY, volume)
        except OSError:
            self._release()
            raise

    def executed_on(self, place: int) -> None:
        """Watch the file system of `place` for what the slot's processes execute, as long as this is open.

        The whole host's executions pass by here. One of a process that is gone when it is read is told, as GONE, where
        it was executed through a mount that only the slot's jails have.
        """
        if len(self._groups) == 1:
            self._group(0)
        _mark(self._groups[1], OPEN_EXEC, place)

    def fileno(self) -> int:
        """A descriptor to poll."""
        return self._poll.fileno()

    def handle(self) -> bool:
        """Take in what is ready, tell a part of it, never wait; whether there was any."""
        before = self._held
        for _ in range(READS_MAX):
            data = _read(self._by_name, BATCH_BYTES) if self._held < BACKLOG_BYTES_MAX else b""
            if not data:
                break
            # looked at now, because processes end; for this part alone, because their numbers are used again
            self._backlog.append((data, {pid: self._whose(pid) for pid in {event[2] for event in _events(data)}}))
            self._held += len(data)
        active = self._held > before
        for group in self._groups[1:] if len(self._out) < BATCH_BYTES else ():
            for mask, fd, pid, _ in _events(_read(group, EXEC_BYTES)):
                active = True
                self._tell_executed(mask, fd, pid)
        if self._flush() and self._backlog:
            data, whose = self._backlog.popleft()
            self._held -= len(data)
            for mask, _, pid, information in _events(data):
                self._tell(mask, pid, whose[pid], information)
            self._flush()
            active = True
        self._await()
        return active

    def drain(self) -> None:
        """Tell what has happened up to now; INCOMPLETE where it goes on and on, or nobody reads."""
        until = time.monotonic() + DRAIN_SECONDS
        while self.handle() or self._out or self._backlog:
            if time.monotonic() > until:
                self._lost()
                return
            if self._out:
                time.sleep(0.002)

    def close(self) -> None:
        """Take in what happened up to now (so after the kill, before the unmount), say END, let go."""
        until = time.monotonic() + CLOSE_SECONDS
        try:
            quiet = False
            while time.monotonic() < until and not quiet:
                quiet = not self.handle() and not self._out and not self._backlog
                if self._out:
                    time.sleep(0.002)
            if quiet:
                self._add(END, 0, b"")
                self._flush()
        finally:
            self._release()

    # -- one by one ----------------------------------------------------------------------------------------------------

    def _whose(self, pid: int) -> int:
        """Bits for the slot's processes; -1 for another user's."""
        state, uids = status(pid)
        return (0 if self._uid in uids else -1) if state else GONE

    def _tell(self, mask: int, pid: int, whose: int, information: bytes) -> None:
        if mask & OVERFLOW:
            self._directories.clear()  # a directory that was renamed may be among what was lost
            self._lost()
            return
        what, directory = MASKS[mask & 0xFFF], mask & ON_DIRECTORY
        if directory:
            what &= ~(OPENED | READ)  # looking around is no reading of files
        if what and whose >= 0:
            path, partial = self._path(information)
            self._add(what | whose | partial | (DIRECTORY if directory else 0), pid, path)
        if directory and what & (MOVED_FROM | MOVED_TO | DELETED):
            self._directories.clear()

    def _lost(self) -> None:
        self.lost += 1
        self._add(INCOMPLETE, 0, b"")

    def _tell_executed(self, mask: int, fd: int, pid: int) -> None:
        if mask & OVERFLOW or fd < 0:  # or no descriptor could be opened
            self._lost()
            return
        try:
            whose = self._whose(pid)
            if whose == 0:
                self._whereabouts.learn(pid, fd)
            if whose == 0 or (whose == GONE and self._whereabouts.ours(fd)):
                self._add(EXECUTED | whose, pid, os.readlink(f"/proc/self/fd/{fd}".encode()))
        finally:
            os.close(fd)

    def _path(self, information: bytes) -> tuple[bytes, int]:
        """Path relative to the volume, with PARTIAL or 0. A directory's is what it is called now."""
        if len(information) < HANDLE.size:
            return b"", PARTIAL  # of a file that is in no directory
        size, kind = HANDLE.unpack_from(information)
        handle, name = information[8 : 8 + size], information[8 + size :].partition(b"\0")[0]
        directory = self._directories.get(information[: 8 + size])
        if directory is None:
            try:
                fd = open_handle(self._volume, Handle(kind, handle, 0), os.O_PATH)
            except OSError:
                return name, PARTIAL
            try:
                if not os.fstat(fd).st_nlink:
                    return name, PARTIAL
                directory = os.readlink(f"/proc/self/fd/{fd}".encode()).removeprefix(self._root).strip(b"/")
            finally:
                os.close(fd)
            if len(self._directories) >= DIRECTORIES_MAX:
                self._directories.clear()
            self._directories[information[: 8 + size]] = directory
        return (directory + b"/" + name).strip(b"/") if name != b"." else directory, 0

    def _add(self, what: int, pid: int, path: bytes) -> None:
        self._out += RECORD.pack(what, pid, time.time_ns() // 1_000_000, len(path)) + path

    def _flush(self) -> bool:
        """Whether nothing waits for the pipe any more."""
        try:
            while self._out:
                del self._out[: os.write(self._pipe, self._out)]
        except BlockingIOError:
            return False
        except BrokenPipeError:  # nobody reads any more: the session ends for another reason
            self._out.clear()
        return True

    def _await(self) -> None:
        """What `fileno` is readable for: new events where there is room, room in the pipe where something waits."""
        rooms = [self._held < BACKLOG_BYTES_MAX, len(self._out) < BATCH_BYTES]
        for group, room in zip(self._groups, rooms, strict=False):
            self._poll.modify(group, select.EPOLLIN if room else 0)
        waits = bool(self._out or self._backlog)
        if waits and not self._polls_pipe:
            self._poll.register(self._pipe, select.EPOLLOUT)
        elif self._polls_pipe and not waits:
            self._poll.unregister(self._pipe)  # else its other end's closing would wake the loop for ever
        self._polls_pipe = waits

    # -- descriptors ---------------------------------------------------------------------------------------------------

    def _group(self, flags: int) -> int:
        fd = _checked(_libc.fanotify_init(ctypes.c_uint(CLOEXEC | NONBLOCK | flags), ctypes.c_uint(os.O_CLOEXEC)))
        self._groups.append(fd)
        self._poll.register(fd, select.EPOLLIN)
        return fd

    def _release(self) -> None:
        for fd in (*self._groups, self._volume, self._pipe):
            os.close(fd)
        self._poll.close()


def _events(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Mask, descriptor (-1: by name), process, and the handle with the name behind it."""
    at = 0
    while at + EVENT.size <= len(data):
        size, _, _, _, mask, fd, pid = EVENT.unpack_from(data, at)
        yield mask, fd, pid, data[at + HANDLE_AT : at + size]
        at += size


def _read(group: int, size: int) -> bytes:
    try:
        return os.read(group, size)
    except BlockingIOError:
        return b""


def _mark(group: int, mask: int, place: int) -> None:
    """By the descriptor, which may be O_PATH: no path of the volume is walked."""
    own = f"/proc/self/fd/{place}".encode()
    _checked(_libc.fanotify_mark(group, ADD | FILE_SYSTEM, ctypes.c_uint64(mask), AT_FDCWD, own))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"fanotify: {os.strerror(number)}")
    return result


def mechanism() -> str:
    """Tried on a file system of our own in memory: a file that is made is seen. "enforced" or "absent: why"."""
    try:
        volume = new_mount("tmpfs", "inbounds-probe", NOSUID | NODEV | NOEXEC, "size=65536")
        try:
            reading, writing = os.pipe2(os.O_CLOEXEC)
            with open(reading, "rb") as stream:
                events = Events(volume, writing, os.geteuid())
                os.close(os.open("made", os.O_CREAT | os.O_WRONLY, dir_fd=volume))
                events.close()
                told = unpack(stream.read(BATCH_BYTES))[0]
        finally:
            os.close(volume)
    except OSError as error:
        return f"absent: {error.strerror or error}"
    seen = any(one.what & CREATED and one.path == b"made" for one in told)
    return ENFORCED if seen else "absent: a file that was made was not seen"
