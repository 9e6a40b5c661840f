"""Heads of a journal kept outside the run's directory, so that a truncated or rewritten file shows (ARCHITECTURE 9).

Reads only; the writer appends. An anchor protects against whatever can reach the run's directory but not this one;
against the operator's own uid only a witness elsewhere (commit trailers, another machine) helps.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from inbounds.contracts.units import INTEGER_MAX
from inbounds.journal.note import NOTE_BYTES_MAX

_HASH = re.compile(r"[0-9a-f]{64}")
# A handful of anchors per iteration and 700 bytes each: this is far beyond any run.
ANCHOR_BYTES_MAX = 16 << 20

# The seq of a head that was kept without its place: a promotion's trailer names the hash alone.
UNPLACED = -1


@dataclass(frozen=True, slots=True)
class Anchor:
    """The journal had `hash` at `seq`; `source` says where that was kept.

    With a checkpoint: the first `size` records have the Merkle root `root` (hex), and `note` is the signed note that
    says so. Without one, `size` is 0 and both are empty. `at_ms` is the record's time, 0 where the place holds none.
    """

    seq: int
    hash: str
    source: str
    size: int = 0
    root: str = ""
    note: str = ""
    at_ms: int = 0

    def line(self) -> bytes:
        """The anchor as it is kept in a file, newline included; where it is kept is not part of it."""
        value: dict[str, int | str] = {"at_ms": self.at_ms, "hash": self.hash, "seq": self.seq}
        if self.note:
            value |= {"note": self.note, "root": self.root, "size": self.size}
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode() + b"\n"


def beside(run_dir: Path) -> Path | None:
    """Where the anchors of a run are: `$INBOUNDS_HOME/anchors/<run_id>.jsonl` for `$INBOUNDS_HOME/runs/<run_id>`.

    None for a directory that is not below `runs` (an exported copy): its anchors must be named.
    """
    run_dir = run_dir.absolute()
    if run_dir.parent.name != "runs":
        return None
    return run_dir.parent.parent / "anchors" / f"{run_dir.name}.jsonl"


def read(path: Path) -> tuple[Anchor, ...]:
    """All anchors in the file, oldest first; () where there is no file; ValueError for a file that is none.

    A torn last line (power loss while it was written) is left out: the anchor before it still holds.
    """
    try:
        with path.open("rb") as file:
            content = file.read(ANCHOR_BYTES_MAX + 1)
    except FileNotFoundError:
        return ()
    if len(content) > ANCHOR_BYTES_MAX:
        raise ValueError(f"{path} is longer than {ANCHOR_BYTES_MAX} bytes")
    found: list[Anchor] = []
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        kept = parse(line, path.name)
        if kept is None:
            raise ValueError(f"{path}:{number} is no anchor")
        found.append(kept)
    return tuple(found)


def parse(line: bytes | str, source: str) -> Anchor | None:
    """One anchor, with or without a checkpoint; None for what is none. The note's signature is for a verifier."""
    try:
        value = json.loads(line)
        seq, digest, at_ms = value["seq"], value["hash"], value.get("at_ms", 0)
        size, root, note = value.get("size", 0), value.get("root", ""), value.get("note", "")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    numbers, texts = (seq, at_ms, size), (digest, root, note)
    if not all(type(n) is int and 0 <= n <= INTEGER_MAX for n in numbers) or not all(type(t) is str for t in texts):
        return None
    if not _HASH.fullmatch(digest) or len(note) > NOTE_BYTES_MAX:
        return None
    # All of a checkpoint or nothing of it; it covers no more than there was.
    if not (0 < size <= seq + 1 and _HASH.fullmatch(root) and note) and (size or root or note):
        return None
    return Anchor(seq, digest, source, size, root, note, at_ms)
