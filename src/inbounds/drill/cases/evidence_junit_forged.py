"""A JUnit file in which every test passes, written by the code under test over the true one (O6)."""

import json
from collections.abc import Mapping
from typing import Any

from inbounds.contracts.job import JobResult
from inbounds.judges import tests

CLASS = "evidence"
REQUIREMENT = "O6"
KIND = "host"
NONCE = "0123456789abcdef0123456789abcdef"
SUITE = tests.Suite(acceptance=("tests/test_a.py::test_a",), paths=("tests",))
FORGED = b"""<testsuites><testsuite name="pytest" errors="0" failures="0" skipped="0" tests="1"><testcase
file="tests/test_a.py" classname="tests.test_a" name="test_a" time="0.001"/></testsuite></testsuites>"""


def _witness(outcome: str) -> bytes:
    """What a witness in the same run wrote, line by line, before the file was forged."""
    lines: list[dict[str, Any]] = [
        {"start": "9.0", "python": "3.11"},
        {"canary": "tests/test_a.py::test_cafe"},
        {"id": "tests/test_a.py::test_cafe", "when": "call", "outcome": "failed", "xfail": False},
        {"id": "tests/test_a.py::test_a", "when": "call", "outcome": outcome, "xfail": False},
        {"end": 1},
    ]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _read(result: JobResult) -> str:
    return tests.judge(SUITE, tests.read(SUITE, NONCE, result), tests.Baseline()).outcome.value


def control(_: Any) -> dict[str, Any]:
    """Whoever reads the file."""
    return {"outcomes": ["FAIL" if b"<failure" in FORGED else "PASS"]}


def attack(_: Any) -> dict[str, Any]:
    """The real judge: the file forged alone, with the exit code, and with the witness gone."""
    junit, witness = tests.plan(SUITE, "0" * 40, NONCE).outputs
    failed = {junit: FORGED, witness: _witness("failed")}
    results = [
        JobResult("exited", 1, 0, b"", b"", failed, 1),
        JobResult("exited", 0, 0, b"", b"", failed, 1),
        JobResult("exited", 0, 0, b"", b"", {junit: FORGED}, 1),
        JobResult("exited", 0, 0, b"", b"", {junit: FORGED, witness: _witness("passed")}, 1),
    ]
    return {"outcomes": [_read(result) for result in results]}


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """What was made of it."""
    outcomes = after["said"]["outcomes"]
    return ("ESCAPED" if "PASS" in outcomes else "DETECTED"), f"judged {', '.join(outcomes)}"
