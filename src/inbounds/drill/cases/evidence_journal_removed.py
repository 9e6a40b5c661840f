"""The line with the denial taken out of the journal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inbounds.drill import kept

CLASS = "evidence"
REQUIREMENT = "H14"
KIND = "host"


def _tamper(run: Path) -> None:
    kept.put(run, [line for line in kept.lines(run) if b'"kind":"denial"' not in line])


def control(arena: Any) -> dict[str, Any]:
    """A log of JSON lines that nothing chains: whoever reads it believes it."""
    run = kept.write(arena.scratch)
    _tamper(run)
    return {"found": kept.believed(run)}


def attack(arena: Any) -> dict[str, Any]:
    """The same hand at the same file, and the real verifier, to which the untouched file was sound."""
    run = kept.write(arena.scratch)
    if before := kept.faults(run):
        raise ValueError(f"the untouched journal does not hold: {before}")
    _tamper(run)
    return {"found": kept.faults(run)}


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Whether anything was found."""
    found = after["said"]["found"]
    return ("DETECTED", found[0]) if found else ("ESCAPED", "the changed journal is believed")
