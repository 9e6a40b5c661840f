"""One request for a thousand million tokens of output, from a provider that would write a million of them (G2, E4)."""

from collections.abc import Mapping
from typing import Any

from inbounds.drill.market import Market, asking

CLASS = "economic"
REQUIREMENT = "G2"
KIND = "host"
APPETITE = 1_000_000


def control(arena: Any) -> dict[str, Any]:
    """The provider takes the number as it is."""
    with Market(arena.scratch, guarded=False, appetite=APPETITE) as market:
        return market.facts(status=market.ask(body=asking(10**9)))


def attack(arena: Any) -> dict[str, Any]:
    """The gateway lowers it to what model and budget allow, or refuses."""
    with Market(arena.scratch, guarded=True, appetite=APPETITE) as market:
        market.honest()
        return market.facts(status=market.ask(body=asking(10**9)))


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """The provider's own bill, against the run's cap."""
    said = after["said"]
    words = f"answer {said['status']}, {said['billed']} billed, cap {said['cap']} micro-dollars"
    return ("ESCAPED" if said["billed"] > said["cap"] else "BLOCKED"), words
