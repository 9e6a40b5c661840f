"""Is the journal the one that others have seen? Signed checkpoints within it, anchors outside it (ADR 9).

An anchor is a head that was kept where the journal's writer does not reach; a checkpoint is the tree so far, signed.
Pure: hashes and roots of the journal come from `links`, keys and anchors from the caller.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from inbounds.journal import note
from inbounds.journal.anchor import UNPLACED, Anchor
from inbounds.journal.chain import Record
from inbounds.journal.damage import Damage, Fault
from inbounds.journal.links import Found
from inbounds.journal.note import NoteError, VerifierKey

FAULTS_MAX = 1_000  # of a journal that is wrong throughout: what is beyond says nothing new


class Checkpoints:
    """`take` each journal.checkpoint with the root of the tree before it; the key is the one run.accepted names."""

    def __init__(self) -> None:
        """Before run.accepted there is no key, and no checkpoint either."""
        self.key: VerifierKey | None = None
        self.origin = ""
        self.faults: list[Fault] = []
        self.count = 0
        self.covered = 0  # records under the newest checkpoint that holds
        self.held: dict[int, str] = {}  # size -> note: what holds here need not be checked again in an anchor

    def accepted(self, record: Record) -> None:
        """Take key and run over from the first run.accepted."""
        if self.origin:
            return
        self.origin = f"{note.ORIGIN}{record.data.get('run_id')}"
        try:
            self.key = note.parse_key(str(record.data.get("journal_key", "")))
        except NoteError:
            self.key = None  # the check of the key says so

    def take(self, record: Record, root: bytes) -> None:
        """One checkpoint."""
        self.count += 1
        fault = self._fault(record.data, record.seq, root)
        if fault is None:
            self.covered = record.seq
            self.held[record.seq] = str(record.data["note"])
        elif len(self.faults) < FAULTS_MAX:
            self.faults.append(Fault(fault.kind, f"record {record.seq}: {fault.words}"))

    def _fault(self, said: Mapping[str, Any], size: int, root: bytes) -> Fault | None:
        if said.get("size") != size:
            return Fault(Damage.OTHER_SIZE, f"a checkpoint of {said.get('size')} records")
        if said.get("root") != root.hex():
            return Fault(Damage.OTHER_TREE, "it states another root than these records have")
        return over(str(said.get("note", "")), self.origin, size, root, self.key)


def over(text: str, origin: str, size: int, root: bytes, key: VerifierKey | None) -> Fault | None:
    """What is wrong with a signed note that is to be over exactly this tree of this run; None if nothing is."""
    try:
        found = note.parse_checkpoint(note.parse(text).text)
        if found.origin != origin:
            return Fault(Damage.OTHER_RUN, f"the note is of {found.origin[:120]}")
        if found.size != size:
            return Fault(Damage.OTHER_SIZE, f"the note is over {found.size} records")
        if found.root != root:
            return Fault(Damage.OTHER_TREE, "the note is over other records than these")
        if key is None:
            return Fault(Damage.NO_KEY, "there is no key to check the note with")
        if not any(line.name == key.name and line.key_id == key.key_id for line in note.parse(text).signatures):
            return Fault(Damage.OTHER_KEY, f"the note is not signed by {key.name}")
        note.opened(text, key)
    except NoteError as error:
        return Fault(Damage.BAD_NOTE, str(error)[:200])
    return None


def against(
    anchors: Sequence[Anchor], found: Found, checkpoints: Checkpoints, must_be_seen: int
) -> tuple[list[Fault], str]:
    """What the heads kept elsewhere say of this journal, and in words what they cover if they agree.

    `must_be_seen` is the last record that the writer anchors (-1: none): without an anchor at it or behind it, its loss
    would not have shown.
    """
    if not anchors:
        return [Fault(Damage.UNANCHORED, "no anchor outside the run's directory: a cut end would not show")], ""
    faults: list[Fault] = []
    agreeing = {kept.hash for kept in anchors if found.hashes.get(kept.seq) == kept.hash}
    by_seq: dict[int, Anchor] = {}
    for kept in sorted(anchors, key=lambda one: one.seq):
        other = by_seq.setdefault(kept.seq, kept)
        words = ""
        if kept.seq == UNPLACED:
            kind = Damage.REWRITTEN
            words = "" if kept.hash in found.heads else f"no record has the head that {kept.source} has seen"
        elif other.hash != kept.hash:
            kind, words = Damage.FORK, f"two heads at record {kept.seq}: {kept.source} and {other.source} saw others"
        elif kept.seq >= found.records or (kept.size or 0) > found.records:
            # Cut where somebody has seen the head: an older copy of the whole file, put back.
            kind = Damage.ROLLED_BACK if found.head in agreeing else Damage.TRUNCATED
            words = f"{kept.source} has seen record {kept.seq}; the journal ends at {found.records - 1}"
        elif found.hashes[kept.seq] != kept.hash:
            # Signed behind the place where it differs: the key's holder has signed two journals.
            kind = Damage.FORK if checkpoints.covered > kept.seq else Damage.REWRITTEN
            words = f"record {kept.seq} is not the one that {kept.source} has seen"
        elif wrong := _signed(kept, found, checkpoints):
            kind, words = wrong.kind, f"{kept.source} at record {kept.seq}: {wrong.words}"
        if words and len(faults) < FAULTS_MAX:
            faults.append(Fault(kind, words))
    newest = max(kept.seq for kept in anchors)
    if not faults and newest < must_be_seen:
        words = f"record {must_be_seen} has no anchor, the newest is at {newest}"
        faults.append(Fault(Damage.UNANCHORED, words))
    places = ", ".join(f"{_count(anchors, source)} in {source}" for source in sorted({a.source for a in anchors}))
    return faults, f"{len(anchors)} heads kept elsewhere agree ({places}), the newest at record {newest}"


def _count(anchors: Sequence[Anchor], source: str) -> int:
    return sum(kept.source == source for kept in anchors)


def _signed(kept: Anchor, found: Found, checkpoints: Checkpoints) -> Fault | None:
    """An anchor's own root and note, where its place holds them."""
    if not kept.size:
        return None
    root = found.roots[kept.size]
    if kept.root and kept.root != root.hex():
        return Fault(Damage.BAD_ANCHOR, f"its root is not that of the first {kept.size} records")
    if not kept.note or kept.note == checkpoints.held.get(kept.size):
        return None
    return over(kept.note, checkpoints.origin, kept.size, root, checkpoints.key)
