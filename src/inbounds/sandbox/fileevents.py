"""Which files a slot's processes read, wrote and executed, as the host service tells it from fanotify (H5, H6).

The stream is read all the time, by a thread of its own, and asked for now and then: what was touched since the last
time. A gap is never silent. Knows nothing of iterations; paths are those below the volume's root.
"""

import os
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from inbounds.contracts.errors import HostError
from inbounds.host import events

CHUNK = 1 << 18
PATHS_MAX = 100_000  # of each kind between two looks, beyond which it is incomplete: 20 MB of names
# The service tells events as it gets to them. What is quiet so long has nothing more to tell of what has ended.
QUIET_SECONDS, QUIET_SECONDS_MAX = 0.1, 3.0
OVERFLOW = "the kernel's queue of file events ran over"
WROTE = events.WRITTEN | events.CLOSED | events.CREATED | events.DELETED | events.MOVED_FROM | events.MOVED_TO


@dataclass(slots=True)
class Touched:
    """Paths below the volume, by what was done to them. Not `complete` where `why` says what was lost."""

    read: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    executed: set[str] = field(default_factory=set)
    why: str = ""

    @property
    def complete(self) -> bool:
        """Whether everything that happened is in it."""
        return not self.why

    def below(self, *roots: str) -> "Touched":
        """What lies below one of these directories, by the path from there; what was executed stays as it is."""

        def cut(paths: set[str]) -> set[str]:
            return {path[len(root) + 1 :] for root in roots for path in paths if path.startswith(f"{root}/")}

        return Touched(cut(self.read), cut(self.written), set(self.executed), self.why)


class FileEvents:
    """The reader of one slot's stream; thread-safe. `close` when the slot has been given back."""

    def __init__(self, stream: int, settle: Callable[[], object] | None = None) -> None:
        """Own the pipe's reading end and begin. `settle` has the other end tell all that has happened; HostError."""
        self._stream, self._settle = stream, settle
        self._gap: Callable[[str], None] = lambda _: None
        self._lock = threading.Lock()
        self._since = Touched()
        self._told_at = time.monotonic()
        self._lost = ""  # what can't come back: it holds for all that is asked for later, too
        self._ended = self._broken = False
        self._thread = threading.Thread(target=self._run, name="inbounds-file-events", daemon=True)
        self._thread.start()

    def on_gap(self, tell: Callable[[str], None]) -> None:
        """Have `tell` hear at once, from the reading thread, that events were lost; it must not call back."""
        self._gap = tell

    @property
    def has_executed(self) -> bool:
        """Whether `take` has executed files to tell, without waiting for more."""
        with self._lock:
            return bool(self._since.executed)

    def take(self) -> Touched:
        """What was touched since the last call: told when asked for, and the stream then quiet for a moment (bounded).

        A service that is not given the processor is quiet, too: quiet alone would call complete what is to come.
        """
        unsettled = self._settled()
        until = time.monotonic() + QUIET_SECONDS_MAX
        began = time.monotonic()
        while time.monotonic() < until and self._thread.is_alive():
            with self._lock:
                quiet = time.monotonic() - max(self._told_at, began)
            if quiet >= QUIET_SECONDS:
                break
            time.sleep(QUIET_SECONDS / 4)
        with self._lock:
            found, self._since = self._since, Touched(why=self._lost)
        found.why = found.why or unsettled
        return found

    def _settled(self) -> str:
        """Have everything told; why not, or ""."""
        try:
            if self._settle is not None:
                self._settle()
        except HostError as error:
            return f"the host service could not be asked for all file events: {error.found}"
        return ""

    def close(self) -> str:
        """Wait for the stream's end; "" if it was told whole, else why not."""
        self._thread.join(QUIET_SECONDS_MAX)
        if self._thread.is_alive():
            return "the stream of file events did not end"
        return self._lost or ("" if self._ended else "the stream of file events ended in the middle")

    def _run(self) -> None:
        waiting = select.poll()
        waiting.register(self._stream, select.POLLIN)
        rest = b""
        try:
            while True:
                waiting.poll()
                part = os.read(self._stream, CHUNK)
                if not part:
                    break
                found, rest = events.unpack(rest + part)
                with self._lock:
                    self._told_at = time.monotonic()
                    for record in found:
                        self._note(record)
        except OSError as error:
            self._lose(f"the stream of file events broke: {error.strerror}")
        finally:
            if not self._ended:
                self._lose("the stream of file events ended in the middle")
            os.close(self._stream)

    def _lose(self, why: str) -> None:
        with self._lock:
            self._lost = self._since.why = self._lost or why
        self._gap(why)

    def _note(self, record: events.Record) -> None:
        """One record; the lock is held."""
        if record.what & events.END:
            self._ended = True
            return
        if record.what & events.INCOMPLETE:
            self._since.why = OVERFLOW
            self._gap(OVERFLOW)
            return
        if record.what & events.DIRECTORY:
            return  # which entries of it were made or removed is told of each
        path = os.fsdecode(record.path)
        if record.what & events.PARTIAL:
            self._since.why = self._since.why or "a file's directory was gone before its path was known"
            return
        for bits, paths in (
            (events.OPENED | events.READ, self._since.read),  # what is mapped is read without a word
            (WROTE, self._since.written),
            (events.EXECUTED, self._since.executed),
        ):
            if record.what & bits:
                if len(paths) < PATHS_MAX or path in paths:
                    paths.add(path)
                else:
                    self._since.why = f"more than {PATHS_MAX} files"
