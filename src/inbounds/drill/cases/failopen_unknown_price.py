"""A model that has no price: what can't be priced would cost nothing in the books (G1, G2)."""

from collections.abc import Mapping
from typing import Any

from inbounds.drill.market import MODEL, OUTPUT_TOKENS_MAX, Market
from inbounds.gateway.config import Model

CLASS = "failopen"
REQUIREMENT = "G2"
KIND = "host"
UNPRICED = {MODEL: Model(MODEL, "acme", "acme-model-of-next-year", OUTPUT_TOKENS_MAX)}
REQUESTS = 30


def _ask(market: Market) -> dict[str, Any]:
    return market.facts(statuses=sorted({market.ask() for _ in range(REQUESTS)}))


def control(arena: Any) -> dict[str, Any]:
    """A price list that answers 0 for what it does not know is no cap."""
    with Market(arena.scratch, guarded=False, models=UNPRICED) as market:
        return _ask(market)


def attack(arena: Any) -> dict[str, Any]:
    """The gateway with this model as its only one."""
    with Market(arena.scratch, guarded=True, models=UNPRICED) as market:
        return _ask(market)


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Whether anything was served."""
    said = after["said"]
    words = f"{said['served']} of {REQUESTS} requests served, answers {said['statuses']}"
    return ("ESCAPED" if said["served"] else "BLOCKED"), words
