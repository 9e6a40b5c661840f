"""Path patterns of plans and policies: which repository path a declared target covers.

Anchored at the repository root, case-sensitive, `/` as separator. `*`, `?` and `[...]` match inside one path segment
(leading dots included), `**` as a whole segment matches any number of segments, none included, and a pattern that ends
in `/` covers everything below that directory. No negation and no home or variable expansion: what is declared is what
is covered. Knows nothing of files; unlike gitignore, a pattern without a slash matches at the root only.
"""

import fnmatch
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from inbounds.contracts.errors import OperatorError

PATTERN_CHARS_MAX = 1024  # a path is at most 4096 bytes on Linux; a pattern is written by a person
SEGMENTS_MAX = 64  # bounds the table in `_covers`; real trees are less than 20 deep
PATTERNS_MAX = 1000  # each changed path is tried against each pattern
WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Pattern:
    """One parsed pattern: `segments` holds None for `**` and a compiled expression for each other segment."""

    text: str
    segments: tuple[re.Pattern[str] | None, ...]

    @property
    def literal(self) -> bool:
        """True if the pattern names exactly one path, so that whoever wrote it meant that very file."""
        return not WILD.search(self.text) and not self.text.endswith("/")

    def covers(self, path: str) -> bool:
        """Whether `path` (repository-relative, no leading slash) is matched."""
        return _covers(self.segments, tuple(path.split("/")))


@lru_cache(maxsize=4096)
def parse(text: str) -> Pattern:
    """Parse one pattern; OperatorError for what could match something that its reader does not expect."""
    raw = text.removeprefix("./")
    parts = raw.split("/")
    wrong = ""
    if not raw or raw.startswith(("/", "!")):
        wrong = "a pattern is relative to the repository root and has no negation"
    elif "\\" in raw or any(unicodedata.category(c).startswith("C") for c in raw):
        wrong = "a pattern has no backslash and no control character"
    elif len(raw) > PATTERN_CHARS_MAX or len(parts) > SEGMENTS_MAX:
        wrong = f"a pattern has at most {PATTERN_CHARS_MAX} characters and {SEGMENTS_MAX} segments"
    elif any(part in {".", ".."} for part in parts) or any(part == "" for part in parts[:-1]):
        wrong = "a pattern has no empty, '.' or '..' segment"
    elif any("**" in part and part != "**" for part in parts):
        wrong = "'**' stands alone between slashes"
    if wrong:
        raise OperatorError(f"pattern {text!r}", expected=wrong, fix="write it like src/billing/** or tests/test_*.py")
    if parts[-1] == "":
        parts[-1] = "**"
        parts.append("*")  # a directory covers what is below it, not a file of its own name
    return Pattern(raw, tuple(None if part == "**" else re.compile(fnmatch.translate(part)) for part in parts))


def parse_all(texts: Iterable[str]) -> tuple[Pattern, ...]:
    """Parse several patterns; OperatorError if there are more than anyone could review."""
    made = tuple(parse(text) for text in texts)
    if len(made) > PATTERNS_MAX:
        raise OperatorError(f"{len(made)} path patterns", expected=f"at most {PATTERNS_MAX}", fix="use '**'")
    return made


def covered(path: str, patterns: Iterable[Pattern]) -> bool:
    """Whether any pattern covers the path."""
    return any(pattern.covers(path) for pattern in patterns)


def _covers(segments: tuple[re.Pattern[str] | None, ...], parts: tuple[str, ...]) -> bool:
    """Match segment by segment with a table, so that no pattern and path take more than |pattern| x |path| steps."""
    reach = {0}
    for segment in segments:
        if segment is None:
            reach = set(range(min(reach), len(parts) + 1))
        else:
            reach = {at + 1 for at in reach if at < len(parts) and segment.match(parts[at])}
        if not reach:
            return False
    return len(parts) in reach
