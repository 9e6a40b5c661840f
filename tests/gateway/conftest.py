"""A provider to order and a gateway in front of it: real processes, real sockets, a real ledger."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_rig import EVERY, KEY, PRICE, TOKEN, Call, Provider, Running, Server

from inbounds.gateway.config import Caps, GatewayConfig, Model, Upstream
from inbounds.gateway.control import GatewayProcess


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    server = Server(("127.0.0.1", 0), type("Bound", (Call,), {"provider": made}))
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def configure(provider: Provider, tmp_path: Path) -> Callable[..., GatewayConfig]:
    def make(caps: Caps | None = None, **changes: Any) -> GatewayConfig:
        upstream = Upstream("acme", EVERY, provider.url, "X-Api-Key", "", KEY)
        model = Model("m", "acme", "acme-large", 1_000, PRICE)
        values: dict[str, Any] = {
            "run_id": "20261122-100000-abcdef",
            "thread": "repo/billing",
            "requirements": ("FR-1",),
            "token": TOKEN,
            "ledger": str(tmp_path / "ledger.sqlite"),
            "caps": caps or Caps(run_micro_usd=1_000_000),
            "upstreams": {"acme": upstream},
            "models": {"m": model},
        }
        return GatewayConfig(**{**values, **changes})

    return make


@pytest.fixture
def launch(configure: Callable[..., GatewayConfig]) -> Iterator[Callable[..., Running]]:
    started: list[GatewayProcess] = []

    def make(caps: Caps | None = None, **changes: Any) -> Running:
        config = configure(caps, **changes)
        heard: list[dict[str, Any]] = []
        process = GatewayProcess.start(config, heard.append)
        started.append(process)
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        port = listener.getsockname()[1]
        process.attach(listener, "agent")
        listener.close()
        return Running(process, config, port, heard)

    yield make
    for process in started:
        process.stop()
