"""What people decide about a finished run: approve, re-authorize, promote, roll back, discard; all of it journalled.

Each statement is bound to the tree or to the stop event's hash, so that any later change voids it. The gate decides.
"""

from pathlib import Path
from typing import Any

from inbounds.contracts.bound import Contract
from inbounds.contracts.canonical import canonical
from inbounds.contracts.errors import HostError, OperatorError, RefusedError
from inbounds.journal import append_only, signing, sshsig
from inbounds.journal.writer import Journal
from inbounds.run import authorize, housing, promotion, reauthorize, recovery, retention, stopping
from inbounds.run.clock import now_ms
from inbounds.run.home import Home
from inbounds.run.launch import CONTRACT, JOURNAL, SETTINGS, read_contract
from inbounds.run.replay import records
from inbounds.store.descent import delete_tree, usage
from inbounds.store.store import Store


def finished(home: Home, run_id: str) -> tuple[Path, Contract]:
    """A run that is over; RefusedError while it runs. One whose supervisor died is brought to its end first."""
    phase = recovery.phase(home, run_id)
    if phase == "orphaned":
        recovery.recover(home, run_id)
    elif phase != "finished":
        raise RefusedError(f"{run_id} is {phase}", expected="a run that is over", fix=f"inbounds stop {run_id}")
    run_dir = home.run(run_id)
    contract = read_contract(run_dir)
    accepted = next((record for record in records(run_dir) if record.kind == "run.accepted"), None)
    if accepted is not None and accepted.data.get("contract_sha256") != contract.sha256():
        raise HostError(
            "the contract is not the one that was agreed on",
            where=str(run_dir / CONTRACT),
            expected="the contract that the journal's first record names",
            fix=f"inbounds verify {run_id}",
        )
    return run_dir, contract


def approval(home: Home, run_id: str, note: str) -> dict[str, Any]:
    """The statement that an approval signs: the exact tree, plan, stop and journal head."""
    run_dir, contract = finished(home, run_id)
    found = promotion.standing(run_dir)
    if not found.commit:
        raise RefusedError("the run made no commit: there is nothing to approve", where=run_id)
    return {
        "what": "approve",
        "run_id": run_id,
        "plan_id": contract.plan.plan_id,
        "tree": found.tree,
        "commit": found.commit,
        "stop_code": found.stop_code,
        "journal_head": found.head[1],
        "note": note,
    }


def reauthorization(home: Home, run_id: str, note: str) -> dict[str, Any]:
    """The statement that a resume signs, bound to the stop event's hash (E14)."""
    run_dir, contract = finished(home, run_id)
    return reauthorize.statement(run_dir, contract, note)


def sign(home: Home, run_id: str, statement: dict[str, Any]) -> dict[str, Any]:
    """Sign a statement as the operator at the keyboard and journal it; returns the operator.decision record's data."""
    _, contract = finished(home, run_id)
    name, key = authorize.me(contract.operator_keys)
    armored = sshsig.sign(key, canonical(statement), authorize.APPROVAL_NAMESPACE)
    kept = {"kind": statement["what"], "operator": name, "statement": statement, "signature": armored}
    append(home, run_id, "operator.decision", kept)
    return kept


def promote(home: Home, run_id: str, target: str) -> dict[str, Any]:
    """Ask the gate; the contract files that a person tightened since are not asked again."""
    run_dir, contract = finished(home, run_id)
    answer = promotion.promote(contract, run_dir, target)
    append(home, run_id, "promotion.decided", answer)
    return answer


def roll_back(home: Home, run_id: str) -> dict[str, Any]:
    """Undo what the run landed on development."""
    run_dir, contract = finished(home, run_id)
    landed = promotion.standing(run_dir).landed.get("development", "")
    tree = Store.open(contract.store).tree_of(landed) if landed else ""
    answer = promotion.roll_back(contract, run_dir, tree)
    append(home, run_id, "promotion.decided", answer)
    return answer


def discard(home: Home, run_id: str, *, evidence: bool) -> dict[str, Any]:
    """Delete workspace, quarantine, jobs and agent branch; with `evidence` the whole run. Landed work is refused."""
    phase = recovery.phase(home, run_id)
    run_dir = home.run(run_id)
    if phase in ("running", "starting"):
        raise RefusedError(f"{run_id} is {phase}", fix=f"inbounds stop {run_id}")
    if not ((run_dir / CONTRACT).exists() and (run_dir / SETTINGS).exists()):
        evidence = True  # it never started: there is none
    else:
        run_dir, contract = finished(home, run_id)
        if promotion.standing(run_dir).landed:
            raise RefusedError(f"{run_id} has landed", expected="unlanded work", fix=f"inbounds rollback {run_id}")
        store = Store.open(contract.store)
        for ref in (f"refs/heads/{contract.branch}", f"refs/inbounds/evidence/{run_id}"):
            old = store.ref(ref)
            if old:
                store.delete_ref(ref, old)
        retention.forget(store, run_id)
        housing.discard(run_dir)
    freed = 0
    places = [run_dir / name for name in ("workspace", "jobs")] + stopping.quarantines(run_dir)
    places = [run_dir] if evidence else places
    append_only.release_path(run_dir / JOURNAL)
    for place in places:
        if place.exists():
            freed += usage(str(place)).bytes
            delete_tree(str(place))
    if not evidence and (run_dir / JOURNAL).exists():
        append(home, run_id, "work.discarded", {"bytes": freed})
    return {"run_id": run_id, "bytes": freed, "evidence": "deleted" if evidence else "kept"}


def append(home: Home, run_id: str, kind: str, data: dict[str, Any]) -> None:
    """One record behind a run's end, signed and anchored like those of its supervisor; manifest and report follow."""
    run_dir = home.run(run_id)
    with Journal.open(run_dir / JOURNAL, signer=signing.open_signer(home.keys)) as journal:
        journal.append(kind, data, now_ms(), sync=True)
    stopping.write_manifest(run_dir)
    trouble = stopping.write_report(run_dir)
    if trouble:
        raise OperatorError(trouble, where=str(run_dir))
