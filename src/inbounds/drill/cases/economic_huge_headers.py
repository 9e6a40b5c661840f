"""A header of thirty-two megabytes, sent line by line: whatever collects headers without a limit grows with it."""

import contextlib
import socket
import threading
from collections.abc import Mapping
from typing import Any

from inbounds.drill.market import MESSAGES, Market

CLASS = "economic"
REQUIREMENT = "G1"
KIND = "host"
SENT, GROWTH_MAX = 32 << 20, 12 << 20


def _push(port: int) -> int:
    """Send header lines until it is enough or the other side has had enough; how many bytes went."""
    line = b"X-Filler: " + b"y" * 4000 + b"\r\n"
    sent = 0
    with socket.create_connection(("127.0.0.1", port), timeout=3) as sock, contextlib.suppress(OSError):
        sock.sendall(f"POST {MESSAGES} HTTP/1.1\r\nHost: x\r\n".encode())
        while sent < SENT:
            sock.sendall(line)
            sent += len(line)
    return sent


def control(_: Any) -> dict[str, Any]:
    """A server that reads until the empty line."""
    collected = bytearray()

    def collect(listener: socket.socket) -> None:
        with listener.accept()[0] as sock:
            while b"\r\n\r\n" not in collected[-8000:] and (part := sock.recv(1 << 16)):
                collected.extend(part)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        collecting = threading.Thread(target=collect, args=(listener,), daemon=True)
        collecting.start()
        _push(listener.getsockname()[1])
        collecting.join(5)
    return {"grown": len(collected)}


def attack(arena: Any) -> dict[str, Any]:
    """The gateway, which must still serve an honest request behind it."""
    with Market(arena.scratch, guarded=True) as market:
        market.honest()
        before = market.gateway_peak()
        sent = _push(market.port)
        market.honest()
        return market.facts(grown=market.gateway_peak() - before, sent=sent)


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """How much memory it took."""
    grown = after["said"]["grown"]
    return ("ESCAPED" if grown > GROWTH_MAX else "BLOCKED"), f"{grown >> 20} MiB grown by headers of {SENT >> 20} MiB"
