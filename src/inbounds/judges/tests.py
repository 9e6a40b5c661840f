"""The one way tests are run (C6, D4) and judged: a Job for the tester's jail, a verdict on what came back.

Pure. Acceptance tests are restored from pinned blobs before the run (M5, O6). Knows nothing of jails, and trusts the
report as far as report.py could cross-check it; what that is worth stands in the facts.
"""

import importlib.resources
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from inbounds.contracts.errors import OperatorError
from inbounds.contracts.job import LAYER, OUT, WORK, Job, JobResult
from inbounds.contracts.verdict import Finding, Outcome, Severity, Verdict
from inbounds.judges.report import Reading, TestReport, read_plain, read_witnessed, unreadable

JUDGE = "tests"
JOB = "/job"  # where Job.files stand (contracts.job.Job.files)
IDS_MAX = 5_000  # ids listed in facts, by kind; a list that was cut says so, the counts are exact
NODE_REPORTER = "node_reporter.mjs"  # $INBOUNDS_NODE_REPORTER in a junit command: node's test runner with file names
NONCE = re.compile(r"[0-9a-f]{16,64}")
WITNESSED = (
    "exit code, JUnit and witness agree, planted failing tests were reported; code under test shares the process"
)
PLAIN = "exit code and JUnit agree; no planted tests and no second witness: weaker than pytest's"


@dataclass(frozen=True, slots=True)
class Suite:
    """How a thread's tests are run; frozen with the plan.

    `paths` and ids in `acceptance` are repository-relative (tests/x.py::test_y; a file, a class or a test without its
    parameters stands for all below it). `restore` maps paths to git blob ids. `runner` is "pytest" (with `python`, an
    interpreter inside the jail that has pytest) or "junit" (with `command`, in which $INBOUNDS_JUNIT is replaced).
    """

    acceptance: tuple[str, ...]
    paths: tuple[str, ...] = ()
    thread: str = ""
    runner: str = "pytest"
    python: str = f"{LAYER}/bin/python"
    command: tuple[str, ...] = ()
    pythonpath: tuple[str, ...] = ()
    restore: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    deadline_ms: int = 600_000

    @property
    def modules(self) -> tuple[str, ...]:
        """The files that hold the acceptance tests."""
        return tuple(dict.fromkeys(name.partition("::")[0] for name in self.acceptance))


@dataclass(frozen=True, slots=True)
class Baseline:
    """Outcomes by id on the base tree, and what was failing there before anybody started (M1); empty on first use."""

    outcomes: Mapping[str, str] = field(default_factory=dict)
    known_failing: frozenset[str] = frozenset()


def plan(suite: Suite, tree: str, nonce: str) -> Job:
    """The tests of one tree; `nonce` is fresh random hex, at least 16 digits, so that no file name can be foreseen."""
    if not NONCE.fullmatch(nonce):
        raise ValueError("a nonce is 16 to 64 lower-case hex digits")
    cwd = f"{WORK}/{suite.thread}" if suite.thread else WORK
    junit_name, witness_name = _names(nonce)
    paths = [f"{WORK}/{path}".rstrip("/") for path in suite.pythonpath]
    env = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": ":".join(paths), **suite.env}
    common = {"judge": JUDGE, "role": "tester", "tree": tree, "cwd": cwd, "deadline_ms": suite.deadline_ms}
    if suite.runner == "junit":
        if not suite.command:
            raise OperatorError("a test runner without a command", expected="the command that writes $INBOUNDS_JUNIT")
        target = f"{OUT}/{junit_name}"
        argv = tuple(part.replace("$INBOUNDS_JUNIT", target) for part in suite.command)
        env |= {"INBOUNDS_JUNIT": target, "INBOUNDS_NODE_REPORTER": f"{JOB}/{NODE_REPORTER}"}
        reporter = importlib.resources.files("inbounds.judges").joinpath(NODE_REPORTER).read_bytes()
        return Job(
            argv=argv,
            env=env,
            restore=dict(suite.restore),
            files={NODE_REPORTER: reporter},
            outputs=(junit_name,),
            **common,  # type: ignore[arg-type]  # one dict of mixed fields
        )
    if suite.runner != "pytest":
        raise OperatorError(f"test runner {suite.runner!r}", expected="pytest or junit", fix="runner: pytest")
    spec = {
        "args": _pytest_args(suite, junit_name),
        "sys_path": list(dict.fromkeys([*paths, cwd])),
        "witness": f"{OUT}/{witness_name}",
        "nonce": nonce,
        "first": list(suite.modules),
    }
    source = importlib.resources.files("inbounds.judges").joinpath("witness.py").read_bytes()
    return Job(
        argv=(suite.python, "-I", "-B", f"{JOB}/witness.py", f"{JOB}/spec.json"),
        env=env,
        restore=dict(suite.restore),
        files={"witness.py": source, "spec.json": json.dumps(spec).encode()},
        outputs=(junit_name, witness_name),
        **common,  # type: ignore[arg-type]  # one dict of mixed fields
    )


def read(suite: Suite, nonce: str, result: JobResult) -> Reading:
    """What the run says, cross-checked."""
    junit_name, witness_name = _names(nonce)
    if suite.runner == "junit":
        return read_plain(result, junit_name)
    if b"No module named 'pytest'" in result.stderr[-2000:] or b"No module named '_pytest'" in result.stderr[-2000:]:
        return unreadable(f"pytest is not installed for {suite.python}: add it to the dependency layer's manifest")
    return read_witnessed(result, junit_name, witness_name, suite.modules)


def judge(suite: Suite, reading: Reading, baseline: Baseline) -> Verdict:
    """PASS: nothing fails but what was known to, every expected test is there and every acceptance test passes.

    INCONCLUSIVE: no report, or one that contradicts itself. facts: failing, failing_count, passing, acceptance_failing,
    acceptance_passing, missing, newly_passing, known_failing (still so), skipped_now, tests, runner, guarantee,
    version (of the runner, in its own words; absent where it says none, as a JUnit file does).
    """
    standing = _stand(suite, reading.report, baseline)
    facts = standing.facts(suite, reading, baseline)
    findings = [*reading.findings, *standing.findings]
    if reading.findings:
        return Verdict(JUDGE, Outcome.INCONCLUSIVE, reading.problem, tuple(findings), facts)
    if findings or standing.failing or standing.acceptance_failing:
        summary = (
            f"{len(standing.failing)} test(s) fail, {len(standing.missing)} of them missing; "
            f"{len(standing.acceptance_failing)} of {len(suite.acceptance)} acceptance tests do not pass"
        )
        return Verdict(JUDGE, Outcome.FAIL, summary, tuple(findings), facts)
    summary = f"{facts['passing']} tests pass, all {len(suite.acceptance)} acceptance tests among them"
    return Verdict(JUDGE, Outcome.PASS, summary, (), facts)


@dataclass(frozen=True, slots=True)
class _Standing:
    failing: frozenset[str]
    missing: frozenset[str]
    skipped_now: frozenset[str]
    acceptance_failing: tuple[str, ...]
    findings: tuple[Finding, ...]

    def facts(self, suite: Suite, reading: Reading, baseline: Baseline) -> dict[str, object]:
        """Evidence for journal and progress judge."""
        outcomes = reading.report.outcomes if reading.report else {}
        passing = {name for name, outcome in outcomes.items() if outcome == "passed"}
        was_bad = {name for name, outcome in baseline.outcomes.items() if outcome != "passed"}
        lists = {
            "failing": sorted(self.failing),
            "missing": sorted(self.missing),
            "skipped_now": sorted(self.skipped_now),
            "acceptance_failing": list(self.acceptance_failing),
            "acceptance_passing": sorted(set(suite.acceptance) - set(self.acceptance_failing)),
            "newly_passing": sorted(passing & was_bad),
            "known_failing": sorted(n for n in baseline.known_failing if outcomes.get(n) in {"failed", "error"}),
        }
        return {
            **{key: names[:IDS_MAX] for key, names in lists.items()},
            "cut": sorted(key for key, names in lists.items() if len(names) > IDS_MAX),
            "failing_count": len(self.failing),
            "passing": len(passing),
            "tests": len(outcomes),
            "canaries": reading.report.canaries if reading.report else 0,
            "duration_ms": reading.report.duration_ms if reading.report else 0,
            "runner": suite.runner,
            **({"version": reading.version} if reading.version else {}),
            "guarantee": "none" if reading.findings else WITNESSED if suite.runner == "pytest" else PLAIN,
        }


def standing_of(report: TestReport, test_id: str) -> str:
    """One outcome for an acceptance id: the worst of all it stands for; error where its file broke, else missing.

    A test that is marked as expected to fail counts as skipped, whatever it did.
    """
    found = [outcome for name, outcome in report.outcomes.items() if _below(name, test_id)]
    if any(_below(name, test_id) for name in report.marked):
        found.append("skipped")
    for outcome in ("error", "failed", "skipped", "passed"):
        if outcome in found:
            return outcome
    return "error" if report.lost(test_id) else "missing"


def failing_ids(suite: Suite, report: TestReport) -> set[str]:
    """What fails: test ids, files that can't be collected, acceptance ids without a passing test behind them.

    An acceptance file that can't be collected counts by its acceptance ids: so that making it importable, with its
    tests still failing, does not look like more failures.
    """
    bad = {name for name, outcome in report.outcomes.items() if outcome in {"failed", "error"}}
    bad |= report.broken - set(suite.modules)
    for name in suite.acceptance:
        if standing_of(report, name) != "passed" and not any(_below(other, name) for other in bad):
            bad.add(name)
    return bad


def _below(name: str, test_id: str) -> bool:
    return name == test_id or name.startswith((test_id + "[", test_id + "::"))


def _stand(suite: Suite, report: TestReport | None, baseline: Baseline) -> _Standing:
    """Hold a report against the baseline; without one, everything that was expected counts as failing."""
    expected = {name for name in baseline.outcomes if "::" in name}
    if report is None:
        lost = (expected | set(suite.acceptance)) - baseline.known_failing
        return _Standing(frozenset(lost), frozenset(), frozenset(), suite.acceptance, ())
    absent = {name for name in expected if name not in report.outcomes}
    absent -= _reparametrised(absent, expected, report)
    missing = {name for name in absent if not report.lost(name)}
    bad = failing_ids(suite, report)
    skipped = {name for name in expected if report.outcomes.get(name) == "skipped"}
    skipped_now = {name for name in skipped if baseline.outcomes[name] == "passed"}
    failing = (bad | absent | skipped_now) - baseline.known_failing
    outcomes = {name: standing_of(report, name) for name in suite.acceptance}
    return _Standing(
        frozenset(failing),
        frozenset(missing),
        frozenset(skipped_now),
        tuple(name for name, outcome in outcomes.items() if outcome != "passed"),
        tuple(_weakened(report, missing, skipped_now, outcomes)),
    )


def _reparametrised(absent: set[str], expected: set[str], report: TestReport) -> set[str]:
    """Absent ids whose test now runs with other parameters, at least as many: ids can hold times and addresses."""
    was = Counter(name.partition("[")[0] for name in expected if "[" in name)
    now = Counter(name.partition("[")[0] for name in report.outcomes if "[" in name)
    return {name for name in absent if "[" in name and now[name.partition("[")[0]] >= was[name.partition("[")[0]]}


def _weakened(
    report: TestReport, missing: set[str], skipped_now: set[str], acceptance: Mapping[str, str]
) -> list[Finding]:
    """Tests that used to judge and now do not: deleted, deselected, skipped or marked as expected to fail."""
    findings = [
        Finding("tests.missing", Severity.HIGH, name.partition("::")[0], f"{name} was collected on the base tree")
        for name in sorted(missing)
    ]
    findings += [
        Finding(
            "tests.skipped", Severity.MEDIUM, name.partition("::")[0], f"{name} passed on the base tree, now skipped"
        )
        for name in sorted(skipped_now)
    ]
    for name, outcome in acceptance.items():
        path = name.partition("::")[0]
        if outcome == "skipped" or any(_below(other, name) for other in report.marked):
            message = f"{name} judges this run and is skipped or expected to fail"
            findings.append(Finding("tests.acceptance_skipped", Severity.HIGH, path, message))
        elif outcome == "missing" and name not in missing:
            message = f"{name} judges this run and was not collected"
            findings.append(Finding("tests.acceptance_missing", Severity.HIGH, path, message))
    return findings[:IDS_MAX]


def _pytest_args(suite: Suite, junit_name: str) -> list[str]:
    """Arguments after the project's own addopts, so that these win; ids are relative to the repository root."""
    paths = [p.strip("/") for p in suite.paths]
    extra = [m for m in suite.modules if paths and not any(m == p or m.startswith(p + "/") for p in paths)]
    return [
        f"--rootdir={WORK}",
        f"--junitxml={OUT}/{junit_name}",
        "--override-ini=junit_family=xunit1",
        "--override-ini=junit_logging=no",
        "--continue-on-collection-errors",
        "--maxfail=0",
        "--color=no",
        "--tb=short",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        *[f"{WORK}/{path}" for path in [*paths, *extra]],
    ]


def _names(nonce: str) -> tuple[str, str]:
    return f"{nonce[:12]}.xml", f"{nonce[-12:]}.jsonl"
