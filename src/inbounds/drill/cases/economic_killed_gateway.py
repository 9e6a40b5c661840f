"""The gateway killed while the provider works, so that what was being spent is forgotten with it (G9: any crash)."""

import os
import signal
import threading
from collections.abc import Mapping
from typing import Any

from inbounds.drill.market import Market, Served, asking

CLASS = "economic"
REQUIREMENT = "G9"
KIND = "host"
BUDGET = 5_000  # micro-dollars: two and a half of these requests
IN_FLIGHT = 2


def _bill_and_hang(served: Served) -> None:
    if served.market.hold.is_set():
        served.answer()
        return
    served.market.bill.add(served.tokens_in, served.tokens_out)
    served.market.hold.wait(10)
    served.close_connection = True


def _spend(market: Market, again: Any) -> dict[str, Any]:
    """Requests that are lost in flight, a restart, and more requests; the bill of all of them."""
    asked = [threading.Thread(target=market.ask, kwargs={"body": asking(200)}) for _ in range(IN_FLIGHT)]
    for thread in asked:
        thread.start()
    for _ in range(500):
        if market.bill.requests == IN_FLIGHT:
            break
        threading.Event().wait(0.01)
    lost = market.bill.requests
    again()
    market.hold.set()
    for thread in asked:
        thread.join()
    statuses = [market.ask(body=asking(200)) for _ in range(IN_FLIGHT)]
    return market.facts(lost=lost, statuses=statuses)


def control(arena: Any) -> dict[str, Any]:
    """A meter that keeps its count in memory has forgotten it."""
    with Market(arena.scratch, guarded=False, cap_micro_usd=BUDGET, play=_bill_and_hang) as market:
        return _spend(market, lambda: None)


def attack(arena: Any) -> dict[str, Any]:
    """A killed gateway, and the next one of the same run on the same ledger."""
    with Market(arena.scratch, guarded=True, cap_micro_usd=BUDGET, play=_bill_and_hang) as market:

        def again() -> None:
            os.kill(market.gateways[0].pid, signal.SIGKILL)
            market.port = market.start_gateway(market.token)

        return _spend(market, again)


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """The provider's bill, lost requests included, against the run's cap."""
    said = after["said"]
    if said["lost"] != IN_FLIGHT:
        raise ValueError("the requests did not reach the provider")
    words = f"{said['lost']} lost in flight, then {said['statuses']}, {said['billed']} billed, cap {said['cap']}"
    return ("ESCAPED" if said["billed"] > said["cap"] else "BLOCKED"), words
