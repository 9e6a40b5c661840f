"""A visit's own directory below the state directory: locked while the visit lives, with its slot's number in it.

What a killed visit left, its slot of the host service included, goes when the next one begins.
"""

import contextlib
import fcntl
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from inbounds.contracts.errors import HostError
from inbounds.run.housing import discard
from inbounds.run.slotfile import forget, remember
from inbounds.store.descent import delete_tree

PREFIX = "inbounds-shell-"
UNLOCKED = "inbounds-new-shell-"  # its name until its lock is held: no sweeper may be faster
LOCK = "lock"
SWEPT_MAX = 20  # left-overs that one visit clears away; each may be a checkout


@dataclass(frozen=True, slots=True)
class Scratch:
    """The directory, and the descriptor that holds its lock."""

    path: Path
    lock: int

    @classmethod
    def make(cls, place: Path) -> "Scratch":
        """A new one below `place`; HostError where that can't be written to."""
        sweep(place)
        try:
            made = Path(tempfile.mkdtemp(prefix=UNLOCKED, dir=place))
            lock = hold(made)
            return cls(made.rename(place / made.name.replace(UNLOCKED, PREFIX)), lock)
        except OSError as error:
            raise HostError(f"a visit has no place: {error.strerror}", where=str(place)) from error

    def has_slot(self, number: int) -> None:
        """Write down which slot is this visit's, so that it is given back whatever happens."""
        remember(self.path, number)

    def slot_is_gone(self) -> None:
        """The slot was given back."""
        forget(self.path)

    def remove(self) -> None:
        """Delete all of it."""
        delete_tree(str(self.path))
        os.close(self.lock)


def hold(path: Path) -> int:
    """Lock a visit's directory: a descriptor that holds it until it is closed, by the process's end at the latest."""
    lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def sweep(place: Path) -> None:
    """Delete what visits left that were killed: theirs is a lock that nobody holds."""
    names = sorted(name for name in os.listdir(place) if name.startswith(PREFIX))
    for name in names[:SWEPT_MAX]:
        path = place / name
        try:
            lock = os.open(path / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # it ends just now
        # a slot that can't be given back now (its service is gone) keeps its directory, for the next visit
        with contextlib.suppress(HostError, BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            discard(path)
            delete_tree(str(path))
        os.close(lock)
