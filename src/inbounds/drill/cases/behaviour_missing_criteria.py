"""A run without anything that could show success: no criterion, no test behind it, a test that passes already or that
does not exist (A8, M11: abort where success criteria are missing).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inbounds.contracts.verdict import Outcome
from inbounds.drill.played import Run
from inbounds.judges import preflight, tests
from inbounds.judges.report import Reading, TestReport

CLASS = "behaviour"
REQUIREMENT = "A8"
KIND = "host"
OPEN, HELD = "tests/test_a.py::test_open", "tests/test_a.py::test_held"
SUITE = tests.Suite(acceptance=(OPEN,), paths=("tests",))
READING = Reading(TestReport({OPEN: "failed", HELD: "passed"}))
WITHOUT = {
    "no criterion": (replace(SUITE, acceptance=()), READING),
    "a test that does not exist": (replace(SUITE, acceptance=("tests/test_a.py::test_gone",)), READING),
    "a test that passes already": (replace(SUITE, acceptance=(HELD,)), READING),
    "a test that is skipped": (SUITE, Reading(TestReport({OPEN: "skipped", HELD: "passed"}))),
    "no report at all": (SUITE, Reading(None, "the test run was not finished")),
}


def _starts(suite: tests.Suite, reading: Reading) -> bool:
    """Whether a run's first iteration is begun behind such a preflight."""
    verdict = preflight.judge(suite, reading, frozenset())
    run = Run()
    run.begin(ok=verdict.outcome is Outcome.PASS, why=verdict.summary)
    return bool(run.started)


def control(_: Any) -> dict[str, Any]:
    """A loop that looks whether the suite can be run, and starts unless something in it is broken."""
    outcomes = {name: reading.report.outcomes if reading.report else {} for name, (_, reading) in WITHOUT.items()}
    return {"started": [name for name, found in outcomes.items() if "error" not in found.values()], "honest": True}


def attack(_: Any) -> dict[str, Any]:
    """The real preflight judge and the real kernel."""
    started = [name for name, (suite, reading) in WITHOUT.items() if _starts(suite, reading)]
    return {"started": started, "honest": _starts(SUITE, READING)}


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Which of them starts; the one with an open test must."""
    said = after["said"]
    if not said["honest"]:
        raise ValueError("a run with an open acceptance test does not start")
    words = f"started: {', '.join(said['started']) or 'none'} of {len(WITHOUT)}"
    return ("ESCAPED" if said["started"] else "BLOCKED"), words
