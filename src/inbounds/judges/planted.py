"""Which row of the table a written path falls under (ATTACKS, "planted now, executed later").

By name, compared folded (case, Unicode compatibility forms, invisible characters), because macOS and Windows check-outs
fold names too (CVE-2014-9390). What a file contains is looked at in two cases only (manifests.py).
"""

import re
import unicodedata
from dataclasses import dataclass

from inbounds.judges.executes_later import GIT_DATA, TABLE, Row

# Characters that HFS+ and people's eyes ignore (CVE-2014-9390; Unicode's Default_Ignorable_Code_Point); dropping them
# shows ".g\u200cit" for what it is.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
PATH_CHARS_MAX = 8192  # twice PATH_MAX: beyond it nothing is a path


@dataclass(frozen=True, slots=True)
class Planted:
    """Why the file is no ordinary one, as a sentence; `git_data` marks what no declaration can allow."""

    reason: str
    git_data: bool


def folded(path: str) -> str:
    """The path as the most forgiving file system would compare it; trailing dots and spaces fall off a segment."""
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFKC", path)).casefold()
    plain = _INVISIBLE.sub("", unicodedata.normalize("NFKC", plain))  # folding can compose anew
    return "/".join(part.rstrip(". ") or part for part in plain.replace("\\", "/").split("/"))


def planted(path: str) -> Planted | None:
    """Row of a written path, or None if nothing known would execute it by its name alone."""
    if len(path) > PATH_CHARS_MAX:
        return Planted(f"a path of {len(path)} characters is not classed", git_data=False)
    name = folded(path)
    # NTFS takes what is behind a colon for a stream of the file before it (CVE-2019-1352).
    stream = "/".join(part.partition(":")[0] for part in name.split("/")) if ":" in name else name
    for row, expression in _COMPILED:
        if expression.fullmatch(name) or expression.fullmatch(stream):
            return Planted(row.reason, git_data=row is GIT_DATA)
    return None


def expression(pattern: str) -> str:
    """A pattern of the table as a regular expression over a whole folded path."""
    anchored, below = pattern.startswith("/"), pattern.endswith("/")
    made = "".join(_piece(piece) for piece in re.split(r"(\{[^{}]*\}|\*)", pattern.strip("/")))
    return ("" if anchored else "(?:.*/)?") + made + ("(?:/.*)?" if below else "")


def _piece(piece: str) -> str:
    if piece == "*":
        return "[^/]*"
    if piece.startswith("{"):
        return "(?:" + "|".join("[^/]*".join(map(re.escape, p.split("*"))) for p in piece[1:-1].split(",")) + ")"
    return re.escape(piece)


def _compiled(row: Row) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{expression(pattern)})" for pattern in row.names), re.DOTALL)


_COMPILED = tuple((row, _compiled(row)) for row in TABLE)
