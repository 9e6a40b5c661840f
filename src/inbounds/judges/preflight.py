"""Before a run: is there something to reach (A8, M5, M11), and is the base tree sound enough to start from (M1)?

Pure; judges the tester's reading of the base tree. Does not look at budgets, hosts or enforcement.
"""

from inbounds.contracts.verdict import Finding, Outcome, Severity, Verdict
from inbounds.judges.report import Reading
from inbounds.judges.tests import IDS_MAX, Suite, failing_ids, standing_of

JUDGE = "preflight"


def judge(suite: Suite, reading: Reading, known_failing: frozenset[str], *, acceptance_new: bool = True) -> Verdict:
    """PASS: every acceptance test was collected (or its file is waiting for code), and nothing unknown fails.

    FAIL rules: preflight.no_criteria, preflight.acceptance_missing, preflight.acceptance_skipped,
    preflight.baseline_red, preflight.nothing_to_do (all acceptance tests pass already; only where `acceptance_new`).
    facts: failing (not the known ones), passing, tests, known_failing, known_failing_gone,
    acceptance_failing, acceptance_passing.
    """
    if not suite.acceptance:
        finding = Finding("preflight.no_criteria", Severity.HIGH, "", "no acceptance test: nothing could show success")
        return Verdict(JUDGE, Outcome.FAIL, finding.message, (finding,), {"acceptance_failing": []})
    if reading.report is None or reading.findings:
        facts: dict[str, object] = {"acceptance_failing": list(suite.acceptance)}
        return Verdict(JUDGE, Outcome.INCONCLUSIVE, f"baseline tests: {reading.problem}", reading.findings, facts)
    report = reading.report
    bad = failing_ids(suite, report)
    mine = {name for name in bad if _accepted(suite, name)}
    unknown = sorted(bad - mine - known_failing)
    outcomes = {name: standing_of(report, name) for name in suite.acceptance}
    open_tests = [name for name, outcome in outcomes.items() if outcome != "passed"]
    findings = [_unfit(name, outcome) for name, outcome in outcomes.items() if outcome in {"missing", "skipped"}]
    findings += [
        Finding("preflight.baseline_red", Severity.HIGH, name.partition("::")[0], f"{name} fails before the run")
        for name in unknown[:IDS_MAX]
    ]
    if acceptance_new and not open_tests:
        message = "every acceptance test passes already: there is nothing to reach"
        findings.append(Finding("preflight.nothing_to_do", Severity.HIGH, "", message))
    facts = {
        "failing": sorted(bad - known_failing)[:IDS_MAX],
        "passing": sum(outcome == "passed" for outcome in report.outcomes.values()),
        "known_failing": sorted(bad & known_failing)[:IDS_MAX],
        "known_failing_gone": sorted(known_failing - bad)[:IDS_MAX],
        "acceptance_failing": open_tests,
        "acceptance_passing": sorted(set(suite.acceptance) - set(open_tests)),
        "tests": len(report.outcomes),
    }
    if findings:
        return Verdict(JUDGE, Outcome.FAIL, findings[0].message, tuple(findings), facts)
    summary = f"{facts['passing']} tests pass, {len(open_tests)} acceptance test(s) to reach"
    return Verdict(JUDGE, Outcome.PASS, summary, (), facts)


def _accepted(suite: Suite, failing: str) -> bool:
    """Whether a failing id is an acceptance test."""
    return any(failing == a or failing.startswith((a + "[", a + "::")) for a in suite.acceptance)


def _unfit(name: str, outcome: str) -> Finding:
    words = {"missing": "was not collected: there is no such test", "skipped": "is skipped: it can't show success"}
    return Finding(
        f"preflight.acceptance_{outcome}", Severity.HIGH, name.partition("::")[0], f"{name} {words[outcome]}"
    )
