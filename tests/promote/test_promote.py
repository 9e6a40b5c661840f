"""The promotion gate as a program: what opens it, everything that must not, and taking a landed run back."""

import json
import os
import subprocess
import sys

import pytest
from storerepo import git, make

from inbounds.program import landlock
from inbounds.promote import gate, landing
from inbounds.promote.request import parse
from inbounds.store import git as hardened
from inbounds.store.store import Store

AUTHOR = "agent <agent@inbounds.invalid>"
RUN = "20261122-100000-0a1b2c"
JUDGES = ["scope", "tests", "progress", "security"]
TEXT = "".join(f"line {number}\n" for number in range(30))


class World:
    """A store with a base commit, and agent commits on top of it."""

    def __init__(self, place):
        make(place / "source", {"a.txt": TEXT, "b.txt": "b\n"})
        self.store = Store.create(os.fspath(place / "store.git"))
        self.base = self.store.fetch(os.fspath(place / "source"))

    def change(self, files, parent=None, when=1_000):
        parent = parent or self.base
        blobs = {name: None if text is None else self.store.write_blob(text.encode()) for name, text in files.items()}
        tree = self.store.replace(self.store.tree_of(parent), blobs)
        return self.store.commit(tree, [parent], "PLAN-1 iteration 1", AUTHOR, when)

    def request(self, commit, **changed):
        asked = {
            "store": self.store.path,
            "op": "promote",
            "target": "development",
            "source_commit": commit,
            "expected_tree": self.store.tree_of(commit),
            "base_commit": self.base,
            "required_judges": JUDGES,
            "when": 2_000,
            "evidence": {
                "verdicts": [{"judge": judge, "outcome": "PASS"} for judge in JUDGES],
                "stop_code": "DONE",
                "plan_id": "PLAN-1",
                "run_id": RUN,
                "journal_head": "ab" * 32,
                "signatures": [],
            },
        }
        asked["evidence"].update(changed.pop("evidence", {}))
        return {**asked, **changed}

    def tip(self, target="development"):
        return self.store.ref(f"refs/heads/{target}")


@pytest.fixture
def world(place):
    return World(place)


def ask(request):
    """Run the real program; returns its exit status and its answer."""
    raw = request if isinstance(request, bytes) else json.dumps(request).encode()
    done = subprocess.run(
        [sys.executable, "-m", "inbounds.promote"], input=raw, capture_output=True, check=False, timeout=120
    )
    assert done.stdout.count(b"\n") == 1, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.req("K3", "D7")
def test_a_judged_commit_lands_and_says_where_it_comes_from(world):
    commit = world.change({"a.txt": "changed\n"})
    code, answer = ask(world.request(commit))
    assert (code, answer["outcome"], answer["reasons"]) == (0, "promoted", [])
    assert (answer["target"], answer["old"], answer["commit"]) == ("development", "", world.tip())
    assert world.store.tree_of(world.tip()) == world.store.tree_of(commit)
    said = git(world.store.path, "log", "-1", "--format=%P%n%B", answer["commit"])
    assert said.splitlines()[0] == f"{world.base} {commit}"
    for line in ("Inbounds-Plan: PLAN-1", f"Inbounds-Run: {RUN}", f"Inbounds-Journal-Head: {'ab' * 32}"):
        assert line in said.splitlines()
    second = world.change({"b.txt": "next\n"}, parent=world.tip())
    code, answer = ask(world.request(second, base_commit=world.tip()))
    assert (code, answer["outcome"]) == (0, "promoted")


REFUSED = {
    "a judge says FAIL": {"evidence": {"verdicts": [*({"judge": j, "outcome": "PASS"} for j in JUDGES[1:]), {"judge": "scope", "outcome": "FAIL"}]}},
    "a judge is in doubt": {"evidence": {"verdicts": [*({"judge": j, "outcome": "PASS"} for j in JUDGES[1:]), {"judge": "scope", "outcome": "INCONCLUSIVE"}]}},
    "a judge is missing": {"evidence": {"verdicts": [{"judge": j, "outcome": "PASS"} for j in JUDGES[1:]]}},
    "both PASS and FAIL": {"evidence": {"verdicts": [*({"judge": j, "outcome": "PASS"} for j in JUDGES), {"judge": "scope", "outcome": "FAIL"}]}},
    "a judge that nobody required objects": {"evidence": {"verdicts": [*({"judge": j, "outcome": "PASS"} for j in JUDGES), {"judge": "extra", "outcome": "FAIL"}]}},
    "no verdict at all": {"evidence": {"verdicts": []}},
    "no judge required": {"required_judges": []},
    "stopped": {"evidence": {"stop_code": "STOP_BUDGET_EXCEEDED"}},
    "no stop code": {"evidence": {"stop_code": ""}},
    "another tree": {"expected_tree": "0" * 40},
    "to staging": {"target": "staging"},
    "to main": {"target": "main"},
    "to main with any signature": {"target": "main", "evidence": {"signatures": ["x"]}},
}  # fmt: skip


@pytest.mark.req("K3", "D7")
@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.without("promotion-gate")
def test_the_gate_stays_shut(world, case, monkeypatch):
    commit = world.change({"a.txt": "changed\n"})
    request = world.request(commit, **json.loads(json.dumps(REFUSED[case])))
    if os.environ.get("INBOUNDS_TEST_WITHOUT") == "promotion-gate":
        monkeypatch.setattr(gate, "objections", lambda request: ())
        parsed = parse(json.dumps({**request, "expected_tree": world.store.tree_of(commit)}).encode())
        assert gate.objections(parsed) or landing.promote(world.store, parsed).outcome == "refused"
    code, answer = ask(request)
    assert (code, answer["outcome"]) == (1, "refused")
    assert answer["reasons"]
    assert world.tip(request["target"]) is None


ANOMALIES = {"judge": "anomalies", "outcome": "FAIL"}
PASSED = [{"judge": judge, "outcome": "PASS"} for judge in JUDGES]


def odd(world, *verdicts, signatures=("-----BEGIN SSH SIGNATURE-----",), **changed):
    """A request whose anomalies judge objected, with a signature over its tree, and what else is said."""
    evidence = {"verdicts": [*PASSED, *verdicts], "signatures": list(signatures), **changed}
    return world.request(
        world.change({"a.txt": "changed\n"}), required_judges=[*JUDGES, "anomalies"], evidence=evidence
    )


@pytest.mark.req("H16", "H18")
def test_a_signature_answers_anomalies_and_without_one_the_words_say_how(world):
    code, answer = ask(odd(world, ANOMALIES, signatures=()))
    assert (code, answer["outcome"], world.tip()) == (1, "refused", None)
    [why] = answer["reasons"]
    assert why.startswith("judge anomalies says FAIL; ")
    assert why.endswith(f"inbounds approve {RUN}")
    code, answer = ask(odd(world, ANOMALIES))
    assert (code, answer["outcome"], answer["reasons"]) == (0, "promoted", [])
    assert answer["commit"] == world.tip()


UNANSWERED = {
    "another judge's FAIL": ([ANOMALIES, {"judge": "tests", "outcome": "FAIL"}], {}, "judge tests says FAIL"),
    "a FAIL that nobody required": ([ANOMALIES, {"judge": "bandit", "outcome": "FAIL"}], {}, "judge bandit says FAIL"),
    "a name that is like it": ([ANOMALIES, {"judge": "anomalies.2", "outcome": "FAIL"}], {}, "judge anomalies.2 says FAIL"),
    "anomalies in doubt": ([{"judge": "anomalies", "outcome": "INCONCLUSIVE"}], {}, "judge anomalies says INCONCLUSIVE"),
    "anomalies silent": ([], {}, "judge anomalies has not judged"),
    "a run that was stopped": ([ANOMALIES], {"stop_code": "STOP_ANOMALY"}, "the run ended with 'STOP_ANOMALY', not DONE"),
}  # fmt: skip


@pytest.mark.req("K3", "D7")
@pytest.mark.parametrize("case", UNANSWERED)
def test_a_signature_answers_nothing_else(world, case):
    verdicts, changed, why = UNANSWERED[case]
    code, answer = ask(odd(world, *verdicts, **changed))
    assert (code, answer["outcome"], answer["reasons"]) == (1, "refused", [why])
    assert world.tip() is None


@pytest.mark.req("K3")
def test_a_moved_target_means_judging_again(world):
    """Two runs from one base: the second's tree, landed as judged, would take the first's work away."""
    first, second = world.change({"a.txt": "fix\n"}), world.change({"b.txt": "other\n"})
    assert ask(world.request(first))[0] == 0
    landed = world.tip()
    code, answer = ask(world.request(second))
    assert (code, answer["outcome"]) == (1, "refused")
    assert "judge again" in answer["reasons"][0]
    assert answer["commit"] == answer["old"] == world.tip() == landed
    conflicting = world.change({"a.txt": "clash\n"})
    assert "conflicts" in ask(world.request(conflicting))[1]["reasons"][0]
    assert "already" in ask(world.request(first))[1]["reasons"][0]


def test_a_commit_from_elsewhere_is_refused(world):
    stray = world.store.commit(world.store.tree_of(world.base), [], "stray", AUTHOR, 1)
    assert "does not descend" in ask(world.request(stray))[1]["reasons"][0]
    assert world.tip() is None


def test_what_landed_last_is_taken_back_whole(world):
    commit = world.change({"a.txt": "changed\n", "new.txt": "n\n"})
    landed = ask(world.request(commit))[1]["commit"]
    back = world.request(landed, op="rollback", evidence={"verdicts": [], "stop_code": ""}, required_judges=[])
    code, answer = ask(back)
    assert (code, answer["outcome"], answer["old"]) == (0, "rolled_back", landed)
    assert world.store.tree_of(world.tip()) == world.store.tree_of(world.base)
    assert world.store.is_ancestor(landed, world.tip())  # history is added to, never rewritten
    code, answer = ask(back)
    assert (code, answer["outcome"]) == (1, "refused")


def test_earlier_work_is_taken_back_from_under_later_work(world):
    if hardened.version() < landing.MERGE_TREE_SINCE:
        pytest.skip("git merge-tree --write-tree came with git 2.38")
    first = world.change({"a.txt": TEXT.replace("line 2\n", "line two\n")})
    landed = ask(world.request(first))[1]["commit"]
    second = world.change({"a.txt": TEXT.replace("line 2\n", "line two\n").replace("line 25\n", "x\n")}, parent=landed)
    assert ask(world.request(second, base_commit=landed))[0] == 0
    request = world.request(landed, op="rollback")
    code, answer = ask(request)
    assert (code, answer["outcome"]) == (0, "rolled_back")
    node = next(node for node in world.store.ls(world.store.tree_of(world.tip())) if node.path == "a.txt")
    assert world.store.read_blob(node.blob).decode() == TEXT.replace("line 25\n", "x\n")


def test_work_that_later_work_stands_on_is_not_taken_back(world):
    if hardened.version() < landing.MERGE_TREE_SINCE:
        pytest.skip("git merge-tree --write-tree came with git 2.38")
    landed = ask(world.request(world.change({"a.txt": "one\n"})))[1]["commit"]
    second = world.change({"a.txt": "one and two\n"}, parent=landed)
    assert ask(world.request(second, base_commit=landed))[0] == 0
    tip = world.tip()
    code, answer = ask(world.request(landed, op="rollback"))
    assert (code, answer["outcome"]) == (1, "refused")
    assert "conflicts" in answer["reasons"][0]
    assert world.tip() == tip


def test_only_a_promotion_of_that_run_is_taken_back(world):
    commit = world.change({"a.txt": "one\n"})
    landed = ask(world.request(commit))[1]["commit"]
    for source, changed, reason in (
        (commit, {}, "has not landed"),
        (world.base, {}, "no promotion"),
        (landed, {"evidence": {"run_id": "20261122-100000-ffffff"}}, "no promotion"),
        (landed, {"expected_tree": world.store.tree_of(world.base)}, "tree is not the one"),
        (landed, {"target": "main"}, "not rolled back"),
    ):
        code, answer = ask(world.request(source, op="rollback", **changed))
        assert (code, answer["outcome"]) == (1, "refused")
        assert reason in answer["reasons"][0]
    assert world.tip() == landed


def test_of_many_promotions_at_once_one_lands(world):
    commits = [world.change({f"{number}.txt": "x"}, when=number) for number in range(4)]
    running = [
        subprocess.Popen([sys.executable, "-m", "inbounds.promote"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in commits
    ]
    for process, commit in zip(running, commits, strict=True):
        process.stdin.write(json.dumps(world.request(commit)).encode())
        process.stdin.close()
    answers = []
    for process in running:
        answers.append(json.loads(process.stdout.read()))
        process.stdout.close()
        process.wait()
    assert sorted(answer["outcome"] for answer in answers) == ["promoted", "refused", "refused", "refused"]
    landed = next(answer["commit"] for answer in answers if answer["outcome"] == "promoted")
    assert world.tip() == landed


def test_a_ref_that_moves_between_look_and_move_stays(world, monkeypatch):
    commit = world.change({"a.txt": "one\n"})
    request = parse(json.dumps(world.request(commit)).encode())
    real = world.store.commit

    def slow(*args):
        made = real(*args)
        assert world.store.compare_and_swap("refs/heads/development", world.base, None)
        return made

    monkeypatch.setattr(world.store, "commit", slow)
    answer = landing.promote(world.store, request)
    assert answer.outcome == "refused"
    assert "meanwhile" in answer.reasons[0]
    assert world.tip() == world.base


MALFORMED = [
    b"",
    b"{",
    b"[]",
    b"[" * 100_000,
    b'"' + b"x" * (2 << 20) + b'"',
    {"op": "force"},
    {"target": "topic"},
    {"target": "refs/heads/main"},
    {"source_commit": "HEAD"},
    {"source_commit": "--help"},
    {"when": "now"},
    {"when": True},
    {"unknown": 1},
    {"evidence": None},
    {"evidence": {"verdicts": [{"judge": "scope", "outcome": "pass"}]}},
    {"evidence": {"plan_id": "x\nInbounds-Run: forged"}},
    {"evidence": {"journal_head": "x"}},
    {"required_judges": "scope"},
]


@pytest.mark.parametrize("case", range(len(MALFORMED)))
def test_malformed_requests_are_refused_in_one_line(world, case):
    wrong = MALFORMED[case]
    commit = world.change({"a.txt": "one\n"})
    if isinstance(wrong, dict):
        request = world.request(commit)
        if isinstance(wrong.get("evidence"), dict):
            request["evidence"].update(wrong["evidence"])
        else:
            request.update(wrong)
        wrong = request
    code, answer = ask(wrong)
    assert (code, answer["outcome"]) == (100, "refused")
    assert answer["reasons"]
    assert world.tip() is None


def test_no_store_is_a_refusal(world, place):
    code, answer = ask(world.request(world.base, store=os.fspath(place / "nothing")))
    assert (code, answer["outcome"]) == (1, "refused")


@pytest.mark.without("promoter-seal")
def test_the_promoter_can_write_only_to_its_store(place):
    """In a child: a Landlock domain has no way back."""
    if not landlock.abi():
        pytest.skip("this kernel has no Landlock: the promoter says so on stderr")
    inside, outside = place / "inside", place / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "there").write_text("old")
    sealing = (
        ""
        if os.environ.get("INBOUNDS_TEST_WITHOUT") == "promoter-seal"
        else f'print(begin() | seal(rights("{inside}")))'
    )
    program = f"""
import os, socket
from inbounds.program.seal import begin, seal
from inbounds.promote.rights import rights
{sealing}
open("{inside}/new", "w").close()
open("/dev/null", "w").close()
assert open("{outside}/there").read() == "old"
for attempt in (
    lambda: open("{outside}/new", "w"),
    lambda: open("{outside}/there", "r+"),
    lambda: os.truncate("{outside}/there", 0),
    lambda: os.unlink("{outside}/there"),
    lambda: os.rename("{inside}/new", "{outside}/moved"),
    lambda: os.system("echo x > {outside}/there") and 1 / 0,
    lambda: socket.socket(socket.AF_INET),
):
    try:
        attempt()
    except (OSError, ZeroDivisionError):
        continue
    raise SystemExit("it could write outside")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "'landlock_files': 'enforced'" in done.stdout
    assert "'seccomp': 'enforced'" in done.stdout
    assert (outside / "there").read_text() == "old"
