"""What jailed processes keep of a file system without a name for it: deleted files, open, mapped or on their way.

A walk over names sees none of that, so that a jail without a quota could fill a disk behind it (E7). `Room` tells when
it is worth a look, which costs too much otherwise; `held` looks. Knows no limit and stops nobody.
"""

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from inbounds.sandbox.census import Process, members, threads

BLOCK = 512  # what st_blocks counts, whatever the file system (stat(2))
DELETED = b" (deleted)"
FDINFO_BYTES_MAX = 4_096
MAPS_BYTES_MAX = 8 << 20  # of one process's memory map: 65,530 mappings of some 100 bytes
MOUNT_ID = re.compile(rb"^mnt_id:\s*(\d+)$", re.MULTILINE)
IN_FLIGHT = re.compile(rb"^scm_fds:\s*[1-9]", re.MULTILINE)  # proc(5): descriptors in a unix socket's queue


class Held(NamedTuple):
    """`bytes` are allocated; `unseen` where there is something whose size cannot be asked for."""

    bytes: int
    unseen: bool


@dataclass(slots=True)
class Room:
    """The free bytes of the file system that `place` is on, as far below the most there ever was as it is now."""

    place: str
    most: int = 0

    def fallen(self) -> int:
        """How many bytes have gone since there were most; by whomever. OSError where it cannot be asked."""
        now = os.statvfs(self.place)
        free = now.f_bfree * now.f_frsize
        self.most = max(self.most, free)
        return self.most - free


def held(inits: Iterable[Process], place: str) -> Held:
    """What the members of these jails hold without a name of the file system that `place` is on.

    Every thread is asked, since one can have a descriptor table of its own. What ends meanwhile holds nothing.
    """
    look = _Look(_devices(place))
    for init in inits:
        for process in members(init):
            if process.ended:
                continue  # and not to be asked by its own user
            for thread in threads(process):
                look.at_descriptors(f"/proc/{process.pid}/task/{thread.pid}")
            look.at_mappings(f"/proc/{process.pid}/maps")
    return Held(look.bytes, look.unseen or bool(look.mapped - look.known))


def _devices(place: str) -> set[int]:
    """As stat(2) tells it, and as a memory map does: they differ for a btrfs subvolume."""
    fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        found = {os.fstat(fd).st_dev}
        mount = MOUNT_ID.search(_read(f"/proc/self/fdinfo/{fd}", FDINFO_BYTES_MAX))
    finally:
        os.close(fd)
    for line in _read("/proc/self/mountinfo", MAPS_BYTES_MAX).splitlines():
        number, _, device, *_ = line.split(maxsplit=3)
        if mount and number == mount[1]:
            found.add(_device(device))
    return found


def _device(text: bytes, base: int = 10) -> int:
    major, _, minor = text.partition(b":")
    return os.makedev(int(major, base), int(minor, base))


@dataclass(slots=True)
class _Look:
    """One look, inode numbers of `devices` counted once whoever has them."""

    devices: set[int]
    bytes: int = 0
    unseen: bool = False
    known: set[int] = field(default_factory=set)
    mapped: set[int] = field(default_factory=set)

    def at_descriptors(self, task: str) -> None:
        """Open deleted files; a descriptor within a socket's queue is in nobody's table."""
        try:
            numbers = os.listdir(f"{task}/fd")
        except OSError as error:
            self._failed(error)
            return
        for number in numbers:
            try:
                info = os.stat(f"{task}/fd/{number}")
                if stat.S_ISSOCK(info.st_mode) and IN_FLIGHT.search(_read(f"{task}/fdinfo/{number}", FDINFO_BYTES_MAX)):
                    self.unseen = True
            except OSError as error:
                self._failed(error)
                continue
            if info.st_nlink == 0 and info.st_dev in self.devices and info.st_ino not in self.known:
                self.known.add(info.st_ino)
                self.bytes += info.st_blocks * BLOCK

    def at_mappings(self, path: str) -> None:
        """Deleted files that are mapped; only root could ask for their sizes, and only for some (map_files)."""
        try:
            text = _read(path, MAPS_BYTES_MAX)
        except OSError as error:
            self._failed(error)
            return
        self.unseen = self.unseen or len(text) >= MAPS_BYTES_MAX
        for line in text.splitlines():
            if line.endswith(DELETED):
                _, _, _, device, inode, *_ = line.split(maxsplit=5)
                if _device(device, 16) in self.devices:
                    self.mapped.add(int(inode))

    def _failed(self, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | ProcessLookupError):
            self.unseen = True


def _read(path: str, limit: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while limit > 0 and (part := os.read(fd, min(limit, 1 << 20))):
            parts.append(part)
            limit -= len(part)
        return b"".join(parts)
    finally:
        os.close(fd)
