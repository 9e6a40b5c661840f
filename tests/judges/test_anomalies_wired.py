"""The anomalies judge on real trees of a real store, its terms from policy, and what the kernel and the gate make of it."""

import statistics
import time
from pathlib import Path
from typing import Any, cast

import pytest
from anomaly_corpus import ELF, SOURCE, zipped
from storerepo import add, make
from test_bound import contract

from inbounds.contracts.anomalies import DEFAULT_ACTIONS, NUMBERS, RULES, THRESHOLDS
from inbounds.contracts.bound import Anomalies, decode
from inbounds.contracts.documents import Anomalies as Text
from inbounds.contracts.errors import OperatorError
from inbounds.contracts.narrow import narrow_anomalies
from inbounds.contracts.verdict import Outcome, Severity
from inbounds.judges.anomalies.judge import judge
from inbounds.judges.anomalies.material import Material
from inbounds.promote.gate import objections
from inbounds.promote.request import Evidence, Request
from inbounds.run import judging
from inbounds.run.looking import FILE_BYTES_MAX, BaseTree, changed
from inbounds.store.snapshot import Snapshot
from inbounds.store.store import Store

MILLISECONDS_MAX = 250  # on a loaded machine; alone it is below 15 (docs/anomalies.md)


class Repository:
    """A work repository and a store that has its commits."""

    def __init__(self, place: Path, files: dict[str, str | bytes]) -> None:
        self.work = place / "work"
        make(self.work, files)
        self.store = Store.create(str(place / "store.git"))
        self.base = self.tree()

    def tree(self) -> str:
        return self.store.tree_of(self.store.fetch(str(self.work)))

    def then(self, files: dict[str, str | bytes], *, gone: tuple[str, ...] = ()) -> str:
        for path in gone:
            (self.work / path).unlink()
        add(self.work, files)
        return self.tree()

    def judged(self, tree: str) -> Any:
        found = changed(self.store, self.store.diff(self.base, tree))
        return judge(Material(found, BaseTree(self.store, self.base)))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path, {"src/app.py": SOURCE, "docs/a.png": b"\x89PNG\r\n\x1a\n", "README.md": "# Shop\n"})


@pytest.mark.req("H16", "H18", "H19")
def test_trees_of_a_store_are_judged_by_content(repository: Repository) -> None:
    benign = repository.judged(repository.then({"src/app.py": SOURCE + b"x = 1\n"}))
    assert (benign.outcome, benign.findings) == (Outcome.PASS, ())
    assert benign.facts["lines_added"] == 1
    hostile = repository.judged(
        repository.then(
            {"src/fast.py": ELF, "requirements.txt": "evil\n", "Dockerfile": "FROM x\n", "a.bin": zipped(a=b"1")}
        )
    )
    assert set(hostile.facts["rules"]) >= {"disguised_executable", "dependency", "sensitive_operations", "type_archive"}
    assert hostile.findings[0].severity is Severity.HIGH
    assert hostile.findings[0].rule == "anomaly.disguised_executable"


def test_a_renamed_file_is_no_new_content(repository: Repository) -> None:
    verdict = repository.judged(repository.then({"src/shop.py": SOURCE}, gone=("src/app.py",)))
    assert verdict.outcome is Outcome.PASS
    assert (verdict.facts["lines_added"], verdict.facts["lines_removed"], verdict.facts["files"]) == (0, 0, 1)


@pytest.mark.req("H16", "H17")
def test_a_file_too_large_is_not_read_and_is_named(repository: Repository) -> None:
    verdict = repository.judged(repository.then({"data.txt": b"x\n" * (FILE_BYTES_MAX // 2 + 1)}))
    assert verdict.outcome is Outcome.FAIL
    assert {"unread", "diff_binary"} <= set(verdict.facts["rules"])
    assert verdict.facts["binary_bytes"] == FILE_BYTES_MAX + 2


def test_links_and_deletions_have_no_content(repository: Repository) -> None:
    (repository.work / "link").symlink_to("README.md")
    verdict = repository.judged(repository.then({}, gone=("docs/a.png",)))
    assert verdict.outcome is Outcome.PASS, verdict
    assert verdict.facts["files"] == 2


def test_a_small_change_is_judged_quickly(tmp_path: Path) -> None:
    repository = Repository(tmp_path, {f"src/m{i // 50}/f{i}.py": SOURCE for i in range(1_000)})
    tree = repository.then({"src/m0/f1.py": SOURCE + b"x = 1\n", "tests/test_x.py": b"def test_x(): pass\n"})
    times = []
    for _ in range(5):
        began = time.perf_counter()
        assert repository.judged(tree).outcome is Outcome.PASS
        times.append(time.perf_counter() - began)
    assert statistics.median(times) * 1000 < MILLISECONDS_MAX, times


def bench(repository: Repository, **changes: Any) -> judging.Bench:
    bound = contract(base_tree=repository.base, targets=("**",), **changes)
    return judging.Bench(bound, repository.store, cast("Any", None), cast("Any", None), cast("Any", None))


def taken(repository: Repository, tree: str) -> Snapshot:
    changes = repository.store.diff(repository.base, tree)
    return Snapshot(tree, changes, True, "", 0, 0, (), (), (), ())


@pytest.mark.req("H20")
def test_the_journal_says_which_trees_were_there(repository: Repository) -> None:
    made = bench(repository)
    first = repository.then({"src/app.py": SOURCE + b"x = 1\n"})
    second = repository.then({"src/app.py": SOURCE + b"x = 2\n"})
    journal: list[tuple[str, int, dict[str, Any]]] = []
    made.records = lambda: journal
    rules = []
    for n, tree in enumerate((first, second, first, first), 1):
        journal.append(("snapshot.taken", n, {"n": n, "tree": tree}))
        verdict = made._anomalies(n, taken(repository, tree))
        journal.append(("verdict", n, judging.record(verdict, n)))
        rules.append(sorted(verdict.facts["rules"]))
    assert rules == [[], [], ["returned_tree"], ["unchanged"]]
    steps = [data["facts"]["step_lines"] for kind, _, data in journal if kind == "verdict"]
    assert steps == [1, 2, 2, 0]  # against the iteration before, not against the base


def request(verdicts: dict[str, Outcome]) -> Request:
    evidence = Evidence(tuple(verdicts.items()), "DONE", "p", "r", "h", ())
    return Request("s", "promote", "development", "a" * 40, "b" * 40, "c" * 40, evidence, judging.PROMOTING, 1)


def test_what_blocks_keeps_the_gate_shut_and_not_the_goal_away(repository: Repository) -> None:
    made = bench(repository)
    blocked = made._anomalies(1, taken(repository, repository.then({"Dockerfile": "FROM x\n"})))
    assert blocked.outcome is Outcome.FAIL
    assert judging.record(blocked, 1)["rules"] == []  # nothing that a stop rule of the kernel reads
    assert blocked.judge not in judging.REQUIRED  # nor what DONE waits for
    passed = dict.fromkeys(judging.PROMOTING, Outcome.PASS)
    assert objections(request(passed)) == ()
    [objection] = objections(request(passed | {"anomalies": blocked.outcome}))
    assert objection.startswith("judge anomalies says FAIL; ")
    assert objections(request(dict.fromkeys(judging.REQUIRED, Outcome.PASS))) == ("judge anomalies has not judged",)


def test_what_stops_is_read_by_the_kernels_stop_rules(repository: Repository) -> None:
    made = bench(repository, anomalies=Anomalies({**DEFAULT_ACTIONS, "sensitive_operations": "stop"}))
    verdict = made._anomalies(1, taken(repository, repository.then({"Dockerfile": "FROM x\n"})))
    assert judging.record(verdict, 1)["rules"] == ["anomaly.sensitive_operations"]


# -- policy


def terms(policy: Text, child: Text | None = None) -> Anomalies:
    return narrow_anomalies(policy, "policy.yaml", child or Text(), "config.yaml")


def test_silence_means_the_defaults() -> None:
    assert terms(Text()) == Anomalies()
    assert set(DEFAULT_ACTIONS) == {rule.name for rule in RULES}
    assert all(rule.why and rule.what for rule in RULES)
    assert all(threshold.why for threshold in THRESHOLDS)


@pytest.mark.req("B13")
def test_a_thread_only_tightens() -> None:
    policy = Text(actions={"pipeline": "note", "churn": "block"}, lines=2_000, paths=("infra/**",))
    found = terms(policy, Text(actions={"pipeline": "stop"}, lines=100, denials_window="5s", paths=("pay/**",)))
    assert found.actions["pipeline"] == "stop"
    assert found.actions["churn"] == "block"
    assert found.numbers == {**NUMBERS, "lines": 100, "denials_window": 5_000}
    assert found.paths == ("infra/**", "pay/**")
    looser = [Text(actions={"churn": "note"}), Text(actions={"dependency": "note"}), Text(lines=2_001), Text(files=51)]
    for child in looser:
        with pytest.raises(OperatorError, match=r"config.yaml"):
            terms(policy, child)


@pytest.mark.parametrize("text", [Text(actions={"pipelines": "note"}), Text(lines="many"), Text(denials_window="7")])
def test_what_policy_cannot_mean_is_an_error(text: Text) -> None:
    with pytest.raises(OperatorError, match=r"policy.yaml"):
        terms(text)


@pytest.mark.req("E8")
def test_the_terms_are_part_of_the_frozen_contract() -> None:
    plain, other = contract(), contract(anomalies=terms(Text(actions={"pipeline": "stop"})))
    assert plain.sha256() != other.sha256()
    assert decode(other.encode()).anomalies == other.anomalies
