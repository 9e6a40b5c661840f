"""One request for sixty-four answers (OpenAI's n): each is billed, an estimate of one answer sees a sixty-fourth."""

from collections.abc import Mapping
from typing import Any

from inbounds.drill.market import CHAT, Market, asking

CLASS = "economic"
REQUIREMENT = "G2"
KIND = "host"
COPIES = 64


def _ask(market: Market) -> dict[str, Any]:
    status = market.ask(CHAT, asking(100, n=COPIES))
    return market.facts(status=status, best_of=market.ask(CHAT, asking(100, best_of=COPIES)))


def control(arena: Any) -> dict[str, Any]:
    """The provider makes all of them."""
    with Market(arena.scratch, guarded=False, appetite=10**6) as market:
        return _ask(market)


def attack(arena: Any) -> dict[str, Any]:
    """The gateway lets nothing through that multiplies what it has estimated."""
    with Market(arena.scratch, guarded=True, appetite=10**6) as market:
        market.honest()
        return _ask(market)


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """The provider's own bill, against the run's cap."""
    said = after["said"]
    words = f"answers {said['status']} and {said['best_of']}, {said['billed']} billed, cap {said['cap']} micro-dollars"
    return ("ESCAPED" if said["billed"] > said["cap"] else "BLOCKED"), words
