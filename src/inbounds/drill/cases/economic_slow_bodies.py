"""Sixty requests that begin and never end (slowloris), so that no other run's agent and no supervisor gets an answer."""

import contextlib
import http.client
import socket
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from inbounds.drill.market import HTTP_OK, MESSAGES, Market

CLASS = "economic"
REQUIREMENT = "G1"
KIND = "host"
SLOW = 60


class _Naive(BaseHTTPRequestHandler):
    """One at a time, and each has all the time it wants."""

    def do_POST(self) -> None:
        """Read the whole body first."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(HTTP_OK)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def _slow(port: int, token: str) -> Any:
    """Connections that have promised a body and sent its first byte."""
    head = f"POST {MESSAGES} HTTP/1.1\r\nHost: x\r\nX-Api-Key: {token}\r\nContent-Length: 1000\r\n\r\n{{"
    with contextlib.ExitStack() as stack:
        for _ in range(SLOW):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5)).sendall(head.encode())
        yield


def control(_: Any) -> dict[str, Any]:
    """A plain server waits for the first of them, for ever."""
    server = HTTPServer(("127.0.0.1", 0), _Naive)
    server.socket.listen(128)
    serving = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    serving.start()
    try:
        with _slow(server.server_port, "x"):
            asked = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=0.5)
            try:
                asked.request("POST", MESSAGES, "{}")
                return {"honest": asked.getresponse().status}
            except OSError:
                return {"honest": 0}
            finally:
                asked.close()
    finally:
        server.shutdown()
        server.server_close()
        serving.join(5)


def attack(arena: Any) -> dict[str, Any]:
    """An honest request meanwhile."""
    with Market(arena.scratch, guarded=True) as market, _slow(market.port, market.token):
        return market.facts(honest=market.ask())


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Whether the honest request was answered."""
    honest = after["said"]["honest"]
    words = f"an honest request beside {SLOW} slow ones: {honest or 'no answer in time'}"
    return ("BLOCKED" if honest == HTTP_OK else "ESCAPED"), words
