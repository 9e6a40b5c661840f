"""A ledger that can't be opened, that is none, and one that is spoilt while the run goes on: unmetered from there on."""

import socket
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from inbounds.contracts.errors import HostError
from inbounds.drill.market import HTTP_OK, Market, starts
from inbounds.gateway.control import GatewayProcess

CLASS = "failopen"
REQUIREMENT = "G9"
KIND = "host"
REQUESTS = 10


def control(arena: Any) -> dict[str, Any]:
    """A meter whose write fails, and which goes on serving."""
    with Market(arena.scratch, guarded=False) as market:
        missed = 0
        for _ in range(REQUESTS):
            market.ask()
            try:
                (Path(arena.scratch) / "gone" / "ledger").write_text("one more")
            except OSError:
                missed += 1
        return market.facts(late=missed, started=["a meter without a book"])


def attack(arena: Any) -> dict[str, Any]:
    """The real gateway."""
    scratch = Path(arena.scratch)
    (scratch / "text").write_text("this is no ledger\n" * 100)
    started = []
    with Market(scratch, guarded=True) as market:
        market.honest()
        for name in ("gone/ledger.sqlite", "text"):
            market.ledger_path = str(scratch / name)
            config = market.config("drill-" + "2" * 36, "20261122-100002-d00d02")
            if starts(partial(_serve, market, config)) == "started":
                started.append(name)
        for path in scratch.glob("ledger.sqlite*"):
            path.write_bytes(b"\xff" * 65_536)  # the same file, under the gateway's open descriptor
        before = market.bill.requests
        statuses = [market.ask() for _ in range(REQUESTS)]
        return market.facts(late=market.bill.requests - before, started=started, statuses=statuses)


def _serve(market: Market, config: Any) -> None:
    """Start a gateway and ask it once; HostError where it does not answer as one that serves."""
    gateway = GatewayProcess.start(config)
    market.gateways.append(gateway)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gateway.attach(listener, "coder")
        status = market.ask(token=config.token, port=listener.getsockname()[1])
    if status != HTTP_OK:
        raise HostError(f"answered {status}")


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Whether anything was served without a book."""
    said = after["said"]
    words = f"served without a ledger: {said['started'] or 'nothing'}; {said['late']} requests after it was spoilt"
    return ("ESCAPED" if said["late"] or said["started"] else "BLOCKED"), words
