"""What the promoter is asked, parsed once from untrusted JSON into frozen values, and what it answers.

Knows nothing of git or of whether the request should be granted.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from inbounds.contracts.errors import OperatorError
from inbounds.contracts.ids import PLAN_ID, RUN_ID, SHA256
from inbounds.contracts.verdict import Outcome

# A request is a handful of ids and a few dozen verdicts.
REQUEST_BYTES_MAX = 1 << 20
VERDICTS_MAX = 200
TEXT_MAX = 4_000
TARGETS = ("development", "staging", "main")
OBJECT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
JUDGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the run's journal says of the commit: verdicts of its last iteration, and where the journal stood."""

    verdicts: tuple[tuple[str, Outcome], ...]
    stop_code: str
    plan_id: str
    run_id: str
    journal_head: str
    signatures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """Promote: land `source_commit` (whose tree was judged to be `expected_tree`) on `target`.

    Rollback: `source_commit` is the merge that landed; `expected_tree` its tree; verdicts are not asked for.
    `base_commit` is where the run started: a target that does not exist yet begins there.
    """

    store: str
    op: Literal["promote", "rollback"]
    target: str
    source_commit: str
    expected_tree: str
    base_commit: str
    evidence: Evidence
    required_judges: tuple[str, ...]
    when: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One line of JSON: `old` and `commit` are what the target stood at before and after ("" if nowhere)."""

    outcome: Literal["promoted", "refused", "rolled_back"]
    target: str
    commit: str
    old: str
    reasons: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain data, as the journal's promotion.decided."""
        return {
            "outcome": self.outcome,
            "target": self.target,
            "commit": self.commit,
            "old": self.old,
            "reasons": list(self.reasons),
        }


def parse(raw: bytes) -> Request:
    """Parse one request; OperatorError names the first field that is missing, unknown or malformed."""
    if len(raw) > REQUEST_BYTES_MAX:
        raise _wrong("request", f"more than {REQUEST_BYTES_MAX} bytes", "one JSON object")
    try:
        top = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _wrong("request", str(error), "one JSON object") from None
    fields = _fields(top, "request", {"store", "op", "target", "source_commit", "expected_tree", "base_commit",
                                      "evidence", "required_judges", "when"})  # fmt: skip
    op = fields["op"]
    if op not in ("promote", "rollback"):
        raise _wrong("op", repr(op), "promote or rollback")
    if fields["target"] not in TARGETS:
        raise _wrong("target", repr(fields["target"]), ", ".join(TARGETS))
    if not isinstance(fields["when"], int) or isinstance(fields["when"], bool) or fields["when"] < 0:
        raise _wrong("when", repr(fields["when"]), "seconds since 1970")
    return Request(
        store=_text(fields["store"], "store"),
        op="promote" if op == "promote" else "rollback",
        target=fields["target"],
        source_commit=_matching(fields["source_commit"], "source_commit", OBJECT_ID),
        expected_tree=_matching(fields["expected_tree"], "expected_tree", OBJECT_ID),
        base_commit=_matching(fields["base_commit"], "base_commit", OBJECT_ID),
        evidence=_evidence(fields["evidence"]),
        required_judges=tuple(
            _matching(name, "required_judges", JUDGE) for name in _list(fields["required_judges"], "required_judges")
        ),
        when=fields["when"],
    )


def _evidence(value: Any) -> Evidence:
    fields = _fields(value, "evidence", {"verdicts", "stop_code", "plan_id", "run_id", "journal_head", "signatures"})
    verdicts = []
    for item in _list(fields["verdicts"], "verdicts"):
        one = _fields(item, "verdicts", {"judge", "outcome"})
        if one["outcome"] not in tuple(Outcome):
            raise _wrong("outcome", repr(one["outcome"]), "PASS, FAIL or INCONCLUSIVE")
        verdicts.append((_matching(one["judge"], "judge", JUDGE), Outcome(one["outcome"])))
    return Evidence(
        verdicts=tuple(verdicts),
        stop_code=_text(fields["stop_code"], "stop_code"),
        plan_id=_matching(fields["plan_id"], "plan_id", PLAN_ID),
        run_id=_matching(fields["run_id"], "run_id", RUN_ID),
        journal_head=_matching(fields["journal_head"], "journal_head", SHA256),
        signatures=tuple(_text(item, "signatures") for item in _list(fields["signatures"], "signatures")),
    )


def _fields(value: Any, where: str, names: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(where, type(value).__name__, "an object")
    if names != set(value):
        odd = min(names ^ set(value), key=str)
        raise _wrong(where, f"{odd!r} is {'missing' if odd in names else 'unknown'}", ", ".join(sorted(names)))
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > VERDICTS_MAX:
        raise _wrong(where, type(value).__name__, f"a list of at most {VERDICTS_MAX}")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or len(value) > TEXT_MAX or "\0" in value:
        raise _wrong(where, type(value).__name__, f"text of at most {TEXT_MAX} characters")
    return value


def _matching(value: Any, where: str, pattern: re.Pattern[str]) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise _wrong(where, repr(value)[:100], pattern.pattern)
    return value


def _wrong(where: str, found: str, expected: str) -> OperatorError:
    return OperatorError(found, expected=expected, where=where)
