"""A provider that bills and then breaks off, and an agent that tries again each time: retries are not free (G9)."""

from collections.abc import Mapping
from typing import Any

from inbounds.drill.market import Market, Served, asking

CLASS = "economic"
REQUIREMENT = "G9"
KIND = "host"
RETRIES = 40


def _break_off(served: Served) -> None:
    """Bills, promises a long reply and hangs up in its middle."""
    if served.market.bill.requests == 0:
        served.answer()
        return
    served.market.bill.add(served.tokens_in, served.tokens_out)
    served.send_response(200)
    served.send_header("Content-Type", "application/json")
    served.send_header("Content-Length", "4096")
    served.end_headers()
    served.wfile.write(b'{"type": "message", ')
    served.close_connection = True


def _retry(market: Market) -> dict[str, Any]:
    market.honest()
    for _ in range(RETRIES):
        market.ask(body=asking(200))
    return market.facts()


def control(arena: Any) -> dict[str, Any]:
    """Whoever counts whole replies counts one."""
    with Market(arena.scratch, guarded=False, play=_break_off) as market:
        return _retry(market)


def attack(arena: Any) -> dict[str, Any]:
    """A reply that can't be read is charged at its bound."""
    with Market(arena.scratch, guarded=True, play=_break_off) as market:
        return _retry(market)


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """The provider's own bill, against the run's cap."""
    said = after["said"]
    words = f"{said['served']} replies broke off, {said['billed']} billed, cap {said['cap']} micro-dollars"
    return ("ESCAPED" if said["billed"] > said["cap"] else "BLOCKED"), words
