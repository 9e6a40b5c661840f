"""The anomaly rules on a corpus of small changes: which fire, which stay silent, and with what consequence."""

from dataclasses import replace
from pathlib import Path

import pytest
from anomaly_corpus import (
    BENIGN,
    DECLARED_SAMPLE,
    LOCKED,
    MALICIOUS,
    PYPROJECT,
    SOURCE,
    WORKFLOW,
    Case,
    material,
    npm,
    npm_lock,
    zipped,
)

from inbounds.contracts.anomalies import ACTIONS, BY_NAME, DEFAULT_ACTIONS, NUMBERS, RULES, THRESHOLDS, Action
from inbounds.contracts.verdict import Outcome, Severity
from inbounds.judges import globs
from inbounds.judges.anomalies.judge import DEFAULT, FINDINGS_MAX, Iteration, Terms, judge
from inbounds.judges.anomalies.material import Declared, Material, declared
from inbounds.judges.anomalies.repetition import History, Record, read

BAD = {Severity.MEDIUM, Severity.HIGH, Severity.CRITICAL}


def of(case: Case) -> Material:
    made = case.material()
    if case.name == DECLARED_SAMPLE:
        return replace(made, declared=declared(("tests/data/a.zip", "src/**"), ()))
    return made


def rules(made: Material, terms: Terms = DEFAULT) -> set[str]:
    return set(judge(made, terms=terms).facts["rules"])


@pytest.mark.req("H16", "H17", "H18", "H19")
@pytest.mark.parametrize("case", MALICIOUS, ids=lambda case: case.name)
def test_what_should_fire_fires(case: Case) -> None:
    verdict = judge(of(case))
    fired = [f for f in verdict.findings if f.rule == f"anomaly.{case.rule}"]
    assert fired, verdict
    assert verdict.outcome is Outcome.FAIL
    assert all(f.severity in BAD and f.message for f in fired)
    assert all(
        f.path in case.after
        or any(p.startswith(f.path) for p in case.after)
        or not f.path.isascii()
        or "u200b" in f.path
        for f in fired
    )


@pytest.mark.parametrize("case", BENIGN, ids=lambda case: case.name)
def test_honest_work_is_not_held_up(case: Case) -> None:
    verdict = judge(of(case))
    assert verdict.outcome is Outcome.PASS, verdict
    assert not [f for f in verdict.findings if f.severity in BAD]


def test_the_rates_on_the_corpus() -> None:
    missed = [c.name for c in MALICIOUS if c.rule not in rules(of(c))]
    held_up = [c.name for c in BENIGN if judge(of(c)).outcome is not Outcome.PASS]
    noted = [c.name for c in BENIGN if judge(of(c)).findings]
    assert len(MALICIOUS) + len(BENIGN) >= 60
    assert missed == []
    assert held_up == []
    assert len(noted) * 100 <= 35 * len(BENIGN), noted


def test_the_corpus_names_every_rule_that_blocks_over_trees() -> None:
    held = {rule.name for rule in BY_NAME.values() if rule.action != "note"}
    assert held - {case.rule for case in MALICIOUS} == {"sensitive_policy", "denial_burst", "unread"}


@pytest.mark.req("H16")
def test_a_plan_declares_a_type_by_path_or_by_name() -> None:
    after = {"data/a.zip": zipped(a=b"1")}
    assert "type_archive" in rules(material({}, after))
    assert "type_archive" not in rules(material({}, after, declared(("data/a.zip",), ())))
    assert "type_archive" not in rules(material({}, after, declared(("data/**",), ("File type: zip",))))
    assert "type_archive" in rules(material({}, after, declared(("data/**",), ("file type tar",))))


@pytest.mark.req("H18")
def test_a_dependency_that_the_plan_names_is_a_note() -> None:
    after = {"pyproject.toml": PYPROJECT.replace(b'"rich"', b'"rich", "httpx"')}
    base = {"pyproject.toml": PYPROJECT}
    assert judge(material(base, after)).outcome is Outcome.FAIL
    named = judge(material(base, after, declared((), ("new dependency httpx",))))
    assert named.outcome is Outcome.PASS
    assert [f.severity for f in named.findings if f.rule == "anomaly.dependency"] == [Severity.NOTE]
    assert judge(material(base, after, declared((), ("dependency requests",)))).outcome is Outcome.FAIL


@pytest.mark.req("H18")
def test_a_lock_files_packages_need_a_new_dependency_beside_them() -> None:
    lock = {"package-lock.json": npm_lock("express", "evil")}
    new = {"package.json": npm(dependencies={"express": "^4.0.0", "helmet": "1"})}
    bumped = {"package.json": npm(dependencies={"express": "^4.1.0"})}
    assert "dependency_locked" in rules(material(LOCKED, {**lock, **new}))
    assert "dependency_lock_only" not in rules(material(LOCKED, {**lock, **new}))
    assert "dependency_lock_only" in rules(material(LOCKED, {**lock, **bumped}))


@pytest.mark.req("H19")
def test_an_exact_target_is_meant_and_policys_paths_are_not() -> None:
    after = {"Dockerfile": b"FROM scratch\n"}
    said = Declared(paths=frozenset({"Dockerfile"}))
    assert judge(material({}, after)).outcome is Outcome.FAIL
    assert judge(material({}, after, said)).outcome is Outcome.PASS
    terms = Terms(DEFAULT_ACTIONS, NUMBERS, globs.parse_all(("Dockerfile", "src/pay/**")))
    assert "sensitive_policy" in rules(material({}, after, said), terms)
    assert judge(material({}, after, said), terms=terms).outcome is Outcome.FAIL
    assert "sensitive_policy" in rules(material({}, {"src/pay/x.py": SOURCE}), terms)
    assert "sensitive_policy" not in rules(material({}, {"src/app.py": SOURCE}), terms)


@pytest.mark.parametrize(
    ("action", "outcome", "severity"),
    [
        (ACTIONS[0], Outcome.PASS, Severity.NOTE),
        (ACTIONS[1], Outcome.FAIL, Severity.MEDIUM),
        (ACTIONS[2], Outcome.FAIL, Severity.HIGH),
    ],
)
def test_the_action_decides_what_follows(action: Action, outcome: Outcome, severity: Severity) -> None:
    terms = Terms({**DEFAULT_ACTIONS, "sensitive_operations": action}, NUMBERS)
    verdict = judge(material({}, {"Dockerfile": b"FROM scratch\n"}), terms=terms)
    assert verdict.outcome is outcome
    assert [f.severity for f in verdict.findings] == [severity]
    assert verdict.facts["actions"] == {"sensitive_operations": action}


@pytest.mark.req("H17")
def test_thresholds_hold_to_the_line() -> None:
    at = {"src/new.py": b"".join(b"x%d = 1\n" % i for i in range(NUMBERS["lines"]))}
    assert "diff_lines" not in rules(material({}, at))
    over = {"src/new.py": at["src/new.py"] + b"y = 1\n"}
    assert "diff_lines" in rules(material({}, over))
    lower = Terms(DEFAULT_ACTIONS, {**NUMBERS, "lines": 10})
    assert "diff_lines" in rules(material({}, {"src/new.py": SOURCE}), lower)
    moved = {"src/app.py": b"".join(reversed(SOURCE.splitlines(keepends=True)))}
    assert judge(material({"src/app.py": SOURCE}, moved)).facts["lines_added"] == 0  # a line that moved is not new


@pytest.mark.req("H17")
def test_churn_is_what_iterations_change_beside_the_difference() -> None:
    made = replace(material({"src/app.py": SOURCE}, {"src/app.py": SOURCE + b"x = 1\n"}), step_lines=300)
    history = History(earlier_lines=300)
    around = judge(made, Iteration(4, "t4", "t0", history))
    assert "churn" in around.facts["rules"]
    assert around.facts["step_lines"] == 300
    straight = judge(replace(made, step_lines=1), Iteration(4, "t4", "t0", history))
    assert "churn" not in straight.facts["rules"]
    assert "churn" not in judge(made, Iteration(1, "t1", "t0", History())).facts["rules"]


def journal(*rounds: tuple[str, list[str] | None]) -> list[Record]:
    found: list[Record] = []
    for n, (tree, calls) in enumerate(rounds, 1):
        found.append(("iteration.started", n, {"n": n}))
        found.append(("model.usage", n, {"tool_calls": 2} | ({"tool_hashes": calls} if calls is not None else {})))
        found.append(("snapshot.taken", n, {"n": n, "tree": tree}))
        found.append(("verdict", n, {"judge": "anomalies", "n": n, "facts": {"step_lines": 7}}))
    return found


def repeated(*rounds: tuple[str, list[str] | None]) -> set[str]:
    n = len(rounds)
    done = Iteration(n, rounds[-1][0], "base", read(journal(*rounds), n))
    return set(judge(material({}, {}), done).facts["rules"])


@pytest.mark.req("H20")
def test_iterations_that_repeat_are_found() -> None:
    assert repeated(("a", ["1"]), ("b", ["2"]), ("c", ["3"])) == set()
    assert repeated(("a", ["1"]), ("b", ["2"]), ("a", ["3"])) == {"returned_tree"}
    assert repeated(("a", ["1"]), ("base", ["2"])) == {"returned_tree"}
    assert repeated(("a", ["1"]), ("a", ["2"])) == {"unchanged"}
    assert repeated(("base", ["1"])) == {"unchanged"}
    assert repeated(("a", ["1", "2"]), ("b", ["2", "1"])) == {"same_calls"}
    assert repeated(("a", ["1"]), ("b", ["2"] * 21)) == {"same_calls"}
    assert repeated(("a", None), ("b", None)) == set()


@pytest.mark.req("H20")
def test_calls_without_a_hash_are_not_the_same_calls() -> None:
    records = journal(("a", ["1", "2"]), ("b", ["1", "2"]))
    for part in (1, 5):  # the usage of the first iteration, of the second
        kind, at, data = records[part]
        mixed = [*records]
        mixed[part] = (kind, at, {**data, "tool_hashes_more": 3})
        verdict = judge(material({}, {}), Iteration(2, "b", "base", read(mixed, 2)))
        assert verdict.facts["rules"] == {}
        assert verdict.facts["tool_calls"] == "compared; 3 call(s) have no hash"
    same = judge(material({}, {}), Iteration(2, "b", "base", read(records, 2)))
    assert same.facts["rules"] == {"same_calls": 1}


def test_what_is_not_on_record_is_said() -> None:
    said = [judge(material({}, {}), Iteration(1, "a", "b", read(journal(("a", calls)), 1))) for calls in (None, ["1"])]
    assert [verdict.facts["tool_calls"] for verdict in said] == ["not compared: no hashes on record", "compared"]


@pytest.mark.req("H20")
@pytest.mark.parametrize(("gap_ms", "count", "fires"), [(100, 9, True), (100, 8, False), (5_000, 40, False)])
def test_a_burst_of_denials_is_found(gap_ms: int, count: int, *, fires: bool) -> None:
    records = [("denial", 10_000 + i * gap_ms, {"what": "name", "detail": "x"}) for i in range(count)]
    done = Iteration(1, "a", "b", read(records, 1))
    assert ("denial_burst" in judge(material({}, {}), done).facts["rules"]) is fires


def test_earlier_lines_are_those_of_earlier_iterations() -> None:
    assert read(journal(("a", None), ("b", None), ("c", None)), 3).earlier_lines == 14
    assert (
        read([("verdict", 1, {"judge": "anomalies", "n": True, "facts": 3}), ("snapshot.taken", 1, {})], 3) == History()
    )


def test_a_flood_of_findings_is_cut_and_counted() -> None:
    verdict = judge(material({}, {f"deploy/{i}.yml": b"x: 1\n" for i in range(FINDINGS_MAX + 50)}))
    assert len(verdict.findings) == FINDINGS_MAX
    assert verdict.facts["findings_left_out"] >= 50
    assert verdict.facts["rules"]["sensitive_operations"] == FINDINGS_MAX + 50


def test_known_steps_and_moved_actions_are_no_new_steps() -> None:
    base = WORKFLOW[".github/workflows/ci.yml"]
    bumped = judge(material(WORKFLOW, {".github/workflows/ci.yml": base.replace(b"@v4", b"@v5")}))
    assert "pipeline" not in bumped.facts["rules"]
    assert "dependency_changed" in bumped.facts["rules"]
    assert "pipeline" not in rules(material(WORKFLOW, {".github/workflows/two.yml": base}))


def test_the_page_names_every_rule_with_its_action_and_every_threshold() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "anomalies.md").read_text(encoding="utf-8")
    missing = [r.name for r in RULES if f"| `{r.name}` | {r.requirement} | {r.action} |" not in page]
    for threshold in THRESHOLDS:
        rows = [line.split(" | ") for line in page.splitlines() if line.startswith(f"| `{threshold.key}` | ")]
        if not rows or threshold.parse(rows[0][1]) != threshold.default or threshold.why not in rows[0][2]:
            missing.append(threshold.key)
    assert missing == []
    assert f"{len(MALICIOUS)} malicious and {len(BENIGN)}" in page
