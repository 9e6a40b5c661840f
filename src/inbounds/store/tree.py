"""What git says about trees, parsed once: listings, differences, line counts (all `-z`, so that any name survives).

Paths are str with undecodable bytes as surrogates (os.fsdecode); showing them is the surface's business. Runs nothing.
"""

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from inbounds.contracts.errors import HostError

GITLINK = 0o160000
RENAME_OR_COPY = ("R", "C")


@dataclass(frozen=True, slots=True)
class Node:
    """One file of a tree; `size` in bytes, -1 for what is no blob (a submodule)."""

    mode: int
    type: str
    blob: str
    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two trees: status A, M, D, R or T (type); modes as git's numbers, 0 where absent."""

    status: str
    path: str
    old_path: str
    old_mode: int
    new_mode: int
    old_blob: str
    new_blob: str


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines added and deleted in one file; None for a binary one."""

    path: str
    added: int | None
    deleted: int | None


def nodes(listing: bytes) -> tuple[Node, ...]:
    """Parse `ls-tree -r -z -l`: "<mode> <type> <id> <size>TAB<path>NUL"."""
    found = []
    for record in listing.split(b"\0")[:-1]:
        head, _, path = record.partition(b"\t")
        mode, kind, blob, size = head.decode("ascii").split()
        found.append(Node(_canonical(int(mode, 8)), kind, blob, os.fsdecode(path), int(size) if size.isdigit() else -1))
    return tuple(found)


def _canonical(mode: int) -> int:
    """Files are 644 or 755 to git whatever a tree says (very old histories have 100664)."""
    return mode if not stat.S_ISREG(mode) else 0o100755 if mode & stat.S_IXUSR else 0o100644


def changes(raw: bytes) -> tuple[Change, ...]:
    """Parse `diff-tree -r -z --raw`: ":<mode> <mode> <id> <id> <status>NUL<path>NUL[<path>NUL]"."""
    fields = iter(raw.split(b"\0")[:-1])
    found = []
    for head in fields:
        if not head.startswith(b":"):
            raise HostError(f"git diff-tree printed {head[:80]!r}", expected="a raw difference", where="git")
        old_mode, new_mode, old_blob, new_blob, status = head[1:].decode("ascii").split()
        path = old_path = os.fsdecode(next(fields))
        if status[0] in RENAME_OR_COPY:
            path = os.fsdecode(next(fields))
        found.append(Change(status[0], path, old_path, int(old_mode, 8), int(new_mode, 8), old_blob, new_blob))
    return tuple(found)


def lines(counts: bytes) -> tuple[Lines, ...]:
    """Parse `diff-tree --numstat -z` without renames: "<added>TAB<deleted>TAB<path>NUL", "-" for binary."""
    found = []
    for record in counts.split(b"\0")[:-1]:
        added, deleted, path = record.split(b"\t", 2)
        binary = added == b"-"
        found.append(Lines(os.fsdecode(path), None if binary else int(added), None if binary else int(deleted)))
    return tuple(found)


def later_sides(changes: Iterable[Change]) -> dict[str, tuple[int, str] | None]:
    """What every path that differs has in the later tree: mode and blob, or nothing."""
    found: dict[str, tuple[int, str] | None] = {}
    for change in changes:
        if change.status in ("D", "R"):
            found.setdefault(change.old_path, None)
        if change.status != "D":
            found[change.path] = (change.new_mode, change.new_blob)
    return found
