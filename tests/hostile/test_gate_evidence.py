"""What the gate is told: verdicts about exactly the tree that would land, from the run that was agreed on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from runrig import Rig, script, write

from inbounds.contracts.bound import Contract
from inbounds.contracts.errors import HostError
from inbounds.journal.writer import Journal
from inbounds.run import authorize, decision, launch, promotion

BAD, GOOD = "b" * 40, "a" * 40


def journal(run_dir: Path, *records: tuple[str, dict[str, Any]]) -> Path:
    run_dir.mkdir()
    with Journal.open(run_dir / launch.JOURNAL) as writer:
        for kind, data in records:
            writer.append(kind, data)
    return run_dir


def iteration(n: int, tree: str, outcome: str, *, commit: bool) -> list[tuple[str, dict[str, Any]]]:
    made = {"n": n, "commit": tree, "tree": tree, "branch": "agent/x"}
    return [
        ("iteration.started", {"n": n}),
        *(("verdict", {"n": n, "judge": judge, "outcome": outcome}) for judge in promotion.PROMOTING),
        ("iteration.finished", {"n": n, "tree": tree}),
        *([("commit.made", made)] if commit else []),
    ]


@pytest.mark.req("K3", "D7")
def test_a_verdict_opens_the_gate_for_its_own_tree_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing commit, then an iteration without one that passes (a flaky test): the commit must not land."""
    asked: list[Any] = []
    monkeypatch.setattr(promotion, "ask", lambda request: asked.append(request) or {"outcome": "promoted"})
    monkeypatch.setattr(promotion, "_request", lambda *facts: facts)
    contract: Any = SimpleNamespace(run_id="r", operator_keys={})
    done = ("stop.decided", {"code": "DONE"})
    stale = journal(
        tmp_path / "stale", *iteration(1, BAD, "FAIL", commit=True), *iteration(2, GOOD, "PASS", commit=False), done
    )
    assert promotion.promote(contract, stale, "development")["outcome"] == "refused"
    assert not asked
    fresh = journal(tmp_path / "fresh", *iteration(1, GOOD, "PASS", commit=True), done)
    assert promotion.promote(contract, fresh, "development")["outcome"] == "promoted"
    assert len(asked) == 1


@pytest.mark.req("E8")
def test_a_contract_swapped_after_the_run_decides_nothing(rig: Rig) -> None:
    ran = rig.run(script(write("billing/x.py", "1\n"), {"text": "done"}))
    run_dir, _ = decision.finished(rig.home, ran.run_id)  # the control
    path = run_dir / launch.CONTRACT
    contract = msgspec.json.decode(path.read_bytes(), type=Contract)
    path.write_bytes(msgspec.structs.replace(contract, promote_auto=not contract.promote_auto).encode())
    with pytest.raises(HostError, match="agreed"):
        decision.finished(rig.home, ran.run_id)


def test_an_approval_counts_for_its_own_run_only(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = rig.run(script(write("invoice.py", "VALUE = 1\n"), {"text": "done"}))
    run_dir, contract = decision.finished(rig.home, ran.run_id)
    monkeypatch.setattr(authorize, "me", lambda *_: (contract.operator, rig.stage.key))
    statement = decision.approval(rig.home, ran.run_id, "")
    kept = decision.sign(rig.home, ran.run_id, statement)
    only = {contract.operator: kept["signature"]}
    assert promotion.approved(contract, promotion.standing(run_dir)) == only
    # the same record in another run's journal, and a statement that was changed after it was signed
    other = msgspec.structs.replace(
        contract, run_id=contract.run_id[:-1] + ("0" if contract.run_id[-1] != "0" else "1")
    )
    assert promotion.approved(other, promotion.standing(run_dir)) == {}
    forged = {**kept, "statement": {**statement, "note": "something else"}}
    with Journal.open(run_dir / launch.JOURNAL) as writer:
        writer.append("operator.decision", forged)
    assert promotion.approved(contract, promotion.standing(run_dir)) == only
    # what was approved before a run went on is about the evidence of then
    with Journal.open(run_dir / launch.JOURNAL) as writer:
        writer.append("stop.decided", {"code": "DONE"})
    assert promotion.approved(contract, promotion.standing(run_dir)) == {}
