"""Two requests where the meter sees one: length against chunks, two lengths, a bare line feed, a blank before the colon
(request smuggling; the gateway is the one program that a jail can reach).
"""

import json
from collections.abc import Mapping
from typing import Any

from inbounds.drill.market import MESSAGES, Market, asking

CLASS = "economic"
REQUIREMENT = "G1"
KIND = "host"
TWISTS = (
    "Content-Length: {n}\r\nTransfer-Encoding: chunked\r\n",
    "Content-Length: {n}\r\nTransfer-Encoding : chunked\r\n",
    "Content-Length: {n}\r\nTransfer-Encoding: xchunked\r\n",
    "Content-Length: {n}\r\nContent-Length: 0\r\n",
    "Content-Length: +{n}\r\n",
    "Content-Length: {n}\nTransfer-Encoding: chunked\r\n",
    "Content-Length: {n}\r\nX: y\r\n Transfer-Encoding: chunked\r\n",
)


def _smuggle(market: Market) -> dict[str, Any]:
    body = json.dumps(asking(9)).encode()
    base = f"POST {MESSAGES} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {market.credential()}\r\n"
    hidden = f"{base}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
    for twist in TWISTS:
        market.send(f"{base}{twist.format(n=len(body))}\r\n".encode() + body + hidden, 3)
    market.hold.wait(0.1)
    metered = sum(heard.get("event") == "usage" for heard in market.heard)
    return market.facts(metered=metered)


def control(arena: Any) -> dict[str, Any]:
    """A meter beside the wire that takes each connection for one request, before a server that reads on."""
    with Market(arena.scratch, guarded=False) as market:
        return {**_smuggle(market), "metered": len(TWISTS)}


def attack(arena: Any) -> dict[str, Any]:
    """The gateway makes a request of its own of what it has understood."""
    with Market(arena.scratch, guarded=True) as market:
        market.honest()
        return _smuggle(market)


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Whether the provider served more than was metered."""
    said = after["said"]
    words = f"{len(TWISTS)} twisted pairs: {said['served']} requests served, {said['metered']} metered"
    return ("ESCAPED" if said["served"] > said["metered"] else "BLOCKED"), words
