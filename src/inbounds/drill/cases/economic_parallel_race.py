"""Twenty-four requests at once for the last dollar: each alone fits under the budget, together they do not (G9)."""

import threading
from collections.abc import Mapping
from typing import Any

from inbounds.drill.market import HTTP_OK, Market, Served, asking

CLASS = "economic"
REQUIREMENT = "G9"
KIND = "host"
AT_ONCE = 24
BUDGET = 6_000  # micro-dollars: two and a half of these requests


def _slow(served: Served) -> None:
    """So that all of them are in flight before the first is settled."""
    served.market.hold.wait(0.4)
    served.answer()


def _race(market: Market) -> dict[str, Any]:
    statuses: list[int] = []
    racers = [threading.Thread(target=lambda: statuses.append(market.ask(body=asking(200)))) for _ in range(AT_ONCE)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    return market.facts(answered=statuses.count(HTTP_OK), asked=len(statuses))


def control(arena: Any) -> dict[str, Any]:
    """Nobody counts."""
    with Market(arena.scratch, guarded=False, cap_micro_usd=BUDGET, play=_slow) as market:
        return _race(market)


def attack(arena: Any) -> dict[str, Any]:
    """What each request may cost is reserved before it leaves."""
    with Market(arena.scratch, guarded=True, cap_micro_usd=BUDGET, play=_slow) as market:
        return _race(market)


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """The provider's own bill, against the run's cap; one must have been served, or nothing was tried."""
    said = after["said"]
    if not said["answered"] or said["asked"] != AT_ONCE:
        raise ValueError("no request of the race was served")
    words = f"{said['answered']} of {AT_ONCE} served at once, {said['billed']} billed, cap {said['cap']} micro-dollars"
    return ("ESCAPED" if said["billed"] > said["cap"] else "BLOCKED"), words
