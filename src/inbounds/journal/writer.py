"""The journal's one writer: lock, append, sync, repair after a crash, anchors (H14, E11).

Knows how to make a record durable; not what it means. A record that `append` returned is in the kernel's hands
(survives a SIGKILL of this process); after `sync` it is on disk.
"""

import errno
import fcntl
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any, Self

from inbounds.contracts.errors import HostError
from inbounds.journal import anchor, chain
from inbounds.journal.chain import ChainError, Record

# On disk before `append` returns: what a recovery or a reviewer must never lose. The rest is synced by the group.
DECISIONS = frozenset(
    {
        "journal.opened",
        "journal.recovered",
        "run.accepted",
        "preflight.finished",
        "commit.made",
        "stop.decided",
        "stop.step",
        "promotion.decided",
        "operator.decision",
        "run.finished",
    }
)
# Their heads are kept outside the run's directory too.
ANCHORED = frozenset(
    {"run.accepted", "commit.made", "stop.decided", "promotion.decided", "operator.decision", "run.finished"}
)
# Disk set aside so that the stop and its reason can be written where nothing else fits any more (E11).
RESERVE_BYTES = 256 << 10
_RESERVED = ("stop.", "run.finished", "journal.")
# A clock set back by less than this is jitter between our own threads; more is said in a record.
CLOCK_JITTER_MS = 1_000
# What is left of data that does not fit a line: enough to see what it was.
CUT_ITEMS, CUT_CHARS = 200, 2_000


class Journal:
    """The writer of one journal file; there is at most one at a time on a host (flock). For one thread only."""

    def __init__(self, path: Path, fd: int, lock_fd: int, anchors: Path | None) -> None:
        """Use `Journal.open`."""
        self.path, self._fd, self._lock_fd, self._anchors = path, fd, lock_fd, anchors
        self._seq, self._prev, self._at_ms, self._size = -1, chain.GENESIS, 0, 0
        self._dirty = False

    @classmethod
    def open(cls, path: Path, *, at_ms: int | None = None, anchors: Path | None = None) -> "Journal":
        """Open for writing, creating or taking over; `anchors` defaults to `anchor.beside(path.parent)`.

        HostError: another living process writes it, it does not hold (edited, cut), or it is of a newer format.
        A holder that died and a torn last line are mended, and a record `journal.recovered` says so.
        """
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock_fd = _lock(path.with_name("journal.lock"), path)
        fd = -1
        try:
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            journal = cls(path, fd, lock_fd, anchors or anchor.beside(path.parent))
            journal._take_up(at_ms if at_ms is not None else time.time_ns() // 1_000_000)
        except BaseException:
            if fd >= 0:
                os.close(fd)
            os.close(lock_fd)
            raise
        return journal

    @property
    def head(self) -> tuple[int, str]:
        """The last record's seq and hash; what an outside witness (commit trailer, ledger) keeps."""
        return self._seq, self._prev

    def append(self, kind: str, data: dict[str, Any], at_ms: int | None = None, *, sync: bool | None = None) -> Record:
        """Add one record; `sync` None means: on disk for `DECISIONS`, with the group otherwise.

        HostError when the disk takes no more: the file then ends with the last whole record, and this one does not
        count. ValueError or TypeError for data that is not plain JSON of strings and integers.
        """
        if at_ms is None:
            at_ms = time.time_ns() // 1_000_000
        if at_ms < self._at_ms:
            behind, at_ms = self._at_ms - at_ms, self._at_ms
            if behind >= CLOCK_JITTER_MS:
                self._put("journal.clock_set_back", {"ms": behind}, at_ms)
        record = self._put(kind, data, at_ms)
        if sync or (sync is None and kind in DECISIONS):
            self.sync()
        if kind in ANCHORED:
            self.keep_anchor()
        return record

    def sync(self) -> None:
        """Have everything appended on disk; HostError if the disk says no."""
        if not self._dirty:
            return
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise _disk(self.path, error) from error
        self._dirty = False

    def keep_anchor(self) -> None:
        """Write the head outside the run's directory; synced after the journal, so it never claims too much."""
        if self._anchors is None or self._seq < 0:
            return
        self.sync()
        line = json.dumps({"at_ms": self._at_ms, "hash": self._prev, "seq": self._seq}, separators=(",", ":"))
        try:
            self._anchors.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._anchors, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                _mend_end_of_line(self._anchors, fd)
                os.write(fd, line.encode() + b"\n")
                os.fdatasync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise _disk(self._anchors, error) from error

    def close(self) -> None:
        """Sync, and let the next writer see that this one ended in order."""
        if self._fd < 0:
            return
        try:
            self.sync()
            self._reserve_path().unlink(missing_ok=True)
            os.ftruncate(self._lock_fd, 0)
        finally:
            os.close(self._fd)
            os.close(self._lock_fd)
            self._fd = self._lock_fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _put(self, kind: str, data: dict[str, Any], at_ms: int) -> Record:
        record, line = chain.encode(self._seq + 1, at_ms, kind, data, self._prev)
        if len(line) > chain.LINE_BYTES_MAX:
            record, line = chain.encode(self._seq + 1, at_ms, kind, _cut(data), self._prev)
        try:
            self._write(line)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not kind.startswith(_RESERVED):
                raise _disk(self.path, error) from error
            self._reserve_path().unlink(missing_ok=True)
            try:
                self._write(line)
            except OSError as again:
                raise _disk(self.path, again) from again
        self._seq, self._prev, self._at_ms = record.seq, record.hash, at_ms
        self._size += len(line)
        self._dirty = True
        return record

    def _write(self, line: bytes) -> None:
        try:
            written = os.write(self._fd, line)
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        if written != len(line):  # the kernel took what fitted; the rest would leave half a record
            os.ftruncate(self._fd, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _take_up(self, at_ms: int) -> None:
        torn = self._keep_torn_tail_aside(at_ms)
        last: Record | None = None
        version = chain.FORMAT
        try:
            for record in chain.linked(chain.records(self.path)):
                if last is None:
                    version = _version(record, self.path)
                last = record
        except ChainError as error:
            raise HostError(
                f"the journal does not hold: {error}",
                expected="an unbroken chain of records",
                fix=f"inbounds verify {self.path.parent.name}",
                where=str(self.path),
            ) from None
        self._size = os.fstat(self._fd).st_size
        if last is not None:
            self._seq, self._prev, self._at_ms = last.seq, last.hash, last.at_ms
        self._check_anchors()
        holder = _holder(self._lock_fd)
        os.ftruncate(self._lock_fd, 0)
        os.pwrite(self._lock_fd, json.dumps({"pid": os.getpid(), "at_ms": at_ms}).encode(), 0)
        self._reserve()
        if last is None:
            self.append("journal.opened", {"version": chain.FORMAT}, at_ms)
            _sync_directory(self.path.parent)
        if holder or torn:
            self.append("journal.recovered", {"holder_pid": holder, "torn": torn}, at_ms)
        if version < chain.FORMAT:
            self.append("journal.migrated", {"from": version, "to": chain.FORMAT}, at_ms, sync=True)

    def _keep_torn_tail_aside(self, at_ms: int) -> dict[str, Any]:
        """Cut an unfinished last line off (power loss), keep its bytes in a file of their own; {} if there is none."""
        size = os.fstat(self._fd).st_size
        start, tail = size, b""
        while start > 0 and b"\n" not in tail:
            step = min(64 << 10, start)
            start -= step
            tail = os.pread(self._fd, step, start) + tail
            if len(tail) > 2 * chain.LINE_BYTES_MAX:
                raise HostError("the journal ends in something that is no line", where=str(self.path))
        torn = tail[tail.rfind(b"\n") + 1 :]
        if not torn:
            return {}
        aside = self.path.with_name(f"journal.torn-{size}-{at_ms}")
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(torn)
            file.flush()
            os.fsync(fd)
        os.ftruncate(self._fd, size - len(torn))
        os.fsync(self._fd)
        return {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest(), "aside": aside.name}

    def _check_anchors(self) -> None:
        """Refuse to go on from a file that lost records which an anchor has seen."""
        if self._anchors is None:
            return
        try:
            known = anchor.read(self._anchors)
        except ValueError as error:
            raise HostError(str(error), expected="anchors of this run") from None
        if known and known[-1].seq > self._seq:
            raise HostError(
                f"the journal ends at record {self._seq}, an anchor has seen {known[-1].seq}",
                expected="no record missing at the end",
                fix=f"inbounds verify {self.path.parent.name}",
                where=str(self.path),
            )

    def _reserve_path(self) -> Path:
        return self.path.with_name("journal.reserve")

    def _reserve(self) -> None:
        try:
            fd = os.open(self._reserve_path(), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.posix_fallocate(fd, 0, RESERVE_BYTES)
            finally:
                os.close(fd)
        except OSError as error:
            raise _disk(self._reserve_path(), error) from error


def _lock(path: Path, journal: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = _holder(fd)
        os.close(fd)
        raise HostError(
            f"process {holder or 'unknown'} is writing this journal",
            expected="one writer at a time",
            fix=f"inbounds stop {journal.parent.name}",
            where=str(journal),
        ) from None
    return fd


def _holder(lock_fd: int) -> int:
    """Pid that the lock file names, 0 if its writer closed in order (or died before it wrote its name)."""
    try:
        value = json.loads(os.pread(lock_fd, 256, 0) or b"{}")
        return int(value.get("pid", 0))
    except (ValueError, TypeError, AttributeError):
        return -1  # there was a holder, and its name is torn: still a death to report


def _version(first: Record, path: Path) -> int:
    version = first.data.get("version")
    if first.kind != "journal.opened" or type(version) is not int:
        raise HostError("the first record is no journal.opened with a version", where=str(path))
    if version > chain.FORMAT:
        raise HostError(
            f"a journal of format {version}",
            expected=f"format {chain.FORMAT} or older",
            fix="pipx upgrade inbounds",
            where=str(path),
        )
    return version


def _cut(data: dict[str, Any]) -> dict[str, Any]:
    cut: dict[str, int] = {}
    kept: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, str) and len(value) > CUT_CHARS:
            kept[key], cut[key] = value[:CUT_CHARS], len(value)
        elif isinstance(value, (list, tuple, dict)):
            first: Any = value if isinstance(value, dict) else list(value[:CUT_ITEMS])
            fits = len(chain.encode(0, 0, "journal.cut", {"value": first}, chain.GENESIS)[1]) <= CUT_CHARS * CUT_ITEMS
            kept[key] = first if fits else ({} if isinstance(value, dict) else [])
            if len(kept[key]) < len(value):
                cut[key] = len(value)
        else:
            kept[key] = value
    return {**kept, "cut": cut}


def _mend_end_of_line(path: Path, fd: int) -> None:
    """A torn anchor (power loss) must not swallow the next one: cut it off."""
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        os.ftruncate(fd, content.rfind(b"\n") + 1)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _disk(path: Path, error: OSError) -> HostError:
    return HostError(
        f"cannot write: {error.strerror or error}",
        expected="room on the disk that holds the state directory",
        fix=f"df -h {path.parent}",
        where=str(path),
    )
