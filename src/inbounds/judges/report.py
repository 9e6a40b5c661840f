"""What a test run says, read from untrusted bytes: JUnit XML and the witness's lines, cross-checked.

A reading is either a report or the reason why there is none, with findings where the evidence contradicts itself.
Knows nothing of baselines or acceptance: tests.py judges.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from inbounds.contracts.job import JobResult
from inbounds.contracts.verdict import Finding, Severity
from inbounds.judges import junit
from inbounds.judges.scope import shown

LINES_MAX = 1_000_000  # three phases per test, and 200,000 tests at most
VERSION_CHARS_MAX = 80  # "pytest 9.0.1 on Python 3.11.2" has 30
NAMED_MAX = 5  # examples named in one message
EXIT_OK, EXIT_TESTS_FAILED, EXIT_INTERRUPTED = 0, 1, 2  # pytest's; 3 to 5 mean that nothing was tested
_NOT_XML = re.compile("[^\t\n\r\u0020-\u007e\u0080-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class TestReport:
    """Outcomes by node id (passed, failed, error, skipped), canaries left out.

    `marked` are ids with an xfail mark in force; `broken` are collectors that failed (file, directory or "").
    """

    __test__: ClassVar[bool] = False  # no test class, whatever pytest thinks of the name
    outcomes: Mapping[str, str]
    marked: frozenset[str] = frozenset()
    broken: frozenset[str] = frozenset()
    canaries: int = 0
    duration_ms: int = 0

    def lost(self, test_id: str) -> bool:
        """Whether the test's file could not be collected at all, so that its absence is an error, no deletion."""
        path = test_id.partition("::")[0]
        return any(b in {"", ".", path} or path.startswith(b + "/") for b in self.broken)


@dataclass(frozen=True, slots=True)
class Reading:
    """A report, or None with `problem` in words; any finding in here means that the evidence can't be trusted.

    `version` is what the runner said that it is, "" where it said nothing.
    """

    report: TestReport | None
    problem: str = ""
    findings: tuple[Finding, ...] = ()
    version: str = ""


def unreadable(problem: str) -> Reading:
    """No answer: code under test may simply be broken, so the finding is no alarm."""
    finding = Finding("tests.no_report", Severity.MEDIUM, "", problem)
    return Reading(None, problem, (finding,))


def ended(result: JobResult) -> str:
    """Why a job that did not exit by itself says nothing, or ""."""
    if result.reason != "exited":
        return f"the test run was not finished: {result.reason}"
    if result.signal:
        return f"the test run was ended by signal {result.signal}"
    return ""


def read_plain(result: JobResult, junit_name: str) -> Reading:
    """Any runner that writes JUnit XML: only its exit code can be held against it."""
    if problem := ended(result):
        return unreadable(problem)
    data = result.outputs.get(junit_name)
    if data is None:
        return unreadable(f"exit code {result.exit_code} and no JUnit file at $INBOUNDS_JUNIT")
    try:
        cases = junit.parse(data)
    except junit.BadReportError as error:
        return unreadable(f"the JUnit file is not acceptable: {error}")
    outcomes: dict[str, str] = {}
    for case in cases:
        name = shown(case.id)
        outcomes[name] = junit.worst(outcomes.get(name, "passed"), case.outcome)
    report = TestReport(outcomes, duration_ms=sum(case.duration_ms for case in cases))
    bad = any(outcome in {"failed", "error"} for outcome in outcomes.values())
    if bad != (result.exit_code != 0):
        message = f"exit code {result.exit_code} but {'failing' if bad else 'only passing'} tests in the report"
        return Reading(report, message, (Finding("tests.exit_code", Severity.HIGH, "", message),))
    return Reading(report)


def read_witnessed(result: JobResult, junit_name: str, witness_name: str, first: Sequence[str]) -> Reading:
    """A pytest run under witness.py; `first` are the modules that must have carried a canary if they ran."""
    if problem := ended(result):
        return unreadable(problem)
    missing = [name for name in (junit_name, witness_name) if name not in result.outputs]
    if missing:
        return unreadable(f"exit code {result.exit_code} and no report: the process went away before its end")
    try:
        cases = junit.parse(result.outputs[junit_name])
        seen = _Seen.parse(result.outputs[witness_name])
    except junit.BadReportError as error:
        return unreadable(f"the report is not acceptable: {error}")
    if seen.end is None:
        return unreadable(f"exit code {result.exit_code} before the report's end")
    if result.exit_code not in {EXIT_OK, EXIT_TESTS_FAILED, EXIT_INTERRUPTED} and result.exit_code == seen.end:
        return unreadable(f"pytest exit code {result.exit_code}: nothing was tested")
    if result.exit_code == EXIT_INTERRUPTED and not seen.broken:
        return unreadable("pytest was interrupted before every test had run")
    findings = [*_exit(result.exit_code, seen), *_disagreements(cases, seen), *_canaries(seen, first)]
    outcomes = {name: outcome for name, outcome in seen.outcomes.items() if name not in seen.canaries}
    duration = sum(case.duration_ms for case in cases)
    report = TestReport(outcomes, frozenset(seen.marked), frozenset(seen.broken), len(seen.canaries), duration)
    return Reading(report, findings[0].message if findings else "", tuple(findings), seen.version)


@dataclass(frozen=True, slots=True)
class _Seen:
    """The witness's lines, gathered."""

    outcomes: dict[str, str]
    marked: set[str]
    broken: set[str]
    canaries: set[str]
    end: int | None
    version: str

    @classmethod
    def parse(cls, data: bytes) -> "_Seen":
        outcomes: dict[str, str] = {}
        marked: set[str] = set()
        broken: set[str] = set()
        canaries: set[str] = set()
        end: int | None = None
        version = ""
        for line in _lines(data):
            if isinstance(line.get("id"), str):
                name = shown(line["id"][: junit.ID_CHARS_MAX])
                outcomes[name] = junit.worst(outcomes.get(name, "passed"), _phase(line))
                if line.get("xfail") is True:
                    marked.add(name)
            elif isinstance(line.get("broken"), str):
                broken.add(shown(line["broken"]))
            elif isinstance(line.get("canary"), str):
                canaries.add(shown(line["canary"][: junit.ID_CHARS_MAX]))
            elif isinstance(line.get("end"), int):
                end = line["end"]
            elif isinstance(line.get("start"), str) and not version:  # the first line is before any code of the tree
                version = shown(f"pytest {line['start']} on Python {line.get('python')}"[:VERSION_CHARS_MAX])
        return cls(outcomes, marked, broken, canaries, end, version)


def _lines(data: bytes) -> Iterator[dict[str, Any]]:
    rows = data.split(b"\n")
    if len(rows) > LINES_MAX:
        raise junit.BadReportError(f"more than {LINES_MAX} lines from the witness")
    for row in rows:
        if not row:
            continue
        try:
            line = json.loads(row)
        except (ValueError, RecursionError) as error:
            raise junit.BadReportError(f"a line of the witness is no JSON: {error}") from error
        if not isinstance(line, dict):
            raise junit.BadReportError("a line of the witness is no object")
        yield line


def _phase(line: dict[str, Any]) -> str:
    outcome = line.get("outcome")
    if outcome == "failed":
        return "failed" if line.get("when") == "call" else "error"
    if outcome in {"passed", "skipped"}:
        return str(outcome)
    raise junit.BadReportError(f"outcome {str(outcome)[:40]!r} is none of pytest's")


def _exit(code: int, seen: _Seen) -> list[Finding]:
    """A process that says one thing with its exit code and another in its report was interfered with."""
    bad = bool(seen.broken) or any(outcome in {"failed", "error"} for outcome in seen.outcomes.values())
    if code == seen.end and bad == (code != EXIT_OK):
        return []
    message = f"exit code {code}, end of report {seen.end}, failing tests in the report: {'yes' if bad else 'no'}"
    return [Finding("tests.exit_code", Severity.HIGH, "", message)]


def _disagreements(cases: Sequence[junit.Case], seen: _Seen) -> list[Finding]:
    """JUnit and witness heard the same hooks; where they differ, one of them was written by somebody else."""
    told: dict[tuple[str, str], str] = {}
    for case in cases:
        told[case.classname, case.name] = junit.worst(told.get((case.classname, case.name), "passed"), case.outcome)
    heard: dict[tuple[str, str], str] = {}
    for name, outcome in seen.outcomes.items():
        key = _junit_key(name)
        heard[key] = junit.worst(heard.get(key, "passed"), outcome)
    told = {(shown(a), shown(b)): outcome for (a, b), outcome in told.items()}
    collected = {key for key in told if not key[0]}  # a failed collector has no class name
    differing = sorted(k for k in (told.keys() | heard.keys()) - collected if told.get(k) != heard.get(k))
    if not differing:
        return []
    named = ", ".join("::".join(key) for key in differing[:NAMED_MAX])
    message = f"{len(differing)} test(s) differ between the JUnit file and the witness: {named}"
    return [Finding("tests.report_disagrees", Severity.HIGH, "", message)]


def _junit_key(node_id: str) -> tuple[str, str]:
    """How pytest names a node in JUnit: (classname, name), characters that XML forbids written as #xNN."""
    path, bracket, parameters = node_id.partition("[")
    names = path.split("::")
    names[0] = names[0].replace("/", ".").removesuffix(".py")
    names[-1] += bracket + parameters
    escaped = (_NOT_XML.sub(lambda m: f"#x{ord(m[0]):02X}", name)[: junit.ID_CHARS_MAX] for name in names)
    *classes, name = escaped
    return ".".join(classes), name


def _canaries(seen: _Seen, first: Sequence[str]) -> list[Finding]:
    """Each canary must have failed; one that passed shows that passing means nothing here."""
    findings: list[Finding] = []
    heard = {name: seen.outcomes.get(name, "unreported") for name in seen.canaries}
    wrong = sorted(name for name, outcome in heard.items() if outcome in {"passed", "unreported"})
    ran = {name.partition("::")[0] for name in seen.outcomes.keys() - seen.canaries}
    carried = {name.partition("::")[0] for name in seen.canaries}
    bare = sorted(path for path in first if path in ran and path not in carried)
    if wrong or bare:
        example = (wrong or bare)[0]
        message = (
            f"{len(wrong)} planted test(s) that must fail were not reported as failing, {len(bare)} acceptance"
            f" module(s) lost theirs, first: {example}: passing tests prove nothing in this run"
        )
        findings.append(Finding("tests.canary", Severity.HIGH, example.partition("::")[0], message))
    elif ran and not any(outcome in {"failed", "error"} for outcome in heard.values()):
        message = "no planted test was heard to fail, so that nothing shows that this suite can fail"
        findings.append(Finding("tests.canary_unheard", Severity.MEDIUM, "", message))
    return findings
