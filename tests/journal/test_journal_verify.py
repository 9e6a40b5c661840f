"""Every manipulation that a hostile or careless hand can do to a run's evidence is found, and named."""

import ast
import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evidence
import pytest

from inbounds.contracts.canonical import canonical
from inbounds.journal import anchor
from inbounds.journal.verify import Verification, verify_run

Steps = list[tuple[int, str, dict[str, Any]]]


def lines(run: Path) -> list[bytes]:
    return (run / "journal.jsonl").read_bytes().splitlines(keepends=True)


def put(run: Path, found: list[bytes]) -> None:
    (run / "journal.jsonl").write_bytes(b"".join(found))


def steps(run: Path) -> Steps:
    return [(r.at_ms, r.kind, copy.deepcopy(r.data)) for r in evidence.read(run)]


def at(run: Path, kind: str) -> int:
    return next(r.seq for r in evidence.read(run) if r.kind == kind)


def edit(run: Path) -> None:
    found = lines(run)
    found[at(run, "model.usage")] = found[at(run, "model.usage")].replace(
        b'"cost_micro_usd":41000', b'"cost_micro_usd":1'
    )
    put(run, found)


def delete_middle(run: Path) -> None:
    found = lines(run)
    del found[at(run, "denial")]
    put(run, found)


def delete_first(run: Path) -> None:
    put(run, lines(run)[1:])


def truncate(run: Path) -> None:
    put(run, lines(run)[:-3])


def truncate_and_derive(run: Path) -> None:
    truncate(run)
    evidence.close(run)


def reorder(run: Path) -> None:
    found = lines(run)
    n = at(run, "verdict")
    found[n], found[n + 1] = found[n + 1], found[n]
    put(run, found)


def duplicate(run: Path) -> None:
    found = lines(run)
    n = at(run, "verdict")
    put(run, [*found[: n + 1], *found[n:]])


def splice(run: Path) -> None:
    data = evidence.good_run()
    data[0][1]["run_id"] = "20261120-000000-ffffff"
    other = evidence.write(run.parent.parent / "other", data, run_id="20261120-000000-ffffff")
    found = lines(run)
    n = at(run, "denial")
    found[n] = lines(other)[n]
    put(run, found)


def whole_other_journal(run: Path) -> None:
    data = evidence.good_run()
    data[0][1]["run_id"] = "20261120-000000-ffffff"
    other = evidence.write(run.parent.parent / "other", data, run_id="20261120-000000-ffffff")
    for name in ("journal.jsonl", "manifest.json"):
        shutil.copy(other / name, run / name)
    place = anchor.beside(other)
    assert place is not None
    shutil.copy(place, anchor.beside(run))  # even the anchors were replaced


def rechain(run: Path) -> None:
    found = [step for step in steps(run) if step[1] != "denial"]
    evidence.rechained(run, found)


def rechain_and_derive(run: Path) -> None:
    rechain(run)
    evidence.close(run)


def forge_result(run: Path) -> None:
    found = steps(run)
    for _, kind, data in found:
        if kind == "iteration.finished":
            data["failing_after"] = 0
    evidence.rechained(run, found)
    evidence.close(run)


def rolled_back(run: Path) -> None:
    """The file of an hour ago, put back whole, with the manifest of then."""
    put(run, lines(run)[: at(run, "stop.decided")])
    evidence.close(run)


def fork(run: Path) -> None:
    found = steps(run)
    found[-1] = (found[-1][0], "run.finished", {"code": "DONE", "exit": 0, "note": "the other end"})
    evidence.rechained(run, found)
    evidence.close(run)


def torn(run: Path) -> None:
    (run / "journal.jsonl").write_bytes((run / "journal.jsonl").read_bytes()[:-30])


def garbage(run: Path) -> None:
    with (run / "journal.jsonl").open("ab") as file:
        file.write(b"\x00" * 100 + b"\n")


def time_back(run: Path) -> None:
    found = steps(run)
    found[5] = (found[4][0] - 1, *found[5][1:])
    evidence.rechained(run, found)


def empty(run: Path) -> None:
    put(run, [])


def gone(run: Path) -> None:
    (run / "journal.jsonl").unlink()


def change_manifest(run: Path) -> None:
    value = json.loads((run / "manifest.json").read_bytes())
    value["cost"]["spent_micro_usd"] = 1
    (run / "manifest.json").write_bytes(canonical(value) + b"\n")


def pretty_manifest(run: Path) -> None:
    value = json.loads((run / "manifest.json").read_bytes())
    (run / "manifest.json").write_text(json.dumps(value, indent=1))


def no_manifest(run: Path) -> None:
    (run / "manifest.json").unlink()


def nested_manifest(run: Path) -> None:
    (run / "manifest.json").write_bytes(b"[" * 200_000)


def change_contract(run: Path) -> None:
    value = json.loads((run / "contract.json").read_bytes())
    value["limits"]["budget_micro_usd"] = 500_000_000
    (run / "contract.json").write_bytes(canonical(value))


def no_contract(run: Path) -> None:
    (run / "contract.json").unlink()


def change_radius(run: Path) -> None:
    (run / "blast_radius.json").write_bytes(canonical({**evidence.RADIUS, "network": []}))


def no_anchors(run: Path) -> None:
    place = anchor.beside(run)
    assert place is not None
    place.unlink()


def bad_anchors(run: Path) -> None:
    place = anchor.beside(run)
    assert place is not None
    place.write_text('{"seq": "x"}\n')


def older_anchors(run: Path) -> None:
    place = anchor.beside(run)
    assert place is not None
    place.write_bytes(place.read_bytes().splitlines(keepends=True)[0])


TAMPERS: list[tuple[Callable[[Path], None], str, str]] = [
    (edit, "chain", "edited"),
    (delete_middle, "chain", "sequence"),
    (delete_first, "chain", "sequence"),
    (truncate, "anchors", "truncated"),
    (truncate_and_derive, "anchors", "truncated"),
    (reorder, "chain", "sequence"),
    (duplicate, "chain", "sequence"),
    (splice, "chain", "chain"),
    (whole_other_journal, "identity", "is of run"),
    (rechain, "anchors", "rewritten"),
    (rechain_and_derive, "anchors", "rewritten"),
    (forge_result, "anchors", "rewritten"),
    (rolled_back, "anchors", "truncated"),
    (fork, "anchors", "rewritten"),
    (torn, "chain", "torn"),
    (garbage, "chain", "not a record"),
    (time_back, "chain", "time"),
    (empty, "chain", "0 records"),
    (gone, "chain", "No such file"),
    (change_manifest, "manifest", "cost"),
    (pretty_manifest, "manifest", "encoding"),
    (no_manifest, "manifest", "No such file"),
    (nested_manifest, "manifest", "no JSON"),
    (change_contract, "contract", "not the one"),
    (no_contract, "contract", "No such file"),
    (change_radius, "blast radius", "not the one"),
    (no_anchors, "anchors", "no anchor"),
    (bad_anchors, "anchors", "is no anchor"),
    (older_anchors, "anchors", "has no anchor"),
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return evidence.write(tmp_path, evidence.good_run())


def failing(found: Verification) -> dict[str, str]:
    return {check.name: check.detail for check in found.checks if not check.ok}


def test_a_run_in_order_verifies(run: Path) -> None:
    found = verify_run(run)
    assert found.ok, failing(found)
    assert {check.name for check in found.checks} >= {"chain", "anchors", "stop sequence", "manifest", "contract"}


@pytest.mark.req("H14")
@pytest.mark.parametrize(("tamper", "check", "word"), TAMPERS, ids=[t[0].__name__ for t in TAMPERS])
def test_tampering_is_found_and_named(run: Path, tamper: Callable[[Path], None], check: str, word: str) -> None:
    assert verify_run(run).ok, "positive control: it verified before"
    tamper(run)
    found = verify_run(run)
    assert not found.ok
    assert word in failing(found).get(check, ""), failing(found)


def changed(run: Path, change: Callable[[list[tuple[str, dict[str, Any]]]], None]) -> dict[str, str]:
    """The checks that fail for a run that really went this way (nothing tampered)."""
    data = evidence.good_run()
    change(data)
    home = run.parent.parent / "went-wrong"
    shutil.rmtree(home, ignore_errors=True)
    return failing(verify_run(evidence.write(home, data)))


def index(data: list[tuple[str, dict[str, Any]]], kind: str, step: str = "") -> int:
    return next(n for n, (k, d) in enumerate(data) if k == kind and d.get("step", "") == step)


AFTER_STOP = [
    ("iteration.started", {"n": 4}, "iteration.started after the stop"),
    ("jail.started", {"role": "coder", "n": 4}, "a jail of role coder"),
    ("tool.called", {"tool": "run_tests", "outcome": "ok", "ms": 5}, "tool.called began after"),
    ("model.usage", evidence.usage(246_000, 99, ms=100), "model.usage began after"),
    ("gateway.started", {"pid": 1}, "gateway.started after the stop"),
]


@pytest.mark.parametrize(("kind", "data", "word"), AFTER_STOP, ids=[a[0] for a in AFTER_STOP])
def test_whatever_runs_after_the_stop_is_found(run: Path, kind: str, data: dict[str, Any], word: str) -> None:
    found = changed(run, lambda d: d.insert(index(d, "stop.step", "killed"), (kind, data)))
    assert word in found.get("stop sequence", ""), found


def test_what_was_in_flight_may_be_settled_late(run: Path) -> None:
    long = evidence.usage(287_000, 99, ms=60_000)
    found = changed(run, lambda d: d.insert(index(d, "stop.step", "killed"), ("model.usage", long)))
    assert not found


def test_the_gate_may_have_judges_look_after_the_stop(run: Path) -> None:
    def gate(data: list[tuple[str, dict[str, Any]]]) -> None:
        n = index(data, "promotion.decided")
        data[n:n] = [("jail.started", {"role": "tester", "n": 0}), ("jail.exited", {"role": "tester", "n": 0})]

    assert not changed(run, gate)


@pytest.mark.parametrize("step", ["lease_closed", "persisted", "killed", "kept"])
def test_a_missing_or_failed_step_of_the_stop_is_found(run: Path, step: str) -> None:
    missing = changed(run, lambda d: d.pop(index(d, "stop.step", step)))
    assert "missing" in missing.get("stop sequence", ""), missing
    failed = changed(run, lambda d: d[index(d, "stop.step", step)][1].update(ok=False))
    assert "failed" in failed.get("stop sequence", ""), failed


def test_steps_out_of_order_and_a_wrong_disposal_are_found(run: Path) -> None:
    def swap(data: list[tuple[str, dict[str, Any]]]) -> None:
        a, b = index(data, "stop.step", "persisted"), index(data, "stop.step", "killed")
        data[a], data[b] = data[b], data[a]

    assert "not in order: killed before persisted" in changed(run, swap)["stop sequence"]
    wrong = changed(run, lambda d: d[index(d, "stop.step", "kept")][1].update(step="reverted"))
    assert "where keep was decided" in wrong["stop sequence"]


def test_a_run_ends_once_with_its_own_code(run: Path) -> None:
    assert "0 records stop.decided" in changed(run, lambda d: d.pop(index(d, "stop.decided")))["ending"]
    assert (
        "finished with DONE"
        in changed(run, lambda d: d[index(d, "stop.decided")][1].update(code="STOP_OPERATOR"))["ending"]
    )
    again = changed(run, lambda d: d.append(("iteration.started", {"n": 9})))
    assert "after the end" in again["ending"]


def crashed(data: list[tuple[str, dict[str, Any]]], upto: str) -> None:
    """The supervisor died within the stop; another went through the whole of it again."""
    n = index(data, "stop.step", upto)
    again = evidence.stop("DONE", "every acceptance test passes and no judge objects", "keep")
    data[n + 1 :] = [("journal.recovered", {"holder_pid": 7, "torn": {}}), *again, data[-1]]


@pytest.mark.parametrize("upto", ["lease_closed", "frozen", "persisted", "killed", "kept"])
def test_a_stop_that_was_taken_up_again_after_a_crash_holds(run: Path, upto: str) -> None:
    assert not changed(run, lambda d: crashed(d, upto))


def test_a_second_stop_without_a_crash_or_with_another_code_does_not_hold(run: Path) -> None:
    again = ("stop.decided", {"code": "DONE", "why": "", "disposal": "keep"})
    found = changed(run, lambda d: d.insert(index(d, "stop.step", "kept"), again))
    assert "second stop step stop.decided" in found["stop sequence"]

    def other(data: list[tuple[str, dict[str, Any]]]) -> None:
        crashed(data, "kept")
        next(d for k, d in reversed(data) if k == "stop.decided")["code"] = "STOP_OPERATOR"

    assert "another stop" in changed(run, other)["stop sequence"]


def test_an_unfinished_run_does_not_verify(run: Path) -> None:
    found = changed(run, lambda d: d.pop())
    assert "0 records run.finished" in found["ending"]


def test_commits_are_asked_of_the_caller(run: Path) -> None:
    asked: list[tuple[str, str]] = []

    def exists(store: str, name: str) -> bool:
        asked.append((store, name))
        return name != evidence.COMMIT

    found = verify_run(run, commit_exists=exists)
    assert failing(found) == {"store": f"{evidence.COMMIT} is not in the store"}
    assert ("/srv/store.git", evidence.TREE) in asked


def test_a_promotion_after_the_end_keeps_it_verifiable(run: Path) -> None:
    from inbounds.journal.writer import Journal

    with Journal.open(run / "journal.jsonl") as journal:
        journal.append("promotion.decided", {"target": "development", "outcome": "rolled_back", "reasons": []})
    assert "manifest" in failing(verify_run(run)), "the manifest is of before"
    evidence.close(run)
    assert verify_run(run).ok


def test_the_program_runs_isolated_and_exits_by_what_it_finds(run: Path) -> None:
    argv = [sys.executable, "-I", "-m", "inbounds.journal.verify", str(run)]
    good = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (good.returncode, good.stdout.splitlines()[-1]) == (0, "verified")
    edit(run)
    bad = subprocess.run([*argv, "--json"], capture_output=True, text=True, check=False)
    assert bad.returncode == 1
    assert json.loads(bad.stdout)["ok"] is False


def test_a_hostile_name_does_not_reach_the_terminal(run: Path) -> None:
    found = steps(run)
    found[-1] = (found[-1][0], "run.finished", {"code": "\x1b]0;owned\x07\x1b[2JDONE", "exit": 0})
    evidence.rechained(run, found)
    done = subprocess.run(
        [sys.executable, "-I", "-m", "inbounds.journal.verify", str(run)], capture_output=True, check=False
    )
    assert done.returncode == 1
    assert b"\x1b" not in done.stdout
    assert b"\\x1b" in done.stdout


def test_an_exported_copy_verifies_with_its_anchors_named(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "bundle"
    shutil.copytree(run, copied)
    place = anchor.beside(run)
    assert place is not None
    assert "no anchor" in failing(verify_run(copied))["anchors"]
    argv = [sys.executable, "-I", "-m", "inbounds.journal.verify", str(copied), "--anchors", str(place)]
    assert subprocess.run(argv, capture_output=True, check=False).returncode == 0


def test_the_verifier_is_chain_manifest_and_the_standard_library() -> None:
    """What the interpreter really loads, not only what the source says."""
    code = "import sys, json; before = set(sys.modules); import inbounds.journal.verify; print(json.dumps(sorted(sys.modules)))"
    found = json.loads(subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=True).stdout)
    ours = {name for name in found if name.startswith("inbounds")}
    assert ours == {
        "inbounds",
        "inbounds.contracts",
        "inbounds.contracts.canonical",
        "inbounds.contracts.units",
        "inbounds.journal",
        "inbounds.journal.anchor",
        "inbounds.journal.chain",
        "inbounds.journal.manifest",
        "inbounds.journal.sequence",
        "inbounds.journal.tally",
        "inbounds.journal.verify",
    }
    assert not {"subprocess", "socket", "ctypes", "sqlite3", "asyncio", "ssl", "_socket"} & set(found)
    import inbounds.journal.verify as verifier

    calls = {
        n.func.attr
        for n in ast.walk(ast.parse(Path(str(verifier.__file__)).read_text()))
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)
    }
    assert not {"write", "write_text", "write_bytes", "unlink", "rename", "replace", "system", "mkdir"} & calls
