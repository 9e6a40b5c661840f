"""Which files of a workspace an agent opened, as the kernel tells it (H5): inotify from the host, on each file's inode.

The watches stand before the agent starts, so that no race, rename, link or new directory hides an opening. Says nothing
of files that an agent made itself, nor of the host's own (/usr): the workspace and its interfaces only.
"""

import os
import select
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import inotify_simple

from inbounds.contracts.job import WORK
from inbounds.store.walk import is_dotgit

# A watch costs 6 microseconds of processor and 1 kB in the kernel: 60 ms and 10 MB before an iteration begins.
FILES_MAX = 10_000
ENTRIES_MAX = 50_000  # looked at; an agent can leave directories without end, and the next iteration is to begin
SHARE = 4  # of the user's watches at most one in four: editors and other runs need some
LISTED_MAX = 5_000  # in one record of the journal
LISTED_CHARS_MAX = 1 << 20  # well below a line of the journal (4 MiB), whatever the paths are
# Each file says at most two things (opened once, watch gone), so that 20 ms never fill a queue of 16,384.
PAUSE_S = 0.02
LIMIT = "/proc/sys/fs/inotify/max_user_watches"
# plain numbers: an enumeration's own arithmetic would take longer than the watch
_OPEN, _LOST = int(inotify_simple.flags.OPEN), int(inotify_simple.flags.Q_OVERFLOW)
_ONCE = _OPEN | int(inotify_simple.flags.ONESHOT) | int(inotify_simple.flags.DONT_FOLLOW)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was opened, by repository path, sorted. Not `complete` where some file was not watched: `why` says so.

    A file that was only written to in place counts as well: who may write may read.
    """

    paths: tuple[str, ...]
    watched: int
    why: str = ""

    @property
    def complete(self) -> bool:
        """Whether every file that was there at the beginning and then opened is in the list."""
        return not self.why

    def as_record(self, n: int, show: Callable[[str], str]) -> dict[str, Any]:
        """`files.read` of iteration `n`; `more` counts what the list has no room for."""
        files, room = [], LISTED_CHARS_MAX
        for path in self.paths[:LISTED_MAX]:
            shown = show(path)
            room -= len(shown)
            if room < 0:
                break
            files.append({"path": shown})
        more = len(self.paths) - len(files)
        return {"n": n, "files": files, "more": more, "watched": self.watched, "complete": self.complete,
                "why": self.why}  # fmt: skip


class Reads:
    """Watches of one iteration: made before the agent starts, ended when none of its processes is left."""

    def __init__(self, shown: Sequence[tuple[str, str]], *, files_max: int = FILES_MAX) -> None:
        """Watch what a jail shows of the repository, as (host path, path in the jail), later ones on top.

        What can't be watched is told at the end, never raised.
        """
        self._files: dict[int, list[tuple[str, str, str]]] = {}  # host path, root of it, where the root is shown
        self._opened: set[int] = set()
        self._lost = False
        self._unwatched: dict[str, int] = {}
        self._inotify: inotify_simple.INotify | None = None
        try:
            self._inotify = inotify_simple.INotify()
            most = min(files_max, _watches_max() // SHARE)
            self._stop_reading, self._stop_writing = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            self._missed(f"inotify: {error.strerror}")
            if self._inotify is not None:
                self._inotify.close()
                self._inotify = None
            return
        for source, target in reversed(shown):  # interfaces and protected files first: few, and a thread may be large
            self._watch(self._inotify, source, os.path.relpath(target, WORK), most)
        self._thread = threading.Thread(target=self._listen, args=(self._inotify,), name="inbounds-reads", daemon=True)
        self._thread.start()

    def end(self) -> Seen:
        """Take what has happened until now, and stop watching."""
        if self._inotify is not None:
            os.write(self._stop_writing, b".")
            self._thread.join()
            self._inotify.close()
            os.close(self._stop_reading)
            os.close(self._stop_writing)
            self._inotify = None
        why = [f"not watched: {what}" + f" ({count} times)" * (count > 1) for what, count in self._unwatched.items()]
        why += ["the kernel's queue was full"] if self._lost else []
        opened = [place for watch in self._opened for place in self._files[watch]]
        paths = {os.path.normpath(os.path.join(target, os.path.relpath(at, root))) for at, root, target in opened}
        return Seen(tuple(sorted(paths)), len(self._files), "; ".join(why))

    def _watch(self, inotify: inotify_simple.INotify, root: str, target: str, most: int) -> None:
        for source in _files(root, self._missed):
            if len(self._files) >= most:
                self._unwatched[f"beyond the first {most} files"] = 1
                return
            try:
                watch = inotify.add_watch(source, _ONCE)
            except OSError as error:
                self._missed(f"a file: {error.strerror}")
                continue
            self._files.setdefault(watch, []).append((source, root, target))

    def _missed(self, what: str) -> None:
        self._unwatched[what] = self._unwatched.get(what, 0) + 1

    def _listen(self, inotify: inotify_simple.INotify) -> None:
        waiting = select.poll()
        waiting.register(self._stop_reading, select.POLLIN)
        ended = False
        while not ended:
            ended = bool(waiting.poll(PAUSE_S * 1000))  # in handfuls: waking up for each would slow the agent down
            for event in inotify.read(timeout=0):
                if event.mask & _LOST:
                    self._lost = True
                elif event.mask & _OPEN:
                    self._opened.add(event.wd)


def _watches_max() -> int:
    with open(LIMIT, encoding="ascii") as file:
        return int(file.read())


def _files(root: str, missed: Callable[[str], None]) -> Iterator[str]:
    """The host paths of regular files at or below `root`; no link is followed, and .git is left out."""
    if os.path.isfile(root):
        yield root
        return
    waiting, left = deque([root]), ENTRIES_MAX
    while waiting:
        try:
            with os.scandir(waiting.popleft()) as found:
                for entry in found:
                    left -= 1
                    if left < 0:
                        missed(f"beyond the first {ENTRIES_MAX} entries")
                        return
                    if is_dotgit(entry.name):
                        continue
                    if entry.is_file(follow_symlinks=False):
                        yield entry.path
                    elif entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError as error:  # too deep for a path, or closed to us by its mode
            missed(f"a directory: {error.strerror}")
