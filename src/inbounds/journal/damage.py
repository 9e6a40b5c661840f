"""The names of what can have happened to evidence, and which of them a broken chain shows.

Reads the file again around the break, which is only done when there is one. Names are for people and programs: a word
of `Damage` is what `--json` prints, here and in the second implementation (docs/verify).
"""

import re
from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from inbounds.journal import chain
from inbounds.journal.chain import ChainError, Link
from inbounds.journal.links import CHECKPOINT

AHEAD_MAX = 100_000  # records looked at behind a break to tell "moved" from "gone"

_ORIGIN = re.compile(rb'"note":"[^\\]{1,200}')  # the first line of a checkpoint: of which run it is


class Damage(StrEnum):
    """Kinds of manipulation and of evidence that is not there."""

    GONE = "gone"
    EMPTY = "empty"
    EDITED = "edited"
    REMOVED = "removed"
    INSERTED = "inserted"
    REORDERED = "reordered"
    REPLAYED = "replayed"
    SPLICED = "spliced"
    MALFORMED = "malformed"
    NOT_CANONICAL = "not canonical"
    TIME = "time set back"
    TORN = "torn"
    VERSION = "other format"
    TRUNCATED = "truncated"
    ROLLED_BACK = "rolled back"
    FORK = "fork"
    REWRITTEN = "rewritten"
    UNANCHORED = "anchors removed"
    BAD_ANCHOR = "anchor edited"
    UNSIGNED_TAIL = "checkpoint removed"
    BAD_NOTE = "bad signature"
    OTHER_SIZE = "note of another size"
    OTHER_TREE = "note over another tree"
    OTHER_RUN = "of another run"
    OTHER_KEY = "another key"
    NO_KEY = "no key"
    STOP_ORDER = "stop out of order"
    STOP_INCOMPLETE = "stop incomplete"
    AFTER_STOP = "after the stop"
    NOT_LET_ON = "not re-authorized"
    UNBOUND = "bound to another"
    UNSIGNED = "unsigned"
    STRANGER = "signed by a stranger"
    NO_END = "no end"
    OTHER_END = "another end"
    TWO_RUNS = "two runs"
    OTHER_FILE = "file edited"
    MISSING_OBJECT = "object missing"


class Fault(NamedTuple):
    """One thing that does not hold: its kind, and in words which record or file."""

    kind: Damage
    words: str


_BY_RULE = {
    "edited": Damage.EDITED,
    "not canonical": Damage.NOT_CANONICAL,
    "time": Damage.TIME,
    "torn": Damage.TORN,
}


def of_break(path: Path, error: ChainError, due: int, head: str) -> Damage:
    """What the first break of a chain shows; `due` records before it hold, the last of which has the hash `head`."""
    if error.rule not in ("sequence", "chain"):
        return _BY_RULE.get(error.rule, Damage.MALFORMED)
    here, *behind = islice(_from(path, error.line), AHEAD_MAX)
    if here.seq < due:
        there = next(_from(path, here.seq + 1))
        return Damage.REPLAYED if there.hash == here.hash else Damage.INSERTED
    if here.seq > due:
        return Damage.REORDERED if any(link.prev == head for link in behind) else Damage.REMOVED
    # In its place, but written after another record than the one that stands before it: either that one was edited
    # (and all that follows follows this one), or this one came from elsewhere, alone or with what follows it.
    alone = bool(behind) and behind[0].prev != here.hash
    own = next((_origin(link) for link in _from(path, 1) if link.kind == CHECKPOINT), b"")
    foreign = any(_origin(link) != own for link in behind if link.kind == CHECKPOINT)
    return Damage.SPLICED if alone or foreign else Damage.EDITED


def _origin(link: Link) -> bytes:
    found = _ORIGIN.search(link.body)
    return found[0] if found else b""


def _from(path: Path, line: int) -> Iterator[Link]:
    """Records from a line on (1 is the first), as far as they are records."""
    number = 0
    try:
        for lines in chain.blocks(path):
            for raw in lines:
                number += 1
                if number >= line:
                    yield chain.link(raw, number)
    except ChainError:
        return  # what is no record is not what this looks for
