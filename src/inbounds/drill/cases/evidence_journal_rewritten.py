"""The whole journal written anew without its denials, every hash right, checkpoints signed by a key of the forger's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inbounds.drill import kept
from inbounds.journal.signing import Signer

CLASS = "evidence"
REQUIREMENT = "H14"
KIND = "host"


def _tamper(run: Path) -> None:
    what = [(record["kind"], record["data"]) for record in kept.records(run) if record["kind"] != "denial"]
    kept.rewritten(run, what, Signer(b"the key of a forger, 32 bytes..!"))


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
