"""Every limit a run has: its unit, its default, its ceiling, and why the number is what it is (E1-E8, J7, J8).

Values narrow from the built-in ceiling through policy, thread, plan and flags; nothing here widens. Standard library
only: the kernel uses it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields

from inbounds.contracts import units


def _count(text: str | int) -> int:
    if isinstance(text, bool) or not re.fullmatch(r"[0-9]{1,15}", str(text)) or int(text) < 1:
        raise ValueError(f"{text!r} is no whole number above 0")
    return int(text)


@dataclass(frozen=True, slots=True)
class Limits:
    """Concrete limits of one run; times in milliseconds, sizes in bytes, money in micro-dollars."""

    wall_clock_ms: int
    iterations: int
    no_progress: int
    turns: int
    tool_calls: int
    file_changes: int
    iteration_file_changes: int
    restarts: int
    budget_micro_usd: int
    request_micro_usd: int
    tokens: int
    denials: int
    memory_bytes: int
    processes: int
    disk_bytes: int
    inodes: int

    def as_json(self) -> dict[str, int]:
        """Plain data, for the journal."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class LimitRule:
    """How one limit is written by people (`key`), parsed, defaulted and bounded."""

    key: str
    field: str
    parse: Callable[[str | int], int]
    default: int
    ceiling: int
    why: str

    def written(self, value: int) -> str:
        """The value as a person may write it; `parse` reads it back."""
        if self.parse is units.duration:
            return units.write_duration(value)
        return units.show_usd(value) if self.parse is units.usd else str(value)


RULES: tuple[LimitRule, ...] = (
    LimitRule(
        "wall_clock",
        "wall_clock_ms",
        units.duration,
        units.duration("1h"),
        units.duration("8w"),
        "an hour is a working session; weeks need a named owner (E16)",
    ),
    LimitRule("iterations", "iterations", _count, 10, 10_000, "ten rounds show whether the goal is in reach"),
    LimitRule("no_progress", "no_progress", _count, 3, 1_000, "three rounds without a test gained is being stuck (M7)"),
    LimitRule("turns", "turns", _count, 100, 10_000, "model turns in one iteration; loops show long before"),
    LimitRule("tool_calls", "tool_calls", _count, 1_000, 1_000_000, "counted from the model's replies (E2)"),
    LimitRule("file_changes", "file_changes", _count, 200, 100_000, "more than a person reviews over breakfast (E3)"),
    LimitRule("iteration_file_changes", "iteration_file_changes", _count, 200, 100_000, "one iteration's share of E3"),
    LimitRule("restarts", "restarts", _count, 5, 10_000, "a host that fails more often is not the run's place (E16)"),
    LimitRule(
        "budget_usd",
        "budget_micro_usd",
        units.usd,
        units.usd("5"),
        units.usd("100000"),
        "what a person spends without asking",
    ),
    LimitRule(
        "request_usd",
        "request_micro_usd",
        units.usd,
        units.usd("2"),
        units.usd("1000"),
        "one request's worst case; larger ones are mistakes",
    ),
    LimitRule("tokens", "tokens", _count, 20_000_000, 10_000_000_000, "tokens in and out over the run (E4)"),
    LimitRule("denials", "denials", _count, 20, 10_000, "refusals that are no accident any more (N6, standard)"),
    LimitRule("memory", "memory_bytes", units.size, units.size("4G"), units.size("1T"), "a test suite with room"),
    LimitRule("processes", "processes", _count, 512, 100_000, "node agents use about 60; fork bombs stop here"),
    LimitRule("disk", "disk_bytes", units.size, units.size("4G"), units.size("10T"), "the volume's bytes (E7)"),
    LimitRule("inodes", "inodes", _count, 200_000, 100_000_000, "the volume's files (E7)"),
)

BY_KEY = {rule.key: rule for rule in RULES}
CEILING = Limits(**{rule.field: rule.ceiling for rule in RULES})
DEFAULT = Limits(**{rule.field: rule.default for rule in RULES})


def from_json(data: Mapping[str, int]) -> Limits:
    """Read back what `as_json` wrote; a missing or unknown name, or anything but a whole number, is a TypeError."""
    if not isinstance(data, Mapping) or set(data) != {f.name for f in fields(Limits)}:
        raise TypeError("limits that are not those of this program")
    odd = [name for name, value in data.items() if type(value) is not int]
    if odd:
        raise TypeError(f"limits that are no whole numbers: {', '.join(odd)}")
    return Limits(**data)
