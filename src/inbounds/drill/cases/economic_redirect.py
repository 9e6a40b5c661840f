"""A provider (or whoever took its name) that redirects to another host: the key and the prompt would go along (G1)."""

import contextlib
import socket
import threading
import urllib.request
from collections.abc import Mapping
from typing import Any

from inbounds.drill.market import MESSAGES, Market, Served

CLASS = "economic"
REQUIREMENT = "G1"
KIND = "host"


def _elsewhere(heard: list[bytes]) -> socket.socket:
    """A listener of somebody else; what it hears."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):  # closed at the end
            while True:
                with listener.accept()[0] as sock:
                    sock.settimeout(2)
                    heard.append(sock.recv(65_536))
                    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")

    threading.Thread(target=serve, daemon=True).start()
    return listener


def _try(arena: Any, *, guarded: bool) -> dict[str, Any]:
    heard: list[bytes] = []
    with _elsewhere(heard) as listener:
        there = f"http://127.0.0.1:{listener.getsockname()[1]}/steal"

        def redirect(served: Served) -> None:
            served.reply(302, b"", Location=there)

        with Market(arena.scratch, guarded=guarded, play=redirect) as market:
            status = market.ask() if guarded else _follow(market)
            leaked = any(market.key.encode() in data for data in heard)
        listener.shutdown(socket.SHUT_RDWR)
    return {"status": status, "visits": len(heard), "leaked": leaked}


def _follow(market: Market) -> int:
    """As an ordinary HTTP library does by default."""
    url = f"http://127.0.0.1:{market.port}{MESSAGES}"
    request = urllib.request.Request(url, b"{}", {"X-Api-Key": market.key}, method="POST")
    with urllib.request.urlopen(request, timeout=5) as reply:
        return int(reply.status)


def control(arena: Any) -> dict[str, Any]:
    """An ordinary client follows, headers and all."""
    return _try(arena, guarded=False)


def attack(arena: Any) -> dict[str, Any]:
    """The gateway goes nowhere but where it was configured."""
    return _try(arena, guarded=True)


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Whether the other host was visited, and with the key."""
    said = after["said"]
    words = f"{said['visits']} visits at the other host, key {'leaked' if said['leaked'] else 'kept'}, {said['status']}"
    return ("ESCAPED" if said["visits"] else "BLOCKED"), words
