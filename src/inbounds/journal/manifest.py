"""The manifest of a run, derived from its journal and nothing else (H1-H13, H15).

Pure: records in, plain data out, integers and strings only; the same journal always gives the same bytes. What no
record says is "not observed", never empty. The agent's own words are kept apart, labelled, and prove nothing.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from inbounds.contracts.canonical import canonical
from inbounds.journal.chain import Record
from inbounds.journal.tally import (
    NOT_OBSERVED,
    TEXT_MAX,
    Calls,
    Denials,
    Legs,
    Progress,
    Reported,
    Written,
    limits_of,
    number,
    text,
    texts,
)

FORMAT = "inbounds-manifest/2"
LABEL = "the agent's own words: untrusted, unverified, never evidence"

# What a person or a program still reads; beyond it the journal itself is the list.
SAID_MAX, SAID_CHARS, FINDINGS_MAX, REASONS_MAX = 50, 4_000, 500, 200
# The last millisecond that a calendar here can name (year 9999); a time beyond it is no time.
TIME_MAX_MS = 253_402_300_799_999

_ACCEPTED = "run.accepted"


def derive(records: Iterable[Record]) -> dict[str, Any]:
    """Every field of section H from the records, in one pass; `manifest.schema.json` gives the shape.

    Accepts the journal of a run that has not ended: what is not there yet is "not observed".
    """
    manifest = Derivation()
    takers, head, count = manifest.takers, None, 0
    for record in records:
        if record.kind in takers:
            manifest.take(record)
        head, count = record, count + 1
    return manifest.made(head.seq if head else None, head.hash if head else "", count)


def encode(manifest: dict[str, Any]) -> bytes:
    """The bytes of manifest.json: RFC 8785, so that equal manifests are equal files."""
    return canonical(manifest) + b"\n"


class Derivation:
    """The pass over the records, for a reader that goes over them itself: `take` those of `KINDS`, then `made`.

    `takers` are the functions that read a kind of record.
    """

    def __init__(self) -> None:
        """Start from nothing."""
        self.accepted: dict[str, Any] = {}
        self.preflight: dict[str, Any] | None = None
        self.at_ms: int | str = NOT_OBSERVED
        self.calls, self.written = Calls(), Written()
        self.read, self.executed = Reported(), Reported()
        self.progress, self.denials, self.legs = Progress(self.calls), Denials(), Legs()
        self.lists: dict[str, list[dict[str, Any]]] = {kind: [] for kind in _LISTED}
        self.enforcement: dict[str, str] = {}
        self.programs: dict[str, dict[str, str]] = {}
        self.tools: dict[str, str] = {}
        self.takers: dict[str, list[Callable[[Record], None]]] = {}
        for counter in (self.calls, self.written, self.progress, self.denials, self.legs):
            for kind, take in counter.TAKES.items():
                self.takers.setdefault(kind, []).append(take.__get__(counter))
        for kind in _LISTED:
            self.takers.setdefault(kind, []).append(self._listed)
        own = {
            _ACCEPTED: self._accepted,
            "preflight.finished": self._preflighted,
            "jail.started": self._enforced,
            "gateway.started": self._started,
            "broker.started": self._started,
            "verdict": self._judged_with,
            "files.read": self.read.take,
            "files.executed": self.executed.take,
        }
        for kind, mine in own.items():
            self.takers.setdefault(kind, []).append(mine)

    def take(self, record: Record) -> None:
        """Count one record; one of a kind outside `KINDS` changes nothing."""
        for take in self.takers.get(record.kind, ()):
            take(record)

    def _accepted(self, record: Record) -> None:
        if not self.accepted:
            self.accepted, self.at_ms = record.data, record.at_ms

    def _preflighted(self, record: Record) -> None:
        self.preflight = record.data
        self._enforced(record)

    def _enforced(self, record: Record) -> None:
        # The weakest answer of the run stands: enforced in one jail and absent in the next is not enforced.
        found = record.data.get("enforcement")
        if found == self.enforcement:
            return
        for mechanism, state in found.items() if isinstance(found, dict) else ():
            if self.enforcement.get(mechanism, "enforced") == "enforced":
                self.enforcement[mechanism] = str(state)

    def _started(self, record: Record) -> None:
        seal = record.data.get("seal")
        if isinstance(seal, dict):
            self.programs[record.kind.partition(".")[0]] = {str(name): str(state) for name, state in seal.items()}

    def _judged_with(self, record: Record) -> None:
        facts = record.data.get("facts")
        if isinstance(facts, dict) and facts.get("version"):
            self.tools[text(record.data, "judge")] = str(facts["version"])[:TEXT_MAX]

    def _listed(self, record: Record) -> None:
        shape = _LISTED[record.kind]
        shaped = {name: read(record.data, name) for name, read in shape.items()}
        self.lists[record.kind].append({**record.data, **shaped, "seq": record.seq, "at_ms": record.at_ms})

    def made(self, seq: int | None, head: str, count: int) -> dict[str, Any]:
        """The manifest, with the journal's head (its last record's seq, None for none, and hash) and length."""
        accepted, legs = self.accepted, self.legs
        agent, versions = accepted.get("agent"), accepted.get("versions")
        limits = accepted.get("limits") if legs.limits is None else legs.limits
        budget = number(accepted, "budget_micro_usd")
        if legs.limits is not None and number(legs.limits, "budget_micro_usd") != NOT_OBSERVED:
            budget = number(legs.limits, "budget_micro_usd")
        return {
            "format": FORMAT,
            "run": {**_fields(accepted, "run_id", "thread", "mode", "operator"), **self._times()},
            "agent": {
                **_fields(agent if isinstance(agent, dict) else {}, "name", "version", "sha256"),
                **_fields(accepted, "model"),
            },
            "requirements": _requirements(accepted.get("requirements")),
            "plan": {"id": text(accepted, "plan_id"), "sha256": _digest(accepted, "plan_sha256")},
            "hashes": {
                name: _digest(accepted, name) for name in ("policy_sha256", "contract_sha256", "blast_radius_sha256")
            },
            "source": _fields(accepted, "base_commit", "base_tree", "store", "branch"),
            "limits": limits_of(limits),
            "amendments": legs.amendments,
            "files_read": self.read.files(),
            "files_read_more": self.read.more,
            "files_read_gaps": self.read.gaps,
            "files_executed": self.executed.paths(),
            "files_executed_more": self.executed.more,
            "files_executed_gaps": self.executed.gaps,
            "files_written": self.written.files(),
            "diff_summary": self.written.summary(),
            "external_calls": self.calls.hosts(),
            "model_refusals": self.calls.refusals(),
            "token_usage": self.calls.usage(),
            "tool_calls": self.calls.tools(),
            "cost": self.calls.cost(budget),
            "progress": self.progress.iterations(),
            "preflight": self._preflight(),
            "exit": legs.leave(),
            "legs": legs.all(),
            "recoveries": legs.recoveries,
            "enforcement": self.enforcement or NOT_OBSERVED,
            "programs": self.programs or NOT_OBSERVED,
            "versions": _versions(versions),
            "judge_tools": self.tools,
            "denials": self.denials.groups(),
            "verdicts": [_verdict(item) for item in self.lists["verdict"]],
            "commits": self.lists["commit.made"],
            "promotion": self.lists["promotion.decided"],
            "operator_decisions": self.lists["operator.decision"],
            "notices": self.lists["notice.sent"],
            "agent_claims": {"label": LABEL, **self._said()},
            "journal": self._journal(seq, head, count),
        }

    def _times(self) -> dict[str, Any]:
        start, end = self.at_ms, self.legs.ended_at_ms
        return {"started_at_ms": start, "started_at": _iso(start), "ended_at_ms": end, "ended_at": _iso(end)}

    def _preflight(self) -> dict[str, Any] | str:
        data = self.preflight
        if data is None:
            return NOT_OBSERVED
        ok, baseline = data.get("ok"), data.get("baseline")
        return {
            "ok": ok if type(ok) is bool else NOT_OBSERVED,
            "level": number(data, "level"),
            "baseline": baseline if isinstance(baseline, dict) else NOT_OBSERVED,
            "reasons": texts(data.get("reasons"), REASONS_MAX),
        }

    def _said(self) -> dict[str, Any]:
        said = self.lists["agent.said"]
        kept = [{"n": item["n"], "text": item["text"][:SAID_CHARS]} for item in said[-SAID_MAX:]]
        return {"said": kept, "left_out": len(said) - len(kept)}

    def _journal(self, seq: int | None, head: str, count: int) -> dict[str, Any]:
        return {
            "seq": NOT_OBSERVED if seq is None else seq,
            "hash": NOT_OBSERVED if seq is None else head,
            "records": count,
            "key": text(self.accepted, "journal_key"),
            "recovered": [item for item in self.legs.recoveries if item["kind"] == "journal.recovered"],
        }


def _whole(data: dict[str, Any], name: str) -> int:
    found = number(data, name)
    return found if isinstance(found, int) else 0


def _true(data: dict[str, Any], name: str) -> bool:
    return data.get(name) is True


# Kinds that are listed one by one, with the fields that always stand in an entry and how each is read.
_LISTED: dict[str, dict[str, Callable[[dict[str, Any], str], Any]]] = {
    "verdict": {},
    "agent.said": {"n": _whole, "text": text},
    "commit.made": {"n": _whole, "commit": text, "tree": text, "branch": text},
    "promotion.decided": {"target": text, "outcome": text, "commit": text},
    "operator.decision": {"kind": text, "operator": text},
    "notice.sent": {"channel": text, "ok": _true, "detail": text},
}


def _fields(data: dict[str, Any], *names: str) -> dict[str, str]:
    return {name: text(data, name) for name in names}


def _digest(data: dict[str, Any], name: str) -> str:
    value = text(data, name)
    return value if len(value) == 64 and not set(value) - set("0123456789abcdef") else NOT_OBSERVED  # noqa: PLR2004 - SHA-256


def _requirements(value: Any) -> list[dict[str, str]] | str:
    if not isinstance(value, list):
        return NOT_OBSERVED
    return [_fields(item, "id", "sha256", "owner") for item in value if isinstance(item, dict)]


def _versions(value: Any) -> dict[str, str] | str:
    if not isinstance(value, dict):
        return NOT_OBSERVED
    return {str(name): str(version)[:TEXT_MAX] for name, version in value.items()}


def _verdict(item: dict[str, Any]) -> dict[str, Any]:
    findings = item.get("findings")
    found = [finding for finding in findings if isinstance(finding, dict)] if isinstance(findings, list) else []
    facts = item.get("facts")
    return {
        "seq": item["seq"],
        "n": number(item, "n"),
        **_fields(item, "judge", "outcome", "summary"),
        "findings": found[:FINDINGS_MAX],
        "facts": facts if isinstance(facts, dict) else {},
        "left_out": max(0, len(found) - FINDINGS_MAX),
    }


def _iso(at_ms: int | str) -> str:
    if not isinstance(at_ms, int) or at_ms > TIME_MAX_MS:
        return NOT_OBSERVED
    stamp = datetime.fromtimestamp(at_ms // 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{stamp}.{at_ms % 1_000:03d}Z"


# What a reader that is in a hurry must hand in: records of every other kind change no field but the journal's head.
KINDS = frozenset(Derivation().takers)
