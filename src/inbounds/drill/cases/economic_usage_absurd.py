"""A provider that reports tokens as words, fractions, truth values, null, or beyond what an integer column holds."""

from collections.abc import Mapping
from itertools import cycle
from typing import Any

from inbounds.drill.market import Market, Served, asking

CLASS = "economic"
REQUIREMENT = "G9"
KIND = "host"
REQUESTS = 40  # at 2,000 micro-dollars each, four budgets
_CLAIMS: tuple[dict[str, Any], ...] = (
    {"input_tokens": "0", "output_tokens": "0"},
    {"input_tokens": 0.0, "output_tokens": 1e-9},
    {"input_tokens": False, "output_tokens": False},
    {"input_tokens": None, "output_tokens": []},
    {"input_tokens": 2**70, "output_tokens": 2**63},
)


def _ask(market: Market) -> dict[str, Any]:
    claims = cycle(_CLAIMS)

    def lie(served: Served) -> None:
        served.answer(next(claims))

    market.honest()
    market.play = lie
    for _ in range(REQUESTS):
        market.ask(body=asking(200))
    return market.facts()


def control(arena: Any) -> dict[str, Any]:
    """Whoever reads numbers leniently reads nothing."""
    with Market(arena.scratch, guarded=False) as market:
        return _ask(market)


def attack(arena: Any) -> dict[str, Any]:
    """What can't be read stays charged at the bound."""
    with Market(arena.scratch, guarded=True) as market:
        return _ask(market)


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """The provider's true bill, against the run's cap."""
    said = after["said"]
    words = f"{said['served']} requests served, {said['billed']} really billed, cap {said['cap']} micro-dollars"
    return ("ESCAPED" if said["billed"] > said["cap"] else "BLOCKED"), words
