"""Asking the promoter: one request on its stdin, one answer on its stdout, in a process of its own.

The promoter alone moves protected refs; this side only gathers, from the run's journal, the evidence that it wants.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inbounds.contracts.bound import Contract
from inbounds.contracts.errors import HostError, RefusedError
from inbounds.contracts.reasons import StopCode
from inbounds.contracts.verdict import Outcome
from inbounds.judges.anomalies import repetition
from inbounds.run import authorize
from inbounds.run.judging import PROMOTING
from inbounds.run.replay import records
from inbounds.store.store import Store

TIMEOUT_S = 120.0  # a merge of two trees and a few refs
ANSWER_BYTES_MAX = 1 << 20


def ask(request: Mapping[str, Any]) -> dict[str, Any]:
    """The promoter's answer {"outcome", "target", "commit", "old", "reasons"}; HostError if it gives none."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-m", "inbounds.promote"],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
            cwd="/",
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"the promoter gave no answer: {error}", expected="an answer within two minutes") from error
    try:
        answer = json.loads(done.stdout[:ANSWER_BYTES_MAX])
        assert isinstance(answer, dict)
        assert isinstance(answer["outcome"], str)
    except (ValueError, KeyError, AssertionError) as error:
        said = done.stderr.decode("utf-8", "replace").strip()[-500:]
        raise HostError(f"the promoter's answer cannot be read: {said or done.returncode}") from error
    return answer


@dataclass(slots=True)
class Standing:
    """What a run's journal says of its result: the last commit and its tree, the stop, what landed.

    `verdicts` are the last iteration's, and `judged` the tree that they are about, "" where not all have spoken.
    `anomalies` are the rules that keep it from landing by itself (H16-H20); `approvals` what people have stated since.
    """

    commit: str = ""
    tree: str = ""
    judged: str = ""
    stop_code: str = ""
    verdicts: dict[str, str] = field(default_factory=dict)
    anomalies: tuple[str, ...] = ()
    approvals: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    landed: dict[str, str] = field(default_factory=dict)
    head: tuple[int, str] = (0, "")


def standing(run_dir: Path) -> Standing:
    """Read it from the journal; HostError if there is none."""
    found = Standing()
    for record in records(run_dir):
        data = record.data
        found.head = (record.seq, record.hash)
        if record.kind == "iteration.started":
            found.verdicts.clear()
            found.judged = ""
        elif record.kind == "iteration.finished":
            found.judged = str(data["tree"])
        elif record.kind == "verdict":
            found.verdicts[str(data["judge"])] = str(data["outcome"])
            if data["judge"] == repetition.JUDGE:
                found.anomalies = _blocking(data)
        elif record.kind == "commit.made":
            found.commit, found.tree = str(data["commit"]), str(data["tree"])
        elif record.kind == "stop.decided":
            found.stop_code = str(data["code"])
            found.approvals.clear()  # what was stated before is about another leg's evidence
        elif record.kind == "operator.decision":
            if isinstance(data.get("statement"), dict) and isinstance(data.get("signature"), str):
                found.approvals.append((data["statement"], data["signature"]))
        elif record.kind == "promotion.decided" and data["outcome"] == "promoted":
            found.landed[str(data["target"])] = str(data["commit"])
        elif record.kind == "promotion.decided" and data["outcome"] == "rolled_back":
            found.landed.pop(str(data["target"]), None)
    return found


def _blocking(verdict: Mapping[str, Any]) -> tuple[str, ...]:
    """The rules that fired and do more than be noted."""
    facts = verdict.get("facts")
    actions = facts.get("actions") if isinstance(facts, Mapping) else None
    return tuple(sorted(r for r, a in actions.items() if a != "note")) if isinstance(actions, Mapping) else ()


def approved(contract: Contract, found: Standing) -> dict[str, str]:
    """Signatures by operators over exactly what would land, by name; of another run, commit or tree is none (K5)."""
    wanted = {"what": "approve", "run_id": contract.run_id, "commit": found.commit, "tree": found.tree}
    signed: dict[str, str] = {}
    for statement, armored in found.approvals:
        if {name: statement.get(name) for name in wanted} == wanted:
            name = authorize.signed_by(statement, armored, contract.operator_keys, authorize.APPROVAL_NAMESPACE)
            signed |= {name: armored} if name else {}
    return signed


def promote(contract: Contract, run_dir: Path, target: str) -> dict[str, Any]:
    """Ask the gate to land this run's result; the answer is promotion.decided's data.

    Where a signature answered anomalies, its reasons say which rules and by whom.
    """
    found = standing(run_dir)
    if not found.commit:
        raise RefusedError("the run made no commit", where=contract.run_id, expected="a run that changed something")
    if found.stop_code == StopCode.DONE and found.tree != found.judged:
        why = "the last verdicts are about another tree than the last commit's"
        return {"outcome": "refused", "target": target, "commit": "", "old": "", "reasons": [why]}
    signed = approved(contract, found)
    answer = ask(_request(contract, found, "promote", target, found.commit, found.tree, tuple(signed.values())))
    if answer["outcome"] == "promoted" and found.verdicts.get(repetition.JUDGE) == Outcome.FAIL:
        rules = ", ".join(found.anomalies)
        answer["reasons"] = [f"anomalies ({rules}) answered for this tree by {', '.join(sorted(signed))}"]
    return answer


def landed(contract: Contract, run_dir: Path, target: str) -> dict[str, Any] | None:
    """What the gate did for this run without its being recorded (the supervisor died between), or None."""
    store, found = Store.open(contract.store), standing(run_dir)
    tip = store.ref(f"refs/heads/{target}")
    if tip is None or not found.commit:
        return None
    for line in store.git("rev-list", "--first-parent", "--merges", "--parents", tip).splitlines():
        commit, old, *merged = line.split()
        if merged == [found.commit]:
            why = "found landed; the supervisor died before it could write it down"
            return {"outcome": "promoted", "target": target, "commit": commit, "old": old, "reasons": [why]}
    return None


def roll_back(contract: Contract, run_dir: Path, tree_of_landed: str, target: str = "development") -> dict[str, Any]:
    """Ask the gate to undo what this run landed on `target`."""
    found = standing(run_dir)
    landed = found.landed.get(target)
    if landed is None:
        raise RefusedError(
            f"nothing of this run stands on {target}", where=contract.run_id, fix=f"inbounds discard {contract.run_id}"
        )
    return ask(_request(contract, found, "rollback", target, landed, tree_of_landed, ()))


def _request(
    contract: Contract, found: Standing, op: str, target: str, source: str, tree: str, signatures: tuple[str, ...]
) -> dict[str, Any]:
    return {
        "store": contract.store,
        "op": op,
        "target": target,
        "source_commit": source,
        "expected_tree": tree,
        "base_commit": contract.base_commit,
        "evidence": {
            "verdicts": [{"judge": judge, "outcome": outcome} for judge, outcome in found.verdicts.items()],
            "stop_code": found.stop_code,
            "plan_id": contract.plan.plan_id,
            "run_id": contract.run_id,
            "journal_head": found.head[1],
            "signatures": list(signatures),
        },
        "required_judges": list(PROMOTING),
        "when": int(time.time()),
    }
