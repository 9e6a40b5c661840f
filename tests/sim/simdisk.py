"""A disk below the real journal writer: what is synced survives a power loss, the rest is cut anywhere; it can be full.

Stands in for the module `os` inside inbounds.journal.writer alone. Files are real and lie in memory.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

JOURNAL, RESERVE = "journal.jsonl", "journal.reserve"


class Disk:
    """The files of one run's journal; `point` is called where a process may die, `at_sync` when records are durable."""

    def __init__(self, rng: Random, place: Path, point: Callable[[str], None], at_sync: Callable[[], None]) -> None:
        self.rng, self.place, self._point, self._at_sync = rng, place, point, at_sync
        self.room: int | None = None  # bytes left where the disk is full
        self.sync_fails = 0
        self.failures = 0  # writes and syncs that were refused to the living process
        self.synced: dict[str, int] = {}
        self._paths: dict[int, str] = {}
        self._named = False
        self.reserved = False

    @property
    def journal(self) -> str:
        """Where the journal lies."""
        return str(self.place / JOURNAL)

    def release(self) -> None:
        """The process is gone: the kernel closes what it had open, locks included."""
        for fd in list(self._paths):
            os.close(fd)
        self._paths.clear()

    def lose_power(self) -> bool:
        """What was not synced is there up to any byte, or not at all; whether the journal still has its name."""
        for path, durable in self.synced.items():
            if os.path.exists(path) and (size := os.path.getsize(path)) > durable:
                kept = self.rng.choice((durable, size, self.rng.randint(durable, size)))
                os.truncate(path, kept)
        if not self._named and os.path.exists(self.journal) and self.rng.random() < 0.5:
            os.unlink(self.journal)  # its directory was never synced
            return False
        return True

    # -- what the writer calls

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        name = os.fspath(path)
        fd = os.open(name, flags, mode)
        self._paths[fd] = name
        if flags & os.O_APPEND:
            self.synced.setdefault(name, 0)
        return fd

    def close(self, fd: int) -> None:
        self._paths.pop(fd, None)
        os.close(fd)

    def fdopen(self, fd: int, *args: Any, **kwargs: Any) -> Any:
        self._paths.pop(fd, None)
        return os.fdopen(fd, *args, **kwargs)

    def write(self, fd: int, content: bytes) -> int:
        ours = self._paths.get(fd, "").endswith(JOURNAL)
        if ours:
            self._point("append:before")
        if self.room is not None:
            if self.reserved and not os.path.exists(self.place / RESERVE):
                self.room, self.reserved = self.room + (256 << 10), False
            fits = min(self.room, len(content))
            self.room -= fits
            if fits < len(content):
                self.failures += 1
                if fits and self.rng.random() < 0.5:
                    return os.write(fd, content[:fits])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = os.write(fd, content)
        if ours:
            self._point("append:written")
        return done

    def fdatasync(self, fd: int) -> None:
        name = self._paths.get(fd, "")
        if self.sync_fails and name.endswith(JOURNAL):
            self.sync_fails -= 1
            self.failures += 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.synced[name] = os.fstat(fd).st_size
        if name.endswith(JOURNAL):
            self._at_sync()
            self._point("append:synced")

    def fsync(self, fd: int) -> None:
        name = self._paths.get(fd, "")
        if name in self.synced:
            self.synced[name] = os.fstat(fd).st_size
        elif name == str(self.place):
            self._named = True

    def ftruncate(self, fd: int, size: int) -> None:
        name = self._paths.get(fd, "")
        os.ftruncate(fd, size)
        if name in self.synced:
            self.synced[name] = min(self.synced[name], size)

    def posix_fallocate(self, fd: int, _: int, size: int) -> None:
        if not self.reserved and self.room is not None:
            if self.room < size:
                self.failures += 1
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.room -= size
        self.reserved = True


class Syscalls:
    """The module `os` as the writer sees it: this disk's calls, and the real ones for the rest."""

    def __init__(self) -> None:
        self.__dict__.update(vars(os))

    def mount(self, disk: Disk) -> None:
        """From now on the writer's files are on this disk."""
        for name in ("open", "close", "fdopen", "write", "fdatasync", "fsync", "ftruncate", "posix_fallocate"):
            self.__dict__[name] = getattr(disk, name)
