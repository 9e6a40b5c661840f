"""What `verify` says of runs that really went this way: stops, ends, exported copies, and what the verifier is made of.

Tampering is in test_tamper.py, legs and people's signatures are in test_legs.py.
"""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evidence
import pytest
import tampering

from inbounds.journal import anchor
from inbounds.journal.checks import State
from inbounds.journal.verify import Verification, verify_run
from inbounds.journal.writer import Journal


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return evidence.write(tmp_path, evidence.good_run())


def failing(found: Verification) -> dict[str, str]:
    return {check.name: check.detail for check in found.checks if not check.ok}


def test_a_run_in_order_verifies(run: Path) -> None:
    found = verify_run(run)
    assert found.ok, failing(found)
    assert {check.name for check in found.checks} >= {"chain", "anchors", "stop sequence", "manifest", "contract"}


def changed(run: Path, change: Callable[[list[tuple[str, dict[str, Any]]]], object]) -> dict[str, str]:
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
    assert "after the end" in again["legs"]


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
    assert failing(found) == {"store": f"object missing: {evidence.COMMIT} is not in the store"}
    assert ("/srv/store.git", evidence.TREE) in asked


def test_a_promotion_after_the_end_keeps_it_verifiable(run: Path) -> None:
    with Journal.open(run / "journal.jsonl", signer=evidence.SIGNER) as journal:
        journal.append("promotion.decided", {"target": "development", "outcome": "rolled_back", "reasons": []})
    assert "manifest" in failing(verify_run(run)), "the manifest is of before"
    evidence.close(run)
    assert verify_run(run).ok


def test_the_program_runs_isolated_and_exits_by_what_it_finds(run: Path) -> None:
    argv = [sys.executable, "-I", "-m", "inbounds.journal.verify", str(run)]
    good = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (good.returncode, good.stdout.splitlines()[-1]) == (0, "verified")
    tampering.edit_a_byte(run)
    bad = subprocess.run([*argv, "--json"], capture_output=True, text=True, check=False)
    assert bad.returncode == 1
    assert json.loads(bad.stdout)["ok"] is False


def test_a_hostile_name_does_not_reach_the_terminal(run: Path) -> None:
    found = tampering.steps(run)
    n = tampering.at(run, "run.finished")
    found[n] = (found[n][0], "run.finished", {"code": "\x1b]0;owned\x07\x1b[2JDONE", "exit": 0})
    evidence.rechained(run, found)
    done = subprocess.run(
        [sys.executable, "-I", "-m", "inbounds.journal.verify", str(run)], capture_output=True, check=False
    )
    assert done.returncode == 1
    assert b"\x1b" not in done.stdout
    assert b"\\x1b" in done.stdout


def test_an_exported_copy_verifies_with_its_anchors_and_key_named(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "bundle"
    shutil.copytree(run, copied)
    place, key = anchor.beside(run), run.parents[1] / "keys" / "journal.pub"
    assert place is not None
    lonely = verify_run(copied)
    assert "no anchor" in failing(lonely)["anchors"]
    assert lonely.verdict == "NOT verified"
    argv = [sys.executable, "-I", "-m", "inbounds.journal.verify", str(copied), "--anchors", str(place)]
    assert subprocess.run(argv, capture_output=True, check=False).returncode == 1
    assert subprocess.run([*argv, "--key", str(key)], capture_output=True, check=False).returncode == 0
    (copied / "keys").mkdir()
    shutil.copy(key, copied / "keys")
    shutil.copy(place, copied / "anchors.jsonl")
    bundle = verify_run(copied)
    assert bundle.ok
    assert "the bundle itself" in next(check.detail for check in bundle.checks if check.name == "key")


def test_without_a_key_nothing_that_is_signed_holds(run: Path) -> None:
    found = verify_run(run, keys=())
    states = {check.name: check.state for check in found.checks}
    assert (states["key"], states["checkpoints"]) == (State.UNCHECKED, State.UNCHECKED)
    assert not found.ok
    assert found.verdict == "not verified: not all checked"
    assert State.FAILS not in states.values()


def test_a_journal_that_nobody_signed_does_not_verify(tmp_path: Path) -> None:
    steps = evidence.good_run()
    del steps[0][1]["journal_key"]
    found = failing(verify_run(evidence.write(tmp_path, steps, signer=None)))
    assert {"key", "checkpoints"} <= set(found)


def test_what_is_behind_the_last_anchor_is_said(run: Path) -> None:
    assert not verify_run(run).notes
    with Journal.open(run / "journal.jsonl", signer=evidence.SIGNER) as journal:
        journal.append("notice.sent", {"channel": "desktop", "ok": True, "detail": ""}, sync=True)
    evidence.close(run)
    found = verify_run(run)
    assert found.ok
    [note] = found.notes
    assert "behind every checkpoint and anchor" in note


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
        "inbounds.journal.apart",
        "inbounds.journal.armour",
        "inbounds.journal.chain",
        "inbounds.journal.checks",
        "inbounds.journal.contents",
        "inbounds.journal.damage",
        "inbounds.journal.ed25519",
        "inbounds.journal.links",
        "inbounds.journal.manifest",
        "inbounds.journal.merkle",
        "inbounds.journal.note",
        "inbounds.journal.people",
        "inbounds.journal.sequence",
        "inbounds.journal.shapes",
        "inbounds.journal.tally",
        "inbounds.journal.verify",
        "inbounds.journal.witness",
    }
    assert not {"subprocess", "socket", "ctypes", "sqlite3", "asyncio", "ssl", "_socket"} & set(found)
    import inbounds.journal.verify as verifier

    calls = {
        n.func.attr
        for n in ast.walk(ast.parse(Path(str(verifier.__file__)).read_text()))
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)
    }
    assert not {"write", "write_text", "write_bytes", "unlink", "rename", "replace", "system", "mkdir"} & calls
