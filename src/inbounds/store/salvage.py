"""Copy a directory to another file system, inert: what an agent wrote, taken out of a volume that is to be destroyed.

Of any depth, with a bounded number of open descriptors; no link is followed, and what is neither file, directory nor
link is left out and counted. Nothing copied is executable or set-id.
"""

import errno
import os
import stat
from dataclasses import dataclass

from inbounds.contracts.errors import HostError
from inbounds.store.descent import delete_tree, descend
from inbounds.store.walk import DIRECTORY

CHUNK = 1 << 20
HALF = ".part"


@dataclass(slots=True)
class Room:
    """What may still be copied: allocated bytes and entries. HostError where it is used up."""

    bytes: int
    entries: int

    def take(self, size: int, entries: int) -> None:
        """Use so much of it."""
        self.bytes -= size
        self.entries -= entries
        if self.bytes < 0 or self.entries < 0:
            raise HostError("the workspace holds more than the run's limits allow", expected="a volume within them")


def copy_out(source: str, target: str, room: Room) -> int:
    """Copy `source` to `target`, which must not exist and is there whole or not at all; how many entries were left out.

    HostError where `room` or the disk does not hold it: nothing is left behind then but what the next call removes.
    """
    half = target + HALF
    delete_tree(half)
    left_out = 0
    try:
        os.mkdir(half, 0o700)
        root, into = os.open(source, DIRECTORY), os.open(half, DIRECTORY)
        try:
            for step in descend(root):
                if step.depth and step.entries is not None:
                    into = _down(into, step.name)
                if step.entries is None:
                    into = _up(into)
                    continue
                room.take(0, len(step.entries))
                left_out += sum(_copy(step.handle, name, about, into, room) for name, about in step.entries)
            os.fsync(into)
        finally:
            os.close(root)
            os.close(into)
        os.rename(half, target)
        _sync(os.path.dirname(target))
    except OSError as error:
        raise HostError(f"the workspace cannot be copied out: {error}", where=target) from error
    return left_out


def _down(into: int, name: str) -> int:
    os.mkdir(name, 0o700, dir_fd=into)
    below = os.open(name, DIRECTORY, dir_fd=into)
    os.close(into)
    return below


def _up(into: int) -> int:
    above = os.open("..", DIRECTORY, dir_fd=into)
    os.close(into)
    return above


def _copy(parent: int, name: str, about: os.stat_result, into: int, room: Room) -> int:
    """One entry that is no directory; 1 where it is left out."""
    if stat.S_ISDIR(about.st_mode):
        return 0
    if stat.S_ISLNK(about.st_mode):
        os.symlink(os.readlink(name, dir_fd=parent), name, dir_fd=into)
        return 0
    if not stat.S_ISREG(about.st_mode):
        return 1
    reading = _open(parent, name)
    try:
        if not stat.S_ISREG(os.fstat(reading).st_mode):
            return 1
        writing = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=into)
        try:
            _content(reading, writing, room)
        finally:
            os.close(writing)
    finally:
        os.close(reading)
    return 0


def _open(parent: int, name: str) -> int:
    """For reading, whatever its mode was: the caller owns it, and it is to be destroyed."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=parent)
    except PermissionError:
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            os.chmod(f"/proc/self/fd/{handle}", stat.S_IRUSR)
        finally:
            os.close(handle)
        return os.open(name, flags, dir_fd=parent)


def _content(reading: int, writing: int, room: Room) -> None:
    """The bytes that are there; holes stay holes, so that a file of terabytes in name costs what it costs now."""
    size = os.fstat(reading).st_size
    os.truncate(writing, size)
    at = 0
    while at < size:
        try:
            at = os.lseek(reading, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # nothing but a hole from here
                raise
            return
        end = os.lseek(reading, at, os.SEEK_HOLE)
        while at < end:
            part = os.pread(reading, min(CHUNK, end - at), at)
            if not part:
                return
            room.take(len(part), 0)
            written = os.pwrite(writing, part, at)
            at += written


def _sync(directory: str) -> None:
    fd = os.open(directory, DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
