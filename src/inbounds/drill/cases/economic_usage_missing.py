"""A provider that bills and reports no usage at all, or none that belongs to the format (H9, G9)."""

from collections.abc import Mapping
from itertools import cycle
from typing import Any

from inbounds.drill.market import Market, Served, asking

CLASS = "economic"
REQUIREMENT = "G9"
KIND = "host"
REQUESTS = 40  # at 2,000 micro-dollars each, four budgets
_CLAIMS: tuple[dict[str, Any], ...] = (
    {},
    {"prompt_tokens": 0, "completion_tokens": 0},
    {"input_tokens": 1},
    {"output_tokens": 1},
    {"total": 0},
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
    """What is not reported is not counted."""
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
