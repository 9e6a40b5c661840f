"""in-toto Statements (v1) about a run: the run itself, its tests, its review, its promotion, and a bundle's members.

Pure: records and hashes in, plain data out; the same journal always gives the same statement. Each says only what the
journal says, about subjects that somebody else can hash: commit, tree, journal file.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inbounds.journal.chain import Record

STATEMENT = "https://in-toto.io/Statement/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
RUN, REVIEW, PROMOTION, BUNDLE = (
    f"https://inbounds.invalid/attestation/{name}/v1" for name in ("run", "review", "promotion", "bundle")
)
# The parts of the manifest that a run's predicate repeats; the agent's own words are not among them.
STATED = (
    *("run", "agent", "requirements", "plan", "hashes", "source", "limits", "amendments", "diff_summary"),
    *("external_calls", "token_usage", "tool_calls", "cost", "progress", "exit", "legs", "recoveries"),
    *("enforcement", "programs", "versions", "judge_tools", "journal"),
)
_HEX = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")  # a git object's id of either format, a SHA-256
NAMES_MAX = 5_000  # test ids listed by outcome, as many as the tests judge lists
NO_TESTS = "the tests judge gave no answer that could be believed"


@dataclass(frozen=True, slots=True)
class Facts:
    """What statements are made of: the records, the manifest that they give, and SHA-256 (hex) of both files."""

    records: Sequence[Record]
    manifest: Mapping[str, Any]
    journal_sha256: str
    manifest_sha256: str


def run(facts: Facts) -> dict[str, Any]:
    """What was agreed, what was spent, what was enforced, and how it ended; subject: result and journal."""
    manifest = facts.manifest
    predicate = {name: manifest[name] for name in STATED}
    predicate["manifest"] = {"name": "manifest.json", "digest": {"sha256": facts.manifest_sha256}}
    return _statement([*_result(manifest), journal(facts)], RUN, predicate)


def tests(facts: Facts) -> dict[str, Any] | None:
    """The last word of the tests judge about the tree that it judged; None where it gave none (see NO_TESTS).

    INCONCLUSIVE is no result of this predicate (PASSED, WARNED, FAILED), and is never made one.
    """
    tree, snapshot, verdict = "", "", None
    for record in facts.records:
        if record.kind == "snapshot.taken":
            snapshot = str(record.data.get("tree", ""))
        elif record.kind == "verdict" and record.data.get("judge") == "tests":
            tree, verdict = snapshot, record
    if verdict is None or not _HEX.fullmatch(tree) or verdict.data.get("outcome") not in ("PASS", "FAIL"):
        return None
    found = verdict.data.get("facts")
    lists: Mapping[str, Any] = found if isinstance(found, dict) else {}
    contract = facts.manifest["hashes"]["contract_sha256"]
    bound = [{"name": "contract.json", "digest": {"sha256": contract}}] if _HEX.fullmatch(contract) else []
    predicate = {
        "result": "PASSED" if verdict.data["outcome"] == "PASS" else "FAILED",
        "configuration": bound,
        "passedTests": _names(lists.get("acceptance_passing")),
        "warnedTests": _names(lists.get("known_failing")),
        "failedTests": _names(lists.get("failing")),
        "inbounds": {
            "run_id": facts.manifest["run"]["run_id"],
            "iteration": verdict.data.get("n"),
            "record": {"seq": verdict.seq, "hash": verdict.hash},
            "summary": str(verdict.data.get("summary", "")),
            "passing": lists.get("passing"),
            "tests": lists.get("tests"),
            "passed_tests_are": "the acceptance tests that pass; `passing` counts all",
            "lists_cut": _names(lists.get("cut")),
        },
    }
    return _statement([_git("tree judged", "gitTree", tree)], TEST_RESULT, predicate)


def review(facts: Facts) -> dict[str, Any] | None:
    """What the judges said about the last tree, and what people signed; None for a run that no one judged."""
    tree, last = "", ""
    judged: list[dict[str, Any]] = []
    for record in facts.records:
        if record.kind == "snapshot.taken":
            last = str(record.data.get("tree", ""))
        elif record.kind == "iteration.started":
            judged = []
        elif record.kind == "verdict":
            tree = last
            judged.append(_verdict(record))
    if not judged or not _HEX.fullmatch(tree):
        return None
    predicate = {
        "run_id": facts.manifest["run"]["run_id"],
        "verdicts": judged,
        "decisions": [
            {name: item.get(name, "") for name in ("seq", "at_ms", "kind", "operator", "statement", "signature")}
            for item in facts.manifest["operator_decisions"]
        ],
    }
    return _statement([_git("tree judged", "gitTree", tree), journal(facts)], REVIEW, predicate)


def promotion(facts: Facts) -> dict[str, Any] | None:
    """What the gate decided, and what stands where now; None where it was never asked."""
    decisions, standing = [], dict[str, str]()
    for item in facts.manifest["promotion"]:
        reasons = item.get("reasons")
        decisions.append(
            {
                **{name: item[name] for name in ("seq", "at_ms", "target", "outcome", "commit")},
                "old": str(item.get("old") or ""),
                "reasons": _names(reasons),
            }
        )
        if item["outcome"] == "promoted":
            standing[item["target"]] = item["commit"]
        elif item["outcome"] == "rolled_back":
            standing.pop(item["target"], None)
    if not decisions:
        return None
    landed = [_git(f"on {target}", "gitCommit", commit) for target, commit in sorted(standing.items())]
    predicate = {"run_id": facts.manifest["run"]["run_id"], "decisions": decisions, "standing": standing}
    return _statement([*landed, journal(facts)], PROMOTION, predicate)


def bundle(members: Mapping[str, str], about: Mapping[str, Any]) -> dict[str, Any]:
    """A bundle's members (name to SHA-256, hex), and what was done to them."""
    return _statement([_file(name, digest) for name, digest in sorted(members.items())], BUNDLE, dict(about))


def journal(facts: Facts) -> dict[str, Any]:
    """The journal as a subject: the file's SHA-256, and its head, which commits to every record before it."""
    digest = {"sha256": facts.journal_sha256}
    if facts.records:
        digest["inboundsJournalHead"] = facts.records[-1].hash
    return {"name": "journal.jsonl", "digest": digest}


def _result(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The commit and tree that the run leaves, or the last tree of a run that committed nothing."""
    if manifest["commits"]:
        last = manifest["commits"][-1]
        return [_git("result", "gitCommit", last["commit"]), _git("result tree", "gitTree", last["tree"])]
    summary = manifest["diff_summary"]
    return [_git("last snapshot", "gitTree", summary["tree"])] if isinstance(summary, dict) else []


def _statement(subjects: list[dict[str, Any]], kind: str, predicate: dict[str, Any]) -> dict[str, Any]:
    """A subject is known by a digest: one whose record names none ("not observed") is left out."""
    subjects = [one for one in subjects if all(_HEX.fullmatch(str(found)) for found in one["digest"].values())]
    return {"_type": STATEMENT, "subject": subjects, "predicateType": kind, "predicate": predicate}


def _git(name: str, what: str, identifier: str) -> dict[str, Any]:
    return {"name": name, "digest": {what: identifier}}


def _file(name: str, sha256: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": sha256}}


def _names(value: Any) -> list[str]:
    return [str(name) for name in value[:NAMES_MAX]] if isinstance(value, (list, tuple)) else []


def _verdict(record: Record) -> dict[str, Any]:
    data = record.data
    findings = data.get("findings")
    return {
        "seq": record.seq,
        "hash": record.hash,
        "judge": str(data.get("judge", "")),
        "outcome": str(data.get("outcome", "")),
        "summary": str(data.get("summary", "")),
        "findings": len(findings) if isinstance(findings, list) else 0,
        "rules": _names(data.get("rules")),
    }
