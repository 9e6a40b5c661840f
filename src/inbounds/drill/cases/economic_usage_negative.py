"""A provider (or what stands between) that reports negative tokens, so that each request would earn the run money."""

from collections.abc import Mapping
from itertools import cycle
from typing import Any

from inbounds.drill.market import Market, Served, asking

CLASS = "economic"
REQUIREMENT = "G9"
KIND = "host"
REQUESTS = 40  # at 2,000 micro-dollars each, four budgets
_CLAIMS = ({"input_tokens": -10_000, "output_tokens": -10_000}, {"input_tokens": 1, "output_tokens": -(2**62)})


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
    """Whoever adds up what is reported gets richer by it."""
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
