"""A thread, a plan or a flag that asks for more than the policy above it allows; taken as an override, it wins (B13)."""

from collections.abc import Mapping
from typing import Any

from inbounds.contracts.documents import LimitsText
from inbounds.contracts.errors import OperatorError
from inbounds.contracts.narrow import Layer, narrow_limits, narrow_names

CLASS = "failopen"
REQUIREMENT = "B13"
KIND = "host"
POLICY: dict[str, Any] = {
    "budget_usd": "0.50", "iterations": 5, "no_progress": 2, "turns": 10, "tool_calls": 50, "file_changes": 10,
    "wall_clock": "10m", "tokens": 10_000, "denials": 3, "memory": "1G", "processes": 64, "disk": "1G", "inodes": 1_000,
}  # fmt: skip
WIDER: dict[str, Any] = {
    "budget_usd": "0.51", "iterations": 6, "no_progress": 3, "turns": 11, "tool_calls": 51, "file_changes": 11,
    "wall_clock": "601s", "tokens": 10_001, "denials": 4, "memory": "1025M", "processes": 65, "disk": "2G",
    "inodes": 1_001,
}  # fmt: skip


def control(_: Any) -> dict[str, Any]:
    """The nearer document overrides, as configuration is usually merged."""
    merged = {**POLICY, **WIDER}
    return {"widened": [key for key, value in merged.items() if value != POLICY[key]]}


def attack(_: Any) -> dict[str, Any]:
    """The real narrowing: by a thread, by a plan behind a silent thread, and by more than the program's own ceiling."""
    top = Layer("policy.yaml", LimitsText(**POLICY), {})
    widened = []
    for key, value in WIDER.items():
        wider = Layer("plan", LimitsText(**{key: value}), {})
        for children in ([wider], [Layer("thread", LimitsText(), {}), wider]):
            try:
                narrow_limits(top, children)
                widened.append(key)
            except OperatorError:
                continue
    beyond: dict[str, Any] = {"wall_clock": "20w", "memory": "9T", "budget_usd": "100001", "iterations": 10_001}
    widened += [f"{key} of all" for key, value in beyond.items() if _taken(LimitsText(**{key: value}))]
    try:
        narrow_names("agents", ("claude",), ("claude", "anything"), "config.yaml")
        widened.append("agents")
    except OperatorError:
        pass
    return {"widened": widened}


def _taken(limits: LimitsText) -> bool:
    try:
        narrow_limits(Layer("policy.yaml", limits, {}), [])
    except OperatorError:
        return False
    return True


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """What could be widened."""
    widened = after["said"]["widened"]
    return ("ESCAPED" if widened else "BLOCKED"), f"widened: {', '.join(widened) or 'nothing'} of {len(WIDER)} limits"
