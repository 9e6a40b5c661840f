"""Heads of a journal kept outside the run's directory, so that a truncated or rewritten file shows (ARCHITECTURE 9).

Reads only; the writer appends. An anchor protects against whatever can reach the run's directory but not this one;
against the operator's own uid only a witness elsewhere (commit trailers, another machine) helps.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

_HASH = re.compile(r"[0-9a-f]{64}")
# A handful of anchors per iteration and 60 bytes each: this is far beyond any run.
ANCHOR_BYTES_MAX = 16 << 20


@dataclass(frozen=True, slots=True)
class Anchor:
    """The journal had `hash` at `seq`; `source` says where that was kept."""

    seq: int
    hash: str
    source: str


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
        try:
            value = json.loads(line)
            seq, digest = value["seq"], value["hash"]
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"{path}:{number} is no anchor") from None
        if type(seq) is not int or seq < 0 or not isinstance(digest, str) or not _HASH.fullmatch(digest):
            raise ValueError(f"{path}:{number} is no anchor")
        found.append(Anchor(seq, digest, path.name))
    return tuple(found)
