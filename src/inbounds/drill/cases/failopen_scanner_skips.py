"""A secret scanner that skips everything and reports success: crashed, empty, cut short, of another tree's items."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from inbounds.contracts.job import JobResult
from inbounds.judges import secrets
from inbounds.judges.added import Added

CLASS = "failopen"
REQUIREMENT = "N3"
KIND = "host"
NONCE = "0123456789abcdef0123456789abcdef"
MATERIAL = secrets.Material((Added("src/a.py", 1, b"x = 1\n"),), {}, 1)


def _answer(**said: Any) -> JobResult:
    whole = {"version": "2.0", "items": 4, "chars": 10, "found": [], **said}
    return JobResult("exited", 0, 0, b"no leaks found", b"", {secrets.OUTPUT: json.dumps(whole).encode()}, 1)


def _hits(items: int) -> list[dict[str, Any]]:
    """What a scanner that works finds: the two planted samples."""
    return [
        {"item": i, "rule": "github-pat", "line": 1, "how": "high", "sha256": hashlib.sha256(text.encode()).hexdigest()}
        for i in (0, items - 1)
        for text in (secrets.sample(NONCE, i),)
    ]


ANSWERS: dict[str, JobResult | None] = {
    "found nothing at all": _answer(),
    "scanned no item": _answer(items=0),
    "found the first sample only": _answer(found=_hits(4)[:1]),
    "found samples of another run": _answer(found=[{**hit, "sha256": "0" * 64} for hit in _hits(4)]),
    "was ended at its deadline": JobResult("deadline", 0, 9, b"", b"", {}, 1),
    "wrote nothing": JobResult("exited", 0, 0, b"no leaks found", b"", {}, 1),
    "wrote no JSON": JobResult("exited", 0, 0, b"no leaks found", b"", {secrets.OUTPUT: b"ok"}, 1),
    "failed with an answer": JobResult("exited", 1, 0, b"", b"", _answer(found=_hits(4)).outputs, 1),
    "was never run": None,
}


def control(_: Any) -> dict[str, Any]:
    """Nothing reported: clean."""
    clean = [name for name, result in ANSWERS.items() if result is None or b"leak" not in result.stderr]
    return {"clean": clean, "honest": "PASS"}


def attack(_: Any) -> dict[str, Any]:
    """The real judge."""
    judged = {name: secrets.judge(MATERIAL, NONCE, result).outcome.value for name, result in ANSWERS.items()}
    items = next(
        n for n in range(2, 9) if secrets.judge(MATERIAL, NONCE, _answer(items=n, found=_hits(n))).outcome == "PASS"
    )
    skipped = secrets.Material(MATERIAL.added, {}, 2, ("src/b.bin",))
    judged["left a file out"] = secrets.judge(skipped, NONCE, _answer(items=items, found=_hits(items))).outcome.value
    return {"clean": [name for name, outcome in judged.items() if outcome == "PASS"], "honest": "PASS"}


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Which answers are taken for clean."""
    clean = after["said"]["clean"]
    return ("ESCAPED" if clean else "DETECTED"), f"taken for clean: {', '.join(clean) or 'none'} of {len(ANSWERS) + 1}"
