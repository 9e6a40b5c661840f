"""The same with the forger's key in the journal itself, and with the anchors outside it replaced too."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inbounds.drill import kept
from inbounds.journal import anchor
from inbounds.journal.signing import Signer

CLASS = "evidence"
REQUIREMENT = "H14"
KIND = "host"


def _tamper(run: Path) -> None:
    forger = Signer(b"the key of a forger, 32 bytes..!")
    what = [(record["kind"], record["data"]) for record in kept.records(run) if record["kind"] != "denial"]
    what = [(kind, {**data, "journal_key": str(forger.key)} if kind == "run.accepted" else data) for kind, data in what]
    kept.rewritten(run, what, forger)
    last = kept.records(run)[-1]
    kept.anchors(run).write_bytes(anchor.Anchor(last["seq"], last["hash"], "").line())


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
