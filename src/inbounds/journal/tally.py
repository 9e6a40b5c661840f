"""What the manifest counts: calls and money, files, progress, denials; each a small sum over records.

Knows the vocabulary of the journal; reads no file and trusts no total that the agent could have named.
"""

from typing import Any

from inbounds.journal.chain import Record

# Groups a reviewer can read; what is beyond is counted in `more`.
GROUPS_MAX = 1_000
# Points of the spending curve: one pixel each on a phone.
CURVE_MAX = 240
TEXT_MAX = 500

KINDS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
CHANGES = {"A": "added", "M": "modified", "D": "deleted", "R": "renamed", "T": "type changed"}


def whole(data: dict[str, Any], key: str) -> int:
    """The integer under `key`, 0 if there is none."""
    value = data.get(key, 0)
    return value if type(value) is int else 0


class Calls:
    """Model requests and what they cost: settled usage, refusals, tool calls (H8, H9, H10)."""

    def __init__(self) -> None:
        """Start from nothing."""
        self._hosts: dict[tuple[str, str], dict[str, int]] = {}
        self._models: dict[str, dict[str, int]] = {}
        self._refused: dict[tuple[str, str], int] = {}
        self._tools: dict[tuple[str, str], int] = {}
        self._from_replies = 0
        self._curve: list[dict[str, int]] = []
        self._spent = self._reserved = self._sum = 0

    def take(self, record: Record) -> None:
        """Count one record."""
        data = record.data
        if record.kind == "model.usage":
            self._usage(record.at_ms, data)
        elif record.kind == "external.call":  # package index, paid APIs: whatever else a door of ours lets out
            self._host(str(data.get("host", "")), str(data.get("purpose", "")), data)
        elif record.kind == "model.refused":
            _add(self._refused, (str(data.get("reason", ""))[:TEXT_MAX], str(data.get("model", ""))[:TEXT_MAX]))
        elif record.kind == "tool.called":
            _add(self._tools, (str(data.get("tool", ""))[:TEXT_MAX], str(data.get("outcome", ""))[:TEXT_MAX]))

    def _usage(self, at_ms: int, data: dict[str, Any]) -> None:
        model = self._models.setdefault(
            str(data.get("model", "")), dict.fromkeys(("requests", "cost_micro_usd", *KINDS), 0)
        )
        model["requests"] += 1
        for key in ("cost_micro_usd", *KINDS):
            model[key] += whole(data, key)
        self._host(str(data.get("host", "")), "model", data)
        self._from_replies += whole(data, "tool_calls")
        self._sum += whole(data, "cost_micro_usd")
        self._spent = max(self._spent, whole(data, "spent_micro_usd"))
        self._reserved = whole(data, "reserved_micro_usd")
        self._curve.append({"at_ms": at_ms, "spent_micro_usd": self._spent})

    def _host(self, host: str, purpose: str, data: dict[str, Any]) -> None:
        entry = self._hosts.setdefault((host, purpose), {"requests": 0, "bytes_out": 0, "bytes_in": 0})
        entry["requests"] += 1
        entry["bytes_out"] += whole(data, "bytes_out")
        entry["bytes_in"] += whole(data, "bytes_in")

    def hosts(self) -> list[dict[str, Any]]:
        """Per destination and purpose: requests and bytes, as counted by the gateway."""
        return [{"host": host, "purpose": why, **sums} for (host, why), sums in sorted(self._hosts.items())]

    def refusals(self) -> list[dict[str, Any]]:
        """Requests that the gateway did not let out."""
        found = sorted(self._refused.items())[:GROUPS_MAX]
        return [{"reason": reason, "model": model, "count": count} for (reason, model), count in found]

    def usage(self) -> list[dict[str, Any]]:
        """Tokens by model and kind, from the providers' own usage fields."""
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
        curve = self._curve[::step]
        if self._curve and curve[-1] is not self._curve[-1]:
            curve = [*curve, self._curve[-1]]
        return {
            "budget_micro_usd": budget,
            "spent_micro_usd": self._spent,
            "sum_of_requests_micro_usd": self._sum,
            "reserved_micro_usd": self._reserved,
            "curve": curve,
        }


class Written:
    """Files written, from the snapshots that the supervisor took; changes are against the base tree (H6, H7)."""

    def __init__(self) -> None:
        """Start from nothing."""
        self._files: dict[str, dict[str, Any]] = {}
        self._last: Record | None = None
        self._seen = False

    def take(self, record: Record) -> None:
        """Take one snapshot's changes over; a path that a later snapshot no longer has was put back."""
        if record.kind != "snapshot.taken":
            return
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
                "blob": str(change.get("blob") or change.get("new_blob") or "not observed"),
                "iteration": whole(record.data, "n"),
                "in_result": True,
            }
            self._files[entry["path"]] = entry

    def files(self) -> list[dict[str, Any]] | str:
        """Every path that any snapshot showed as changed; `in_result` false: changed once and put back."""
        if not self._seen:
            return "not observed"
        return [self._files[path] for path in sorted(self._files)]

    def summary(self) -> dict[str, Any] | str:
        """The last snapshot in numbers; `complete` false means that something could not be read or listed."""
        if self._last is None:
            return "not observed"
        data, counts = self._last.data, dict.fromkeys((*CHANGES.values(), "unknown"), 0)
        changes = _changes(self._last)
        for change in changes:
            counts[CHANGES.get(str(change.get("status", ""))[:1], "unknown")] += 1
        listed = "cut" not in data
        return {
            "tree": str(data.get("tree", "not observed")),
            "files_changed": len(changes) if listed else whole(data, "changed"),
            "counts": {name.replace(" ", "_"): n for name, n in counts.items()},
            "complete": bool(data.get("complete", False)) and listed,
            "why": str(data.get("why", ""))[:TEXT_MAX],
            "lines_added": data.get("lines_added", "not observed"),
            "lines_removed": data.get("lines_removed", "not observed"),
        }


class Progress:
    """What each iteration moved, from test outcomes (H11)."""

    def __init__(self) -> None:
        """Start from nothing."""
        self._done: list[dict[str, Any]] = []
        self._spent = self._before = 0
        self._started = 0

    def take(self, record: Record) -> None:
        """Follow iterations and the money that they used."""
        data = record.data
        if record.kind == "iteration.started":
            self._started, self._before = record.at_ms, self._spent
        elif record.kind == "model.usage":
            self._spent = max(self._spent, whole(data, "spent_micro_usd"))
        elif record.kind == "iteration.finished":
            gained = data.get("newly_passing", [])
            self._done.append(
                {
                    "n": whole(data, "n"),
                    "failing_before": data.get("failing_before", "not observed"),
                    "failing_after": data.get("failing_after", "not observed"),
                    "newly_passing": [str(test) for test in gained][:GROUPS_MAX] if isinstance(gained, list) else [],
                    "progress": bool(data.get("progress", False)),
                    "score": data.get("score", "not observed"),
                    "cost_micro_usd": self._spent - self._before,
                    "ms": record.at_ms - self._started,
                }
            )

    def iterations(self) -> list[dict[str, Any]] | str:
        """One entry per finished iteration."""
        return self._done or "not observed"


class Denials:
    """What the run reached for and was refused, equal ones counted together."""

    def __init__(self) -> None:
        """Start from nothing."""
        self._groups: dict[tuple[str, str], dict[str, Any]] = {}
        self._more = 0

    def take(self, record: Record) -> None:
        """Count one denial."""
        if record.kind != "denial":
            return
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
        entry["sensitive"] = entry["sensitive"] or bool(data.get("sensitive", False))

    def groups(self) -> dict[str, Any]:
        """In order of first appearance; `more` counts denials beyond the list."""
        return {"listed": list(self._groups.values()), "more": self._more}


def _changes(record: Record) -> list[dict[str, Any]]:
    found = record.data.get("changes", [])
    return [change for change in found if isinstance(change, dict)] if isinstance(found, list) else []


def _add(counts: dict[tuple[str, str], int], key: tuple[str, str]) -> None:
    if key in counts or len(counts) < GROUPS_MAX:
        counts[key] = counts.get(key, 0) + 1
