"""Faults of one run: where the supervisor dies, what raises, which events are lost, doubled, late or mangled.

Every choice comes from the run's one source of randomness; what was chosen is counted.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from inbounds.contracts.errors import HostError


class Killed(BaseException):
    """SIGKILL: no handler runs, nothing in memory is left."""


class PowerLoss(Killed):
    """The host goes down: what was not synced may be gone too."""


@dataclass(slots=True)
class Faults:
    """`points` are all boundaries passed, `dealt` the faults that happened there."""

    rng: Random
    crash_p: float
    power_share: float
    raise_p: float
    event_p: float
    crashes_left: int
    armed: bool = True
    points: Counter[str] = field(default_factory=Counter)
    dealt: Counter[str] = field(default_factory=Counter)

    def point(self, name: str) -> None:
        """A boundary: the process may die here."""
        self.points[name] += 1
        if self.crash_p and self.armed and self.crashes_left and self.rng.random() < self.crash_p:
            self.crashes_left -= 1
            power = self.rng.random() < self.power_share
            self.dealt["power loss" if power else "kill"] += 1
            self.dealt[f"death at {name}"] += 1
            raise PowerLoss(name) if power else Killed(name)

    def may_raise(self, name: str) -> None:
        """A part fails, or does what it was asked for and its answer is lost."""
        if self.raise_p and self.armed and self.rng.random() < self.raise_p:
            self.dealt["part raises"] += 1
            raise self.rng.choice(
                (HostError(f"{name} failed"), OSError(28, "No space left on device"), AssertionError(f"{name}: a bug"))
            )

    def event(self) -> str:
        """What becomes of one event: "" for nothing."""
        if not (self.event_p and self.armed) or self.rng.random() >= self.event_p:
            return ""
        kind = self.rng.choice(("lost", "doubled", "doubled", "late", "late", "mangled"))
        self.dealt[f"event {kind}"] += 1
        return kind

    def mangled(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """A record that a rule cannot read: a member is missing or of another type."""
        odd = dict(data)
        if odd:
            name = self.rng.choice(sorted(odd))
            if self.rng.random() < 0.5:
                del odd[name]
            else:
                odd[name] = self.rng.choice((None, [1], "?", {"a": 1}))
        return odd
