"""Re-authorization: what people sign so that a stopped run may go on, bound to the stop event's hash (E14, N7, O7).

Makes statements and reads the signed ones back out of the journal; asks nobody and starts nothing.
"""

from pathlib import Path
from typing import Any

from inbounds.contracts.bound import Contract
from inbounds.contracts.errors import RefusedError
from inbounds.contracts.reasons import StopCode
from inbounds.journal.chain import Record
from inbounds.run import authorize, promotion
from inbounds.run.replay import records, replay

DECISION = "operator.decision"


def last_stop(run_dir: Path) -> Record | None:
    """The stop event of the run's last leg."""
    found = None
    for record in records(run_dir):
        if record.kind == "stop.decided":
            found = record
    return found


def statement(run_dir: Path, contract: Contract, note: str) -> dict[str, Any]:
    """The statement that a resume signs; RefusedError where nothing stopped short."""
    stop = last_stop(run_dir)
    if stop is None or stop.data["code"] == StopCode.DONE:
        raise RefusedError(
            f"{contract.run_id} did not stop short: there is nothing to re-authorize",
            fix=f"inbounds review {contract.run_id}",
        )
    return {
        "what": "resume",
        "run_id": contract.run_id,
        "stop_code": str(stop.data["code"]),
        "why": str(stop.data["why"]),
        "stop_hash": stop.hash,
        "commit": promotion.standing(run_dir).commit,
        "branch": contract.branch,
        "store": contract.store,
        "note": note,
    }


def given(run_dir: Path, contract: Contract) -> dict[str, Record]:
    """Who has validly re-authorized the last stop so far: operator -> the record of the signed decision."""
    stop = last_stop(run_dir)
    if stop is None:
        return {}
    able = set(contract.conducted().resume_by or contract.operator_keys)
    found: dict[str, Record] = {}
    for record in records(run_dir):
        said, armored = record.data.get("statement"), record.data.get("signature")
        if record.kind != DECISION or not isinstance(said, dict) or not isinstance(armored, str):
            continue
        wanted = {"what": "resume", "run_id": contract.run_id, "stop_hash": stop.hash}
        if {name: said.get(name) for name in wanted} != wanted:
            continue
        name = authorize.signed_by(said, armored, contract.operator_keys, authorize.APPROVAL_NAMESPACE)
        if name in able:
            found[name] = record
    return found


def wanted(run_dir: Path, contract: Contract) -> int:
    """How many signatures the last stop takes: policy may want more after an incident. The kernel's own count."""
    conduct = contract.conducted()
    return conduct.incident_approvals if replay(records(run_dir)).state.incident else conduct.resume_approvals


def granted(run_dir: Path, contract: Contract) -> dict[str, Any] | None:
    """run.reauthorized's data once enough people have signed, None before."""
    signed = given(run_dir, contract)
    if not signed or len(signed) < wanted(run_dir, contract):
        return None
    last = max(signed.values(), key=lambda record: record.seq)
    return {
        "stop_hash": str(last.data["statement"]["stop_hash"]),
        "stop_code": str(last.data["statement"]["stop_code"]),
        "operator": str(last.data["operator"]),
        "operators": sorted(signed),
        "decisions": sorted(record.seq for record in signed.values()),
        "statement": last.data["statement"],
        "signature": last.data["signature"],
    }
