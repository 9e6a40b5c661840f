"""The journal's one writer: lock, append, sync, repair after a crash, checkpoints and anchors (H14, E11, ADR 9).

Knows how to make a record durable; not what it means. A record that `append` returned is in the kernel's hands
(survives a SIGKILL of this process); after `sync` it is on disk.
"""

import errno
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from inbounds.contracts.errors import HostError
from inbounds.journal import anchor, append_only, chain
from inbounds.journal.anchor import Anchor
from inbounds.journal.chain import ChainError, Link, Record
from inbounds.journal.links import CHECKPOINT, Links
from inbounds.journal.merkle import Tree
from inbounds.journal.note import ORIGIN, Checkpoint
from inbounds.journal.signing import Signer

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
        "contract.amended",
        "run.recovered",
        "run.reauthorized",
        "run.finished",
    }
)
# A signed checkpoint follows each of them, and their heads are kept outside the run's directory too.
ANCHORED = frozenset(
    {
        "run.accepted",
        "commit.made",
        "stop.decided",
        "promotion.decided",
        "operator.decision",
        "contract.amended",
        "run.recovered",
        "run.reauthorized",
        "run.finished",
    }
)
_CHECKPOINT_MARK = b',"kind":"journal.checkpoint","prev":"'  # in a line's last 200 bytes, which no data reaches
# Disk set aside so that the stop and its reason can be written where nothing else fits any more (E11).
RESERVE_BYTES = 256 << 10
_RESERVED = ("stop.", "effect.failed", "run.finished", "journal.")
# A clock set back by less than this is jitter between our own threads; more is said in a record.
CLOCK_JITTER_MS = 1_000
# Whoever asks whether a run lives holds its lock for a moment: a writer is not refused for that.
LOCK_TRIES, LOCK_WAIT_S = 10, 0.02
# What is left of data that does not fit a line: enough to see what it was.
CUT_ITEMS, CUT_CHARS = 200, 2_000


class _Taken(Links):
    """The verifier's chain, with its tree to go on from."""

    def tree(self) -> Tree:
        """The tree of all records that were taken."""
        return self._tree


class Journal:
    """The writer of one journal file; there is at most one at a time on a host (flock). For one thread only."""

    def __init__(self, path: Path, fd: int, lock_fd: int, anchors: Path | None, signer: Signer | None) -> None:
        """Use `Journal.open`."""
        self.path, self._fd, self._lock_fd, self._anchors, self._signer = path, fd, lock_fd, anchors, signer
        self._seq, self._prev, self._at_ms, self._size = -1, chain.GENESIS, 0, 0
        self._tree, self._checkpoint = Tree(), Checkpoint("", 0, b"")
        self._note = ""
        self._dirty = False
        self._append_only = False
        self.on_anchor: Callable[[Anchor], None] | None = None
        self.unprotected = "append-only was not asked for"

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        at_ms: int | None = None,
        anchors: Path | None = None,
        signer: Signer | None = None,
        on_anchor: Callable[[Anchor], None] | None = None,
        append_only: bool = False,
    ) -> "Journal":
        """Open for writing, creating or taking over; `anchors` defaults to `anchor.beside(path.parent)`.

        With a `signer`, a signed checkpoint follows each record of `ANCHORED`. `on_anchor` is given every anchor once
        it is on disk, to take it to other places; what it raises, the append raises. `append_only` asks for the file
        attribute from here to `close`; `unprotected` says why it is not set, "" if it is.

        HostError: another living process writes it, it does not hold (edited, cut), or it is of another format.
        A holder that died and a torn last line are mended, and a record `journal.recovered` says so.
        """
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock_fd = _lock(path.with_name("journal.lock"), path)
        fd = -1
        try:
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            journal = cls(path, fd, lock_fd, anchors or anchor.beside(path.parent), signer)
            journal.on_anchor = on_anchor
            journal._take_up(at_ms if at_ms is not None else time.time_ns() // 1_000_000)
            if append_only:
                journal._protect()
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
        count, unless what failed came after it (its checkpoint, the sync, the anchor): a replay sees it then.
        ValueError or TypeError for data that is not plain JSON of strings and integers. Where a checkpoint follows,
        the record that is returned is the one asked for, and `head` is the checkpoint.
        """
        if at_ms is None:
            at_ms = time.time_ns() // 1_000_000
        if at_ms < self._at_ms:
            behind, at_ms = self._at_ms - at_ms, self._at_ms
            if behind >= CLOCK_JITTER_MS:
                self._put("journal.clock_set_back", {"ms": behind}, at_ms)
        record = self._put(kind, data, at_ms)
        anchored = kind in ANCHORED
        if anchored:
            self._check_point()
        if sync or (sync is None and kind in DECISIONS):
            self.sync()
        if anchored:
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
        """Write the head outside the run's directory; synced after the journal, so it never claims too much.

        With a signer, a checkpoint is made first if records came after the last one.
        """
        if self._seq < 0:
            return
        self._check_point()
        self.sync()
        kept = Anchor(self._seq, self._prev, "", at_ms=self._at_ms)
        if self._note:
            size, root = self._checkpoint.size, self._checkpoint.root.hex()
            kept = Anchor(self._seq, self._prev, "", size, root, self._note, self._at_ms)
        if self._anchors is not None:
            _append_anchor(self._anchors, kept.line())
        if self.on_anchor is not None:
            self.on_anchor(kept)

    def close(self, *, in_order: bool = True) -> None:
        """Sync, and let the next writer see that this one ended in order; unless it did not."""
        if self._fd < 0:
            return
        try:
            if not in_order:
                return
            self.sync()
            self._reserve_path().unlink(missing_ok=True)
            if self._append_only:
                append_only.release(self._fd)
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
        self._tree.append(bytes.fromhex(record.hash))
        self._size += len(line)
        self._dirty = True
        return record

    def _check_point(self) -> None:
        """Sign the tree of all records so far, unless the last of them is such a checkpoint already."""
        if self._signer is None or self._checkpoint.size == self._seq > 0:
            return
        made = Checkpoint(ORIGIN + self.path.parent.name, self._tree.size, self._tree.root())
        note = self._signer.sign(str(made))
        self._put(CHECKPOINT, {"size": made.size, "root": made.root.hex(), "note": note}, self._at_ms)
        self._checkpoint, self._note = made, note

    def _write(self, line: bytes) -> None:
        try:
            written = os.write(self._fd, line)
        except OSError:
            self._cut_back()
            raise
        if written != len(line):  # the kernel took what fitted; the rest would leave half a record
            self._cut_back()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _cut_back(self) -> None:
        """Take back what a failed write left: the file ends with the last whole record."""
        if os.fstat(self._fd).st_size != self._size:
            with _cuttable(self._fd, self.path):
                os.ftruncate(self._fd, self._size)

    def _protect(self) -> None:
        self.unprotected = append_only.protect(self._fd)
        self._append_only = not self.unprotected

    def _take_up(self, at_ms: int) -> None:
        _check_format(self.path)
        torn = self._keep_torn_tail_aside(at_ms)
        try:
            self._read()
        except ChainError as error:
            raise HostError(
                f"the journal does not hold: {error}",
                expected="an unbroken chain of records",
                fix=f"inbounds verify {self.path.parent.name}",
                where=str(self.path),
            ) from None
        self._size = os.fstat(self._fd).st_size
        self._check_anchors()
        holder, since = _holder(self._lock_fd)
        os.ftruncate(self._lock_fd, 0)
        os.pwrite(self._lock_fd, json.dumps({"pid": os.getpid(), "at_ms": at_ms}).encode(), 0)
        self._reserve()
        # A holder that died may have left the file closed to repair; from here on it is this writer's to protect.
        append_only.release(self._fd)
        if self._seq < 0:
            self.append("journal.opened", {"version": chain.FORMAT}, at_ms)
        _sync_directory(self.path.parent)  # each time: whoever made the file may have died before the name was on disk
        if holder or torn:
            by = {"holder_pid": holder, "holder_at_ms": since, "pid": os.getpid(), "torn": torn}
            self.append("journal.recovered", by, at_ms)

    def _read(self) -> None:
        """Follow the chain to its end and grow the tree; a checkpoint that is not of this tree breaks the chain.

        By blocks, and without a look at what the records say: that is the verifier's.
        """
        taken = _Taken()
        last = b""
        for block in chain.blocks(self.path):
            taken.take(block)
            for line in block:
                if _CHECKPOINT_MARK in line[-200:]:
                    self._recall(chain.link(line), taken)
            last = block[-1]
        if last:
            found = chain.link(last)
            self._seq, self._prev, self._at_ms = found.seq, found.hash, found.at_ms
        self._tree = taken.tree()

    def _recall(self, link: Link, taken: Links) -> None:
        data = link.record().data
        made = Checkpoint("", link.seq, taken.root(link.seq))
        if (data.get("size"), data.get("root")) != (made.size, made.root.hex()):
            raise ChainError("checkpoint", f"record {link.seq} is of another tree", link.seq + 1)
        self._checkpoint, self._note = made, str(data.get("note", ""))

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
        with _cuttable(self._fd, self.path):
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
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            time.sleep(LOCK_WAIT_S)
    else:
        holder, _ = _holder(fd)
        os.close(fd)
        raise HostError(
            f"process {holder or 'unknown'} is writing this journal",
            expected="one writer at a time",
            fix=f"inbounds stop {journal.parent.name}",
            where=str(journal),
        ) from None
    return fd


def _holder(lock_fd: int) -> tuple[int, int]:
    """Pid that the lock file names and since when; 0 if its writer closed in order (or died before it wrote that)."""
    try:
        value = json.loads(os.pread(lock_fd, 256, 0) or b"{}")
        return int(value.get("pid", 0)), int(value.get("at_ms", 0))
    except (ValueError, TypeError, AttributeError):
        return -1, 0  # there was a holder, and its name is torn: still a death to report


def _check_format(path: Path) -> None:
    found = chain.stated_format(path)
    if found in (None, chain.FORMAT):
        return
    raise HostError(
        f"a journal of format {found}",
        expected=f"format {chain.FORMAT}",
        fix="pipx upgrade inbounds" if found > chain.FORMAT else f"inbounds discard {path.parent.name}",
        where=str(path),
    )


@contextmanager
def _cuttable(fd: int, path: Path) -> Iterator[None]:
    """The append-only attribute lifted, and set again: it refuses the repair as it refuses everything else."""
    was = append_only.is_set(fd)
    if was and (why := append_only.release(fd)):
        raise HostError(
            f"the append-only attribute cannot be lifted to repair the end: {why}",
            expected="the account that set it (root)",
            fix=f"sudo chattr -a {path}",
            where=str(path),
        )
    try:
        yield
    finally:
        if was:
            append_only.protect(fd)


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


def _append_anchor(path: Path, line: bytes) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":  # a torn one (power loss) must not swallow the next
                content = os.pread(fd, anchor.ANCHOR_BYTES_MAX, 0)
                os.ftruncate(fd, content.rfind(b"\n") + 1)
            if os.write(fd, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise _disk(path, error) from error


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
