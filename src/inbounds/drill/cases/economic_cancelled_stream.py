"""Streams that are hung up on at their first word, so that no usage ever arrives: billed, and never counted (G9)."""

import contextlib
import json
import socket
from collections.abc import Mapping
from typing import Any

from inbounds.drill.market import MESSAGES, Market, Served, asking

CLASS = "economic"
REQUIREMENT = "G9"
KIND = "host"
STREAMS = 40  # at 2,000 micro-dollars each, four budgets


def _stream(served: Served) -> None:
    """Bills what it was asked for, says one word, and never comes to the usage."""
    served.market.bill.add(served.tokens_in, served.tokens_out)
    served.begin_stream()
    usage = {"input_tokens": served.tokens_in, "output_tokens": 1}
    served.event({"type": "message_start", "message": {"usage": usage}})
    served.event({"type": "content_block_delta", "index": 0, "delta": {"text": "hello"}})
    served.market.hold.wait(0.05)
    served.close_connection = True


def _hang_up(market: Market) -> dict[str, Any]:
    body = json.dumps(asking(200, stream=True))
    head = f"POST {MESSAGES} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {market.credential()}\r\nContent-Length: {len(body)}\r\n"
    begun = 0
    for _ in range(STREAMS):
        with socket.create_connection(("127.0.0.1", market.port), timeout=10) as sock, contextlib.suppress(OSError):
            sock.sendall(f"{head}Content-Type: application/json\r\n\r\n{body}".encode())
            begun += b" 200 " in sock.recv(40)
    return market.facts(begun=begun)


def control(arena: Any) -> dict[str, Any]:
    """Whoever counts at the end of a stream counts nothing."""
    with Market(arena.scratch, guarded=False, play=_stream) as market:
        return _hang_up(market)


def attack(arena: Any) -> dict[str, Any]:
    """What was reserved stays charged where no usage came."""
    with Market(arena.scratch, guarded=True, play=_stream) as market:
        return _hang_up(market)


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """The provider's own bill, against the run's cap; some streams must have begun, or nothing was tried."""
    said = after["said"]
    if not said["begun"]:
        raise ValueError("no stream began")
    words = f"{said['begun']} of {STREAMS} streams began, {said['billed']} billed, cap {said['cap']} micro-dollars"
    return ("ESCAPED" if said["billed"] > said["cap"] else "BLOCKED"), words
