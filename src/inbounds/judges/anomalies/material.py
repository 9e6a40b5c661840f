"""What the anomaly rules look at: changes with their content, the base tree, and what a plan declared.

Plain values; who reads them, and within which limits, is the caller's business (run/looking.py).
"""

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from inbounds.judges import globs

DECLARED = re.compile(r"\s*(?:a\s+)?(?:new\s+)?(dependency|file type):?\s+([^\s,;]{1,200})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Changed:
    """One difference: status A|M|D|R|T, modes as six octal digits ("" where absent), contents before and after.

    A content is None where there is none, or where it was too large to be read; the sizes (-1: none) tell which.
    """

    status: str
    path: str
    old_path: str = ""
    old_mode: str = ""
    new_mode: str = ""
    old: bytes | None = None
    new: bytes | None = None
    old_size: int = -1
    new_size: int = -1

    @property
    def regular(self) -> bool:
        """Whether a file stands there now (no link, nothing deleted)."""
        return self.status != "D" and self.new_mode in {"100644", "100755"}


class Base(Protocol):
    """The tree that the run started from."""

    @property
    def paths(self) -> Sequence[str]:
        """Every file, sorted."""

    def read(self, path: str) -> bytes | None:
        """A file's content; None where there is none or it is too large."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What the plan says: exact target paths, dependencies and file types that it names ("dependency httpx")."""

    paths: frozenset[str] = frozenset()
    dependencies: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Material:
    """All that the rules over trees need; `step_lines` counts lines changed since the iteration before."""

    changes: Sequence[Changed]
    base: Base
    declared: Declared = field(default_factory=Declared)
    step_lines: int = 0


@dataclass(frozen=True, slots=True)
class Signal:
    """One rule fired: `rule` without its prefix; `declared` where the plan said so, which makes it a note."""

    rule: str
    path: str
    message: str
    line: int = 0
    declared: bool = False


def declared(targets: Sequence[str], expected_changes: Sequence[str]) -> Declared:
    """Targets that name one file, and expected changes of the form "dependency NAME" or "file type NAME"."""
    said = [match for text in expected_changes if (match := DECLARED.match(text))]
    return Declared(
        frozenset(pattern.text for pattern in globs.parse_all(targets) if pattern.literal),
        frozenset(match[2].lower().rstrip(".") for match in said if match[1].lower() == "dependency"),
        frozenset(match[2].lower().rstrip(".") for match in said if match[1].lower() != "dependency"),
    )


def extension(path: str) -> str:
    """The extension in lower case, without its dot; "" for none (".gitignore" has none)."""
    return posixpath.splitext(path)[1][1:].lower()


def some(names: Sequence[str], maximum: int = 12) -> str:
    """The first names, and how many are left out: what a finding's message can hold."""
    shown = ", ".join(name[:120] for name in names[:maximum])
    return shown + (f" and {len(names) - maximum} more" if len(names) > maximum else "")


def words(text: str) -> frozenset[str]:
    """A long list of short words, as it is best read."""
    return frozenset(text.split())
