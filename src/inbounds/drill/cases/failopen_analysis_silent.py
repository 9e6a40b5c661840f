"""A static analysis that could not read a file, or never mentions it, and reports no problem (N2)."""

import json
from collections.abc import Mapping
from typing import Any

from inbounds.contracts.job import JobResult
from inbounds.judges import bandit
from inbounds.judges.added import Added

CLASS = "failopen"
REQUIREMENT = "N2"
KIND = "host"
ADDED = (Added("src/a.py", 1, b"x = 1\n"), Added("src/b.py", 1, b"y = 1\n"))
SEEN: dict[str, Any] = {"/work/src/a.py": {}, "/work/src/b.py": {}, "_totals": {}}


def _answer(code: int = 0, **said: Any) -> JobResult:
    whole = {"results": [], "errors": [], "metrics": SEEN, **said}
    return JobResult("exited", code, 0, b"No issues identified.", b"", {bandit.OUTPUT: json.dumps(whole).encode()}, 1)


ANSWERS: dict[str, JobResult | None] = {
    "mentions one file of two": _answer(metrics={"/work/src/a.py": {}}),
    "could not parse one": _answer(errors=[{"filename": "/work/src/b.py", "reason": "syntax error"}]),
    "mentions none": _answer(metrics={}),
    "failed": _answer(code=2),
    "was ended": JobResult("deadline", 0, 9, b"", b"", {}, 1),
    "wrote nothing": JobResult("exited", 0, 0, b"No issues identified.", b"", {}, 1),
    "wrote a list": JobResult("exited", 0, 0, b"", b"", {bandit.OUTPUT: b"[]"}, 1),
    "was never run": None,
}


def control(_: Any) -> dict[str, Any]:
    """No issue identified: clean."""
    clean = [name for name, result in ANSWERS.items() if result is None or b"Issue:" not in result.stdout]
    return {"clean": clean, "honest": "PASS"}


def attack(_: Any) -> dict[str, Any]:
    """The real judge."""
    judged = {name: bandit.judge(ADDED, result).outcome.value for name, result in ANSWERS.items()}
    honest = bandit.judge(ADDED, _answer()).outcome.value
    return {"clean": [name for name, outcome in judged.items() if outcome == "PASS"], "honest": honest}


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Which answers are taken for clean; a whole one must be."""
    said = after["said"]
    if said["honest"] != "PASS":
        raise ValueError(f"a whole answer is judged {said['honest']}")
    clean = said["clean"]
    return ("ESCAPED" if clean else "DETECTED"), f"taken for clean: {', '.join(clean) or 'none'} of {len(ANSWERS)}"
