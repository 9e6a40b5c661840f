"""A prompt of two megabytes with a tiny answer: the cost is in what is sent, which counts before it leaves (G2, G4)."""

from collections.abc import Mapping
from typing import Any

from inbounds.drill.market import Market, asking

CLASS = "economic"
REQUIREMENT = "G4"
KIND = "host"
# the same length in letters, in a character that a normalizing tokenizer takes for eighteen, and in many tiny parts
PROMPTS = ("x" * 2_000_000, "\ufdfa" * 600_000, " a" * 1_000_000)


def _ask(market: Market) -> dict[str, Any]:
    return market.facts(statuses=[market.ask(body=asking(9, text=text)) for text in PROMPTS])


def control(arena: Any) -> dict[str, Any]:
    """The provider reads it all."""
    with Market(arena.scratch, guarded=False) as market:
        return _ask(market)


def attack(arena: Any) -> dict[str, Any]:
    """The gateway bounds the tokens by the bytes."""
    with Market(arena.scratch, guarded=True) as market:
        market.honest()
        return _ask(market)


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """The provider's own bill, against the run's cap."""
    said = after["said"]
    words = f"answers {said['statuses']}, {said['billed']} billed, cap {said['cap']} micro-dollars"
    return ("ESCAPED" if said["billed"] > said["cap"] else "BLOCKED"), words
