"""A run's workspace as it was at a record of its journal: the tree that was stated then, out of the trusted store.

Nothing is executed and no link is followed: files are written by descriptor, then hashed again and compared with the
tree's own id. What comes out is an agent's work, as untrusted as ever. Writes nothing but the directory it is given.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inbounds.contracts.errors import HostError, InboundsError, OperatorError, RefusedError
from inbounds.journal import chain
from inbounds.journal.chain import Record
from inbounds.run.home import Home
from inbounds.run.launch import JOURNAL
from inbounds.store import git
from inbounds.store.blobs import blob_id
from inbounds.store.descent import delete_tree
from inbounds.store.store import OBJECT_ID, Store
from inbounds.store.walk import EXECUTABLE, FILE, LINK

DIRECTORY_MODE = 0o40000
OTHERS_MAX = 5  # records named where one's tree is gone
_SET_BACK = re.compile(r"the workspace is at tree ([0-9a-f]{40}|[0-9a-f]{64})")
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A record that states what the workspace held; `complete` False where the snapshot itself said that it lacks."""

    seq: int
    kind: str
    tree: str
    n: int
    complete: bool = True
    why: str = ""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """Where the files are, and which record and tree they are of."""

    run_id: str
    at: int
    checkpoint: Checkpoint
    directory: str
    files: int
    bytes: int

    def facts(self) -> dict[str, Any]:
        """Plain data for --json."""
        found = self.checkpoint
        return {
            "run_id": self.run_id,
            "at": self.at,
            "record": {"seq": found.seq, "kind": found.kind, "n": found.n},
            "tree": found.tree,
            "complete": found.complete,
            "why": found.why,
            "directory": self.directory,
            "files": self.files,
            "bytes": self.bytes,
        }


def stated(record: Record) -> Checkpoint | None:
    """The tree that a record states for the workspace, if it states one."""
    data = record.data
    tree, why = "", ""
    match record.kind:
        case "run.accepted":
            tree = str(data.get("base_tree"))
        case "snapshot.taken" | "snapshot.kept" | "commit.made":
            tree, why = str(data.get("tree")), str(data.get("why", ""))
        case "stop.step" if data.get("step") == "reverted" and data.get("ok") is True:
            found = _SET_BACK.fullmatch(str(data.get("detail")))
            tree = found[1] if found else ""
        case _:
            return None
    if not OBJECT_ID.fullmatch(tree):
        return None
    n = data.get("n")
    complete = data.get("complete") is not False
    return Checkpoint(record.seq, record.kind, tree, n if type(n) is int else 0, complete, "" if complete else why)


def rebuild(home: Home, run_id: str, at: int, to: Path | None = None) -> Rebuilt:
    """Write the workspace as of record `at` to `to` (new or empty; RUN-at-SEQ in this directory by default).

    OperatorError for a record or directory that cannot be meant, RefusedError where the store no longer holds the tree.
    The files get git's modes (644, 755, links) and belong to the caller; the directory is 0700.
    """
    found: list[Checkpoint] = []
    place, last = "", -1
    for record in _records(home.run(run_id)):
        last = record.seq
        if record.kind == "run.accepted" and not place:
            place = str(record.data.get("store"))
        checkpoint = stated(record)
        if checkpoint:
            found.append(checkpoint)
    if not 0 <= at <= last:
        raise OperatorError(
            f"{run_id} has no record {at}", expected=f"0 to {last}", fix=f"inbounds logs {run_id} --verbose"
        )
    before = [checkpoint for checkpoint in found if checkpoint.seq <= at]
    if not before:
        raise OperatorError(
            f"no record up to {at} states a tree: the run had not begun",
            expected=f"{found[0].seq} or later" if found else "a run that was accepted",
            fix=f"inbounds logs {run_id}",
        )
    chosen = before[-1]
    store = Store.open(place)
    if not _holds(store, chosen.tree):
        raise _gone(store, run_id, chosen, found)
    directory = to if to is not None else Path.cwd() / f"{run_id}-at-{at}"
    files, size = _write(store, chosen.tree, directory)
    return Rebuilt(run_id, at, chosen, str(directory), files, size)


def _records(run_dir: Path) -> Iterator[Record]:
    """The journal's records; nothing is rebuilt from one that does not hold, an unfinished last line aside."""
    try:
        yield from chain.linked(chain.records(run_dir / JOURNAL))
    except chain.ChainError as broken:
        if broken.rule != "torn":
            raise RefusedError(
                f"the journal does not hold: {broken}",
                where=str(run_dir / JOURNAL),
                expected="an unbroken chain of records",
                fix=f"inbounds verify {run_dir.name}",
            ) from None
    except FileNotFoundError:
        raise OperatorError(
            "the run has no journal yet", where=str(run_dir), fix=f"inbounds status {run_dir.name}"
        ) from None


def _holds(store: Store, tree: str) -> bool:
    """Whether the tree and everything below it is there."""
    args = ["rev-list", "--objects", "--quiet", "--end-of-options", tree]
    return git.status(args, git_dir=store.path, ok=frozenset({0, 1, 128}))[0] == 0


def _gone(store: Store, run_id: str, chosen: Checkpoint, found: Iterable[Checkpoint]) -> RefusedError:
    """The refusal, with the nearest records whose trees are still there."""
    others = sorted((c for c in found if c.tree != chosen.tree), key=lambda c: abs(c.seq - chosen.seq))
    there: dict[str, int] = {}
    for other in others[: 4 * OTHERS_MAX]:  # each look costs a git process
        if len(there) < OTHERS_MAX and other.tree not in there and _holds(store, other.tree):
            there[other.tree] = other.seq
    seqs = list(there.values())
    return RefusedError(
        f"the store no longer holds tree {chosen.tree[:12]} of record {chosen.seq}: it was discarded",
        where=store.path,
        expected=f"a record whose tree is kept: {', '.join(map(str, seqs))}"
        if seqs
        else "a run that was not discarded",
        fix=f"inbounds logs {run_id} --at {seqs[0]}" if seqs else f"inbounds review {run_id}",
    )


def _write(store: Store, tree: str, directory: Path) -> tuple[int, int]:
    """Export and hash again; a directory that was made or filled here goes away again if anything fails."""
    made = _prepare(directory)
    try:
        written = store.export(tree, str(directory))
        again = tree_id(store, tree, directory)
        if again != tree:
            raise HostError(
                f"the files hash to {again[:12]}, the journal states {tree[:12]}",
                where=store.path,
                expected="objects that are what their ids say",
                fix=f"git --git-dir={store.path} fsck",
            )
    except (InboundsError, OSError) as fault:
        _clear(directory, whole=made)
        if isinstance(fault, OSError):
            raise HostError(f"the tree cannot be written: {fault.strerror}", where=str(directory)) from fault
        raise
    return len(written), sum(entry.size for entry, _ in written)


def _prepare(directory: Path) -> bool:
    """Make the directory, or accept an empty one; whether it was made."""
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        if directory.is_symlink() or not directory.is_dir() or any(directory.iterdir()):
            raise OperatorError(
                "there is something already", where=str(directory), expected="a new or empty directory", fix="--to DIR"
            ) from None
        return False
    except OSError as error:
        raise OperatorError(
            f"it cannot be made: {error.strerror}", where=str(directory), expected="a directory that can be made there"
        ) from error
    return True


def _clear(directory: Path, *, whole: bool) -> None:
    if whole:
        delete_tree(str(directory))
        return
    for name in os.listdir(directory):
        path = directory / name
        if path.is_dir() and not path.is_symlink():
            delete_tree(str(path))
        else:
            path.unlink()


def tree_id(store: Store, tree: str, directory: Path) -> str:
    """The id of the tree that the files on disk make, computed here and not by git.

    The store's listing names what to look at, and how very old trees write modes; everything else is the disk's.
    """
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    below: dict[bytes, list[tuple[bytes, int, str]]] = {b"": []}
    try:
        for path, listed in _listed(store, tree):
            mode, blob = _seen(root, path, store.object_format)
            parent, _, name = path.rpartition(b"/")
            below.setdefault(parent, []).append((name, _as_listed(listed, mode), blob))
    finally:
        os.close(root)
    for path in list(below):
        above = path
        while above:  # directories that hold directories alone
            above = above.rpartition(b"/")[0]
            below.setdefault(above, [])
    for path in sorted(below, key=lambda path: path.count(b"/"), reverse=True):
        if path:
            parent, _, name = path.rpartition(b"/")
            below[parent].append((name, DIRECTORY_MODE, _hashed(below.pop(path), store.object_format)))
    return _hashed(below[b""], store.object_format)


def _listed(store: Store, tree: str) -> Iterator[tuple[bytes, int]]:
    """Every path of a tree with the mode that stands in its objects; `git ls-tree` shows only the modes of today."""
    id_bytes = len(store.null_id) // 2
    level = [(b"", tree)]
    while level:
        asked = b"".join(name.encode() + b"\n" for _, name in level)
        answer = git.run(["cat-file", "--batch"], git_dir=store.path, stdin=asked)
        below, at = [], 0
        for above, name in level:
            start = answer.index(b"\n", at) + 1
            head = answer[at:start].split()
            if head[:2] != [name.encode(), b"tree"]:
                raise HostError(f"{name} cannot be read from the store", expected="a tree", where=store.path)
            at, end = start, start + int(head[2])
            while at < end:
                mode, _, entry = answer[at : answer.index(b"\0", at)].partition(b" ")
                at += len(mode) + 1 + len(entry) + 1 + id_bytes
                if int(mode, 8) == DIRECTORY_MODE:
                    below.append((above + entry + b"/", answer[at - id_bytes : at].hex()))
                else:
                    yield above + entry, int(mode, 8)
            at = end + 1
        level = below


def _seen(root: int, path: bytes, object_format: str) -> tuple[int, str]:
    """Git's mode and the blob id of what stands at a path; no link is followed at its end."""
    info = os.stat(path, dir_fd=root, follow_symlinks=False)
    if stat.S_ISLNK(info.st_mode):
        return LINK, blob_id(os.readlink(path, dir_fd=root), object_format)
    with os.fdopen(os.open(path, _OPEN, dir_fd=root), "rb") as file:
        return EXECUTABLE if info.st_mode & stat.S_IXUSR else FILE, blob_id(file.read(), object_format)


def _as_listed(listed: int, found: int) -> int:
    """The tree's own way to write a mode where it means what was found: 100664 is a file that is not executable."""
    same = stat.S_IFMT(listed) == stat.S_IFMT(found) and bool(listed & stat.S_IXUSR) == bool(found & stat.S_IXUSR)
    return listed if same or found == LINK == listed else found


def _hashed(entries: list[tuple[bytes, int, str]], object_format: str) -> str:
    """The id of one tree object: its entries in git's order, in which a directory's name ends with a slash."""
    ordered = sorted(entries, key=lambda entry: entry[0] + (b"/" if entry[1] == DIRECTORY_MODE else b""))
    content = b"".join(b"%o %b\0%b" % (mode, name, bytes.fromhex(blob)) for name, mode, blob in ordered)
    digest = hashlib.new(object_format, b"tree %d\0" % len(content), usedforsecurity=False)
    digest.update(content)
    return digest.hexdigest()
