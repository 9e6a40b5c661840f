"""No token, a guessed one, the provider's key, another run's token, the right one beside a wrong one (G1)."""

from collections.abc import Mapping
from typing import Any

from inbounds.drill.market import HTTP_OK, Market

CLASS = "economic"
REQUIREMENT = "G1"
KIND = "host"


def _show(market: Market, other: str) -> dict[str, Any]:
    before = market.bill.requests
    shown = ["", "x" * 44, market.key, other, market.token[:-1], market.token + "\t" + other, "Bearer " + market.token]
    statuses = [market.ask(token=text) for text in shown]
    statuses.append(market.ask(token=market.token, headers={"Authorization": f"Bearer {other}"}))
    return market.facts(statuses=statuses, accepted=market.bill.requests - before)


def control(arena: Any) -> dict[str, Any]:
    """A service that does not ask who comes: what stands on a host's loopback often is one."""
    with Market(arena.scratch, guarded=False) as market:
        return _show(market, "drill-" + "0" * 36)


def attack(arena: Any) -> dict[str, Any]:
    """Two runs with a gateway each: a token is worth something at its own only."""
    with Market(arena.scratch, guarded=True) as market:
        market.honest()
        other = "drill-" + "0" * 36
        port = market.start_gateway(other, "20261122-100001-d00d01")
        if market.ask(token=other, port=port) != HTTP_OK:
            raise ValueError("the other run's own gateway does not take its token")
        return _show(market, other)


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """What the provider served on credentials that are not this run's."""
    said = after["said"]
    words = f"{said['accepted']} of {len(said['statuses'])} foreign credentials were served, answers {said['statuses']}"
    return ("ESCAPED" if said["accepted"] else "BLOCKED"), words
