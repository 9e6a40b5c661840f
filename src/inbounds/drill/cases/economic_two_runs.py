"""Two runs of one thread, each within its own budget, together beyond the month's (G3)."""

from collections.abc import Mapping
from typing import Any

from inbounds.drill.market import HTTP_OK, Market, asking

CLASS = "economic"
REQUIREMENT = "G3"
KIND = "host"
MONTH, EACH = 10_000, 8_000  # micro-dollars
REQUESTS = 6  # at 1,000 each


def _spend(market: Market, second: tuple[str, int]) -> dict[str, Any]:
    token, port = second
    statuses = [market.ask(body=asking(100)) for _ in range(REQUESTS)]
    statuses += [market.ask(body=asking(100), token=token, port=port) for _ in range(REQUESTS)]
    return {**market.facts(first=statuses[:REQUESTS].count(HTTP_OK), second=statuses[REQUESTS:].count(HTTP_OK))}


def control(arena: Any) -> dict[str, Any]:
    """Each run alone is watched: six requests of a thousand are below eight thousand."""
    with Market(arena.scratch, guarded=False, cap_micro_usd=EACH) as market:
        return _spend(market, ("", market.port))


def attack(arena: Any) -> dict[str, Any]:
    """One ledger, two gateways."""
    caps = {"thread_month_micro_usd": MONTH}
    with Market(arena.scratch, guarded=True, cap_micro_usd=EACH, caps=caps) as market:
        token = "drill-" + "1" * 36
        return _spend(market, (token, market.start_gateway(token, "20261122-100001-d00d01")))


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """The provider's bill for both, against the month's cap; the first run must have been served in full."""
    said = after["said"]
    if said["first"] < REQUESTS:
        raise ValueError(f"the first run was served {said['first']} of {REQUESTS} requests")
    words = f"{said['first']} and {said['second']} requests served, {said['billed']} billed, month's cap {MONTH}"
    return ("ESCAPED" if said["billed"] > MONTH else "BLOCKED"), words
