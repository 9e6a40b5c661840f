"""What the manifest counts: calls and money, files, progress, denials, legs; each a small sum over records.

Knows the vocabulary of the journal; reads no file and trusts no total that the agent could have named. `TAKES` says
which kinds a counter reads: a record of any other kind costs it nothing.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeAlias

from inbounds.journal.chain import Record

# Groups a reviewer can read; what is beyond is counted in `more`.
GROUPS_MAX = 1_000
# Points of the spending curve: one pixel each on a phone.
CURVE_MAX = 240
TEXT_MAX = 500
NOT_OBSERVED = "not observed"
# As many files as a snapshot may list paths, times ten: a test run opens what it imports.
GAPS_MAX = 100  # reasons why reads were not all seen: there are half a dozen
READ_MAX = 20_000
# A leg needs a person's signature: beyond a hundred nobody means it. Approvals a stop can ask for: contracts.conduct.
LEGS_MAX, OPERATORS_MAX = 100, 10
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Lengths of a git object id in hex, and the algorithm that each stands for (gitformat-hash-function-transition).
OBJECT_FORMATS = {40: "git-sha1", 64: "git-sha256"}

Take: TypeAlias = Callable[[Any, Record], None]

KINDS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
_SUMMED = ("cost_micro_usd", *KINDS)
CHANGES = {"A": "added", "M": "modified", "D": "deleted", "R": "renamed", "T": "type changed"}


def whole(data: dict[str, Any], key: str) -> int:
    """The integer under `key`, 0 if there is none."""
    value = data.get(key)
    return value if type(value) is int and value > 0 else 0


def text(data: Mapping[str, Any], key: str) -> str:
    """The text under `key`, "not observed" if there is none."""
    value = data.get(key)
    return value if type(value) is str else NOT_OBSERVED


def number(data: Mapping[str, Any], key: str) -> int | str:
    """The non-negative integer under `key`, "not observed" if there is none."""
    value = data.get(key)
    return value if type(value) is int and value >= 0 else NOT_OBSERVED


def texts(value: Any, most: int) -> list[str]:
    """At most `most` texts of a list; [] for anything else."""
    return [str(item) for item in value[:most]] if isinstance(value, (list, tuple)) else []


def limits_of(value: Any) -> dict[str, int] | str:
    """The integers of a table of limits, "not observed" where there is none."""
    if not isinstance(value, dict):
        return NOT_OBSERVED
    return {str(name): limit for name, limit in value.items() if type(limit) is int}


class Calls:
    """Model requests and what they cost: settled usage, refusals, tool calls (H8, H9, H10)."""

    def __init__(self) -> None:
        """Start from nothing."""
        self._hosts: dict[tuple[str, str], dict[str, int]] = {}
        self._models: dict[str, dict[str, int]] = {}
        self._refused: dict[tuple[str, str], int] = {}
        self._tools: dict[tuple[str, str], int] = {}
        self._from_replies = 0
        self._curve: list[tuple[int, int]] = []
        self._newest: dict[str, Any] = {}
        self.spent = 0  # the ledger's total for the run, as the newest record states it

    def called(self, record: Record) -> None:
        """Package index, paid interfaces: whatever else a door of ours let out."""
        data = record.data
        self._host(str(data.get("host", ""))[:TEXT_MAX], str(data.get("purpose", ""))[:TEXT_MAX], data)

    def refused(self, record: Record) -> None:
        """A model request that the gateway did not let out."""
        data = record.data
        _add(self._refused, (str(data.get("reason", ""))[:TEXT_MAX], str(data.get("model", ""))[:TEXT_MAX]))

    def tool(self, record: Record) -> None:
        """A call that reached the broker."""
        data = record.data
        _add(self._tools, (str(data.get("tool", ""))[:TEXT_MAX], str(data.get("outcome", ""))[:TEXT_MAX]))

    def used(self, record: Record) -> None:
        """A model request that was let out, settled by the provider's figures or charged at its bound.

        By far the most frequent kind, and a part of what `verify` does in five microseconds a record.
        """
        data = record.data
        get = data.get
        name = get("model", "")
        model = self._models.get(name) if type(name) is str else None
        if model is None:
            model = self._model(data)
        model["requests"] += 1
        if get("state") == "unknown":
            model["charged_at_bound"] += 1
        for key in _SUMMED:
            value = get(key)
            if type(value) is int and value > 0:
                model[key] += value
        self._host(str(get("host", ""))[:TEXT_MAX], "model", data)
        self._from_replies += whole(data, "tool_calls")
        spent = get("spent_micro_usd")
        if type(spent) is int and spent > self.spent:
            self.spent = spent
        self._newest = data
        self._curve.append((record.at_ms, self.spent))

    def recovered(self, record: Record) -> None:
        """What the ledger knew when another supervisor took over: requests may have been charged that nobody heard of.

        Such a request is in the total and in no sum of requests.
        """
        spent = whole(record.data, "spent_micro_usd")
        if spent > self.spent:
            self.spent = spent
            self._curve.append((record.at_ms, spent))

    # Members by which many records are counted at once (`many`): texts that group them, numbers that are summed.
    MANY: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
        "model.usage": (
            ("host", "model", "state"),
            (*_SUMMED, "bytes_in", "bytes_out", "reserved_micro_usd", "spent_micro_usd", "tool_calls"),
        ),
        "tool.called": (("outcome", "tool"), ()),
        "external.call": (("host", "purpose"), ("bytes_in", "bytes_out")),
    }

    # Kinds whose counters read nothing that `many` counts: records of these may be counted before or after it.
    APART = frozenset({"model.refused", "denial"})

    def many(
        self, kind: str, group: Mapping[str, str], at_ms: Sequence[int], numbers: Mapping[str, Sequence[int]]
    ) -> None:
        """As `used`, `tool` or `called` for each of many records in a row that agree in the texts of `group`.

        `at_ms` are their times, `numbers` the columns of `MANY` that they have, none of them negative.
        """
        if kind == "tool.called":
            called = (group.get("tool", "")[:TEXT_MAX], group.get("outcome", "")[:TEXT_MAX])
            _add(self._tools, called, len(at_ms))
            return
        sums = {name: sum(column) for name, column in numbers.items()}
        if kind == "external.call":
            self._host(group.get("host", "")[:TEXT_MAX], group.get("purpose", "")[:TEXT_MAX], sums, len(at_ms))
            return
        model = self._model(dict(group))
        model["requests"] += len(at_ms)
        model["charged_at_bound"] += len(at_ms) if group.get("state") == "unknown" else 0
        for key in _SUMMED:
            model[key] += sums.get(key, 0)
        self._host(group.get("host", "")[:TEXT_MAX], "model", sums, len(at_ms))
        self._from_replies += sums.get("tool_calls", 0)
        spent = list(accumulate(numbers.get("spent_micro_usd", [0] * len(at_ms)), max, initial=self.spent))[1:]
        self.spent = spent[-1]
        self._newest = {name: column[-1] for name, column in numbers.items()}
        self._curve += zip(at_ms, spent, strict=True)

    def _model(self, data: dict[str, Any]) -> dict[str, int]:
        name = str(data.get("model", ""))[:TEXT_MAX]
        return self._models.setdefault(name, dict.fromkeys(("requests", "charged_at_bound", *_SUMMED), 0))

    TAKES: Mapping[str, Take] = {
        "model.usage": used,
        "external.call": called,
        "model.refused": refused,
        "tool.called": tool,
        "run.recovered": recovered,
    }

    def _host(self, host: str, purpose: str, data: dict[str, Any], times: int = 1) -> None:
        entry = self._hosts.get((host, purpose))
        if entry is None:
            entry = self._hosts[(host, purpose)] = {"requests": 0, "bytes_out": 0, "bytes_in": 0}
        entry["requests"] += times
        for key in ("bytes_out", "bytes_in"):
            value = data.get(key)
            if type(value) is int and value > 0:
                entry[key] += value

    def hosts(self) -> list[dict[str, Any]]:
        """Per destination and purpose: requests and bytes, as counted by the gateway."""
        return [{"host": host, "purpose": why, **sums} for (host, why), sums in sorted(self._hosts.items())]

    def refusals(self) -> list[dict[str, Any]]:
        """Requests that the gateway did not let out."""
        found = sorted(self._refused.items())[:GROUPS_MAX]
        return [{"reason": reason, "model": model, "count": count} for (reason, model), count in found]

    def usage(self) -> list[dict[str, Any]]:
        """Tokens by model and kind, from the providers' own usage fields.

        `charged_at_bound` counts replies without figures that could be read: their cost is the request's bound, and
        their tokens are in no sum.
        """
        return [{"model": model, **sums} for model, sums in sorted(self._models.items())]

    def tools(self) -> dict[str, Any]:
        """Tool calls: counted from the model's replies, and those that reached the broker."""
        called = sorted(self._tools.items())[:GROUPS_MAX]
        return {
            "from_replies": self._from_replies,
            "broker": [{"tool": tool, "outcome": outcome, "count": n} for (tool, outcome), n in called],
        }

    def cost(self, budget: int | str) -> dict[str, Any]:
        """Micro-dollars: the ledger's running total, the sum of the requests beside it, what is still reserved."""
        step = max(1, -(-len(self._curve) // CURVE_MAX))
        points = self._curve[::step]
        if self._curve and points[-1] != self._curve[-1]:
            points = [*points, self._curve[-1]]
        return {
            "budget_micro_usd": budget,
            "spent_micro_usd": self.spent,
            "sum_of_requests_micro_usd": sum(model["cost_micro_usd"] for model in self._models.values()),
            "reserved_micro_usd": whole(self._newest, "reserved_micro_usd"),
            "curve": [{"at_ms": at_ms, "spent_micro_usd": spent} for at_ms, spent in points],
        }


class Written:
    """Files written, from the snapshots that the supervisor took; changes are against the base tree (H6, H7)."""

    def __init__(self) -> None:
        """Start from nothing."""
        self._files: dict[str, dict[str, Any]] = {}
        self._last: Record | None = None
        self._seen = False

    def snapshot(self, record: Record) -> None:
        """Take one snapshot's changes over; a path that a later snapshot no longer has was put back."""
        self._seen, self._last = True, record
        for entry in self._files.values():
            entry["in_result"] = False
        for change in _changes(record):
            entry = {
                "path": str(change.get("path", "")),
                "change": CHANGES.get(str(change.get("status", ""))[:1], "unknown"),
                "old_path": str(change.get("old_path") or ""),
                "old_mode": str(change.get("old_mode") or ""),
                "new_mode": str(change.get("new_mode") or ""),
                "blob": str(change.get("blob") or NOT_OBSERVED),
                "old_blob": str(change.get("old_blob") or NOT_OBSERVED),
                "sha256": _sha256(change),
                "iteration": whole(record.data, "n"),
                "in_result": True,
            }
            self._files[entry["path"]] = entry

    TAKES: Mapping[str, Take] = {"snapshot.taken": snapshot}

    def files(self) -> list[dict[str, Any]] | str:
        """Every path that any snapshot showed as changed; `in_result` false: changed once and put back."""
        if not self._seen:
            return NOT_OBSERVED
        return [self._files[path] for path in sorted(self._files)]

    def summary(self) -> dict[str, Any] | str:
        """The last snapshot in numbers; `complete` false means that something could not be read or listed."""
        if self._last is None:
            return NOT_OBSERVED
        data, counts = self._last.data, dict.fromkeys((*CHANGES.values(), "unknown"), 0)
        changes = _changes(self._last)
        for change in changes:
            counts[CHANGES.get(str(change.get("status", ""))[:1], "unknown")] += 1
        listed = "cut" not in data
        return {
            "tree": text(data, "tree"),
            "object_format": OBJECT_FORMATS.get(len(text(data, "tree")), NOT_OBSERVED),
            "files_changed": len(changes) if listed else whole(data, "changed"),
            "counts": {name.replace(" ", "_"): n for name, n in counts.items()},
            "complete": bool(data.get("complete", False)) and listed,
            "why": str(data.get("why", ""))[:TEXT_MAX],
            "lines_added": number(data, "lines_added"),
            "lines_removed": number(data, "lines_removed"),
        }


class Progress:
    """What each iteration moved, from test outcomes (H11)."""

    def __init__(self, calls: Calls) -> None:
        """Start from nothing; `calls` knows the money."""
        self._calls = calls
        self._done: list[dict[str, Any]] = []
        self._started = self._before = 0

    def started(self, record: Record) -> None:
        """An iteration begins: time and money count from here."""
        self._started, self._before = record.at_ms, self._calls.spent

    def finished(self, record: Record) -> None:
        """An iteration was judged."""
        data = record.data
        score = data.get("score")
        self._done.append(
            {
                "n": whole(data, "n"),
                "failing_before": number(data, "failing_before"),
                "failing_after": number(data, "failing_after"),
                "newly_passing": texts(data.get("newly_passing"), GROUPS_MAX),
                "progress": data.get("progress") is True,
                "score": score if type(score) is int else NOT_OBSERVED,
                "cost_micro_usd": self._calls.spent - self._before,
                "ms": max(0, record.at_ms - self._started),
            }
        )

    TAKES: Mapping[str, Take] = {"iteration.started": started, "iteration.finished": finished}

    def iterations(self) -> list[dict[str, Any]] | str:
        """One entry per finished iteration."""
        return self._done or NOT_OBSERVED


class Denials:
    """What the run reached for and was refused, equal ones counted together."""

    def __init__(self) -> None:
        """Start from nothing."""
        self._groups: dict[tuple[str, str], dict[str, Any]] = {}
        self._more = 0

    def take(self, record: Record) -> None:
        """Count one denial."""
        data = record.data
        kind = str(data.get("kind") or data.get("what") or "")[:TEXT_MAX]
        key = (kind, str(data.get("detail", ""))[:TEXT_MAX])
        if key not in self._groups and len(self._groups) >= GROUPS_MAX:
            self._more += 1
            return
        entry = self._groups.setdefault(
            key, {"kind": key[0], "detail": key[1], "sensitive": False, "count": 0, "first_at_ms": record.at_ms}
        )
        entry["count"] += 1
        entry["sensitive"] = entry["sensitive"] or data.get("sensitive") is True

    TAKES: Mapping[str, Take] = {"denial": take}

    def groups(self) -> dict[str, Any]:
        """In order of first appearance; `more` counts denials beyond the list."""
        return {"listed": list(self._groups.values()), "more": self._more}


class Reported:
    """Files read or executed, as the operating system reported them; nothing where nobody watched (H5)."""

    def __init__(self) -> None:
        """Start from nothing."""
        self._files: dict[str, dict[str, Any]] = {}
        self._observed = False
        self._more = 0
        self._gaps: list[str] = []

    def take(self, record: Record) -> None:
        """Take over one report: `files` as objects with a path, or bare `paths`; what it could not see is a gap."""
        self._observed = True
        self._more += max(0, whole(record.data, "more"))
        if record.data.get("complete") is False and len(self._gaps) < GAPS_MAX:
            self._gaps.append(str(record.data.get("why", "not complete"))[:TEXT_MAX])
        found = record.data.get("files")
        files = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
        files += [{"path": path} for path in texts(record.data.get("paths"), READ_MAX)]
        for item in files:
            path = str(item.get("path", ""))
            if path not in self._files and len(self._files) >= READ_MAX:
                self._more += 1
                continue
            entry = self._files.setdefault(path, {"path": path, "blob": NOT_OBSERVED, "sha256": NOT_OBSERVED})
            if item.get("blob"):
                entry["blob"] = str(item["blob"])
            entry["sha256"] = _sha256(item) if item.get("sha256") else entry["sha256"]

    def files(self) -> list[dict[str, Any]] | str:
        """Every path once, in order of path."""
        return [self._files[path] for path in sorted(self._files)] if self._observed else NOT_OBSERVED

    def paths(self) -> list[str] | str:
        """The same, without hashes."""
        return sorted(self._files) if self._observed else NOT_OBSERVED

    @property
    def more(self) -> int:
        """Reports of paths beyond the list."""
        return self._more

    @property
    def gaps(self) -> list[str]:
        """Why a report was not complete, each reason once: what is listed is then not all that was read."""
        return list(dict.fromkeys(self._gaps))


class Legs:
    """Every stop with what led on from it: a run that was re-authorized has more than one leg (E14)."""

    def __init__(self) -> None:
        """The first leg begins with the run."""
        self._legs: list[dict[str, Any]] = [_leg(1, NOT_OBSERVED)]
        self._steps: list[dict[str, Any]] = []
        self.amendments: list[dict[str, Any]] = []
        self.recoveries: list[dict[str, Any]] = []
        self.limits: dict[str, Any] | None = None

    def accepted(self, record: Record) -> None:
        """The run, and its first leg, begin."""
        if self._legs[0]["began_at_ms"] == NOT_OBSERVED:
            self._legs[0]["began_at_ms"] = record.at_ms

    def stopped(self, record: Record) -> None:
        """The stop event; one that a recovery repeats is the same stop."""
        leg, data = self._legs[-1], record.data
        if leg["code"] == NOT_OBSERVED:
            leg.update(
                code=text(data, "code"),
                condition=text(data, "why"),
                disposal=text(data, "disposal"),
                stopped_at_ms=record.at_ms,
                stop_seq=record.seq,
                stop_hash=record.hash,
            )

    def step(self, record: Record) -> None:
        """One step of the stop sequence; those of the last leg are kept."""
        data = record.data
        self._steps.append(
            {
                "seq": record.seq,
                "at_ms": record.at_ms,
                "step": text(data, "step"),
                "ok": data.get("ok") is True,
                "detail": str(data.get("detail", ""))[:TEXT_MAX],
            }
        )

    def finished(self, record: Record) -> None:
        """The leg's end."""
        leg = self._legs[-1]
        leg.update(exit=number(record.data, "exit"), ended_at_ms=record.at_ms)
        if type(record.data.get("code")) is str:
            leg["code"] = record.data["code"]

    def reauthorized(self, record: Record) -> None:
        """People let the run go on: a new leg begins."""
        data = record.data
        if len(self._legs) >= LEGS_MAX:
            return
        self._legs[-1]["reauthorized"] = {
            "seq": record.seq,
            "at_ms": record.at_ms,
            "operators": texts(data.get("operators"), OPERATORS_MAX),
            "stop_hash": text(data, "stop_hash"),
        }
        self._legs.append(_leg(len(self._legs) + 1, record.at_ms))
        self._steps = []

    def amended(self, record: Record) -> None:
        """The owner signed a new version of the limits (E8)."""
        data = record.data
        limits = data.get("limits")
        if isinstance(limits, dict):
            self.limits = limits
        self.amendments.append(
            {
                "seq": record.seq,
                "at_ms": record.at_ms,
                "version": number(data, "version"),
                "operator": text(data, "operator"),
                "limits": limits_of(limits),
            }
        )

    def recovered(self, record: Record) -> None:
        """Another writer or supervisor took over from one that had died."""
        detail = {key: value for key, value in record.data.items() if type(value) in (int, str, bool)}
        self.recoveries.append({"seq": record.seq, "at_ms": record.at_ms, "kind": record.kind, "detail": detail})

    TAKES: Mapping[str, Take] = {
        "run.accepted": accepted,
        "stop.decided": stopped,
        "stop.step": step,
        "run.finished": finished,
        "run.reauthorized": reauthorized,
        "contract.amended": amended,
        "run.recovered": recovered,
        "journal.recovered": recovered,
    }

    def all(self) -> list[dict[str, Any]]:
        """Every leg, oldest first."""
        return self._legs

    def leave(self) -> dict[str, Any]:
        """How the last leg ended (H12, H13)."""
        leg = self._legs[-1]
        return {
            **{key: leg[key] for key in ("condition", "code", "disposal", "exit")},
            "steps": self._steps or NOT_OBSERVED,
        }

    @property
    def ended_at_ms(self) -> int | str:
        """When the last leg ended, "not observed" while the run goes on."""
        ended = self._legs[-1]["ended_at_ms"]
        return ended if type(ended) is int else NOT_OBSERVED


def _leg(n: int, began_at_ms: int | str) -> dict[str, Any]:
    keys = ("code", "condition", "disposal", "stopped_at_ms", "stop_seq", "stop_hash", "exit", "ended_at_ms")
    return {"leg": n, "began_at_ms": began_at_ms, **dict.fromkeys((*keys, "reauthorized"), NOT_OBSERVED)}


def _sha256(item: Mapping[str, Any]) -> str:
    value = item.get("sha256")
    return value if isinstance(value, str) and _SHA256.fullmatch(value) else NOT_OBSERVED


def _changes(record: Record) -> list[dict[str, Any]]:
    found = record.data.get("changes", [])
    return [change for change in found if isinstance(change, dict)] if isinstance(found, list) else []


def _add(counts: dict[tuple[str, str], int], key: tuple[str, str], times: int = 1) -> None:
    if key in counts or len(counts) < GROUPS_MAX:
        counts[key] = counts.get(key, 0) + times
