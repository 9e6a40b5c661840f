"""The manifest of a run, derived from its journal and nothing else (H1-H13, H15).

Pure: records in, plain data out, integers and strings only; the same journal always gives the same bytes. What no
record says is "not observed", never empty. The agent's own words are kept apart, labelled, and prove nothing.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from inbounds.contracts.canonical import canonical
from inbounds.journal.chain import Record
from inbounds.journal.tally import Calls, Denials, Progress, Written

FORMAT = "inbounds-manifest/1"
NOT_OBSERVED = "not observed"
LABEL = "the agent's own words: untrusted, unverified, never evidence"

# What a person or a program still reads; beyond it the journal itself is the list.
SAID_MAX, SAID_CHARS, FINDINGS_MAX, REASONS_MAX = 50, 4_000, 500, 200

_ACCEPTED = "run.accepted"


def derive(records: Iterable[Record]) -> dict[str, Any]:
    """Every field of section H from the records, in one pass; `manifest.schema.json` gives the shape.

    Accepts the journal of a run that has not ended: what is not there yet is "not observed".
    """
    manifest = _Manifest()
    for record in records:
        manifest.take(record)
    return manifest.made()


def encode(manifest: dict[str, Any]) -> bytes:
    """The bytes of manifest.json: RFC 8785, so that equal manifests are equal files."""
    return canonical(manifest) + b"\n"


class _Manifest:
    """What the pass over the records has gathered."""

    def __init__(self) -> None:
        self.first: dict[str, dict[str, Any]] = {}  # kind -> data of its first record
        self.at_ms: dict[str, int] = {}
        self.head: Record | None = None
        self.count = 0
        self.calls, self.written = Calls(), Written()
        self.progress, self.denials = Progress(), Denials()
        self.lists: dict[str, list[dict[str, Any]]] = {}
        self.enforcement: dict[str, str] = {}
        self.files_read: set[str] = set()
        self.reads_observed = False

    def take(self, record: Record) -> None:
        kind, data = record.kind, record.data
        self.head, self.count = record, self.count + 1
        if kind not in self.first:
            self.first[kind], self.at_ms[kind] = data, record.at_ms
        self.calls.take(record)
        self.written.take(record)
        self.progress.take(record)
        self.denials.take(record)
        if kind in ("preflight.finished", "jail.started") and isinstance(data.get("enforcement"), dict):
            self._enforced(data["enforcement"])
        if kind == "files.read":  # hardened mode only: reported by the operating system
            self.reads_observed = True
            self.files_read.update(str(path) for path in data.get("paths", ()))
        if kind in _LISTED:
            listed = self.lists.setdefault(kind, [])
            listed.append({"seq": record.seq, "at_ms": record.at_ms, **data})

    def _enforced(self, found: dict[str, Any]) -> None:
        # The weakest answer of the run stands: enforced in one jail and absent in the next is not enforced.
        for mechanism, state in found.items():
            before = self.enforcement.get(mechanism)
            if before is None or before == "enforced":
                self.enforcement[mechanism] = str(state)

    def made(self) -> dict[str, Any]:
        accepted = self.first.get(_ACCEPTED, {})
        agent = accepted.get("agent") if isinstance(accepted.get("agent"), dict) else {}
        versions = accepted.get("versions")
        return {
            "format": FORMAT,
            "run": {
                **_fields(accepted, "run_id", "thread", "mode", "operator"),
                **self._times(),
            },
            "agent": {**_fields(agent or {}, "name", "version", "sha256"), **_fields(accepted, "model")},
            "requirements": accepted.get("requirements", NOT_OBSERVED),
            "plan": {"id": accepted.get("plan_id", NOT_OBSERVED), "sha256": accepted.get("plan_sha256", NOT_OBSERVED)},
            "hashes": _fields(accepted, "policy_sha256", "contract_sha256", "blast_radius_sha256"),
            "source": _fields(accepted, "base_commit", "base_tree", "store", "branch"),
            "limits": accepted.get("limits", NOT_OBSERVED),
            "files_read": sorted(self.files_read) if self.reads_observed else NOT_OBSERVED,
            "files_written": self.written.files(),
            "diff_summary": self.written.summary(),
            "external_calls": self.calls.hosts(),
            "model_refusals": self.calls.refusals(),
            "token_usage": self.calls.usage(),
            "tool_calls": self.calls.tools(),
            "cost": self.calls.cost(accepted.get("budget_micro_usd", NOT_OBSERVED)),
            "progress": self.progress.iterations(),
            "preflight": self._preflight(),
            "exit": self._exit(),
            "enforcement": self.enforcement or NOT_OBSERVED,
            "versions": versions if isinstance(versions, dict) else NOT_OBSERVED,
            "denials": self.denials.groups(),
            "verdicts": [_verdict(item) for item in self.lists.get("verdict", [])],
            "commits": self.lists.get("commit.made", []),
            "promotion": self.lists.get("promotion.decided", []),
            "operator_decisions": self.lists.get("operator.decision", []),
            "notices": self.lists.get("notice.sent", []),
            "agent_claims": {"label": LABEL, **self._said()},
            "journal": self._journal(),
        }

    def _times(self) -> dict[str, Any]:
        start, end = self.at_ms.get(_ACCEPTED), self.at_ms.get("run.finished")
        return {
            "started_at_ms": start if start is not None else NOT_OBSERVED,
            "started_at": _iso(start),
            "ended_at_ms": end if end is not None else NOT_OBSERVED,
            "ended_at": _iso(end),
        }

    def _preflight(self) -> dict[str, Any] | str:
        data = self.first.get("preflight.finished")
        if data is None:
            return NOT_OBSERVED
        return {
            **_fields(data, "ok", "level", "baseline"),
            "reasons": [str(reason) for reason in data.get("reasons", [])][:REASONS_MAX],
        }

    def _exit(self) -> dict[str, Any]:
        stop, finished = self.first.get("stop.decided", {}), self.first.get("run.finished", {})
        return {
            "condition": stop.get("why", NOT_OBSERVED),
            "code": finished.get("code", stop.get("code", NOT_OBSERVED)),
            "disposal": stop.get("disposal", NOT_OBSERVED),
            "exit": finished.get("exit", NOT_OBSERVED),
            "steps": self.lists.get("stop.step", []) or NOT_OBSERVED,
        }

    def _said(self) -> dict[str, Any]:
        said = self.lists.get("agent.said", [])
        kept = [{"n": item.get("n", 0), "text": str(item.get("text", ""))[:SAID_CHARS]} for item in said[-SAID_MAX:]]
        return {"said": kept, "left_out": len(said) - len(kept)}

    def _journal(self) -> dict[str, Any]:
        if self.head is None:
            return {"seq": NOT_OBSERVED, "hash": NOT_OBSERVED, "records": 0, "recovered": []}
        return {
            "seq": self.head.seq,
            "hash": self.head.hash,
            "records": self.count,
            "recovered": self.lists.get("journal.recovered", []),
        }


_LISTED = frozenset(
    {
        "verdict",
        "commit.made",
        "promotion.decided",
        "operator.decision",
        "notice.sent",
        "agent.said",
        "stop.step",
        "journal.recovered",
    }
)


def _fields(data: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: data.get(name, NOT_OBSERVED) for name in names}


def _verdict(item: dict[str, Any]) -> dict[str, Any]:
    findings = item.get("findings", [])
    kept = findings[:FINDINGS_MAX] if isinstance(findings, list) else []
    return {
        **_fields(item, "seq", "n", "judge", "outcome", "summary"),
        "findings": kept,
        "facts": item.get("facts", {}),
        "left_out": len(findings) - len(kept),
    }


def _iso(at_ms: int | None) -> str:
    if at_ms is None:
        return NOT_OBSERVED
    stamp = datetime.fromtimestamp(at_ms // 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{stamp}.{at_ms % 1_000:03d}Z"
