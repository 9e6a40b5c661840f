"""The tool broker killed: a tool that does not answer is taken for one that succeeded, or run somewhere else."""

import http.client
import json
import os
import signal
import socket
import threading
from collections.abc import Mapping
from typing import Any

from inbounds.broker.control import BrokerProcess
from inbounds.broker.tools import Tool
from inbounds.drill.played import Run
from inbounds.kernel.events import Failed, IterationStarted

CLASS = "failopen"
REQUIREMENT = "C6"
KIND = "host"
TOKEN = "drill-" + "0" * 36


def _call(port: int, method: str = "tools/call") -> int:
    """One request as an agent makes it; 0 where nobody answers."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"name": "run_tests", "arguments": {}}}
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", "Accept": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", "/mcp", json.dumps(body), headers)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def control(arena: Any) -> dict[str, Any]:
    """A tool runner that runs things itself when its broker does not answer."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    if _call(port) == 0:
        (arena.outside / "ran").write_text("the tests, outside")
    return {"answered": 0, "ran": (arena.outside / "ran").exists(), "code": ""}


def attack(arena: Any) -> dict[str, Any]:
    """The real broker, dead, and what the kernel makes of it."""
    broker = BrokerProcess.start(TOKEN, [Tool("run_tests", "Run the tests.", {"type": "object", "properties": {}})])
    gone = threading.Event()
    broker.on_gone(gone.set)
    calls: list[Any] = []
    broker.on_call(calls.append)
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            broker.attach(listener, "coder")
        if _call(port, "tools/list") == 0:
            raise ValueError("the living broker does not answer")
        os.kill(broker.pid, signal.SIGKILL)
        died = gone.wait(10)
        answered = sum(_call(port) != 0 for _ in range(3))
    finally:
        broker.stop()
    run = Run()
    run.begin()
    run.feed(IterationStarted(1), *[Failed("broker", "it ended") for _ in range(died)])
    return {"answered": answered, "ran": (arena.outside / "ran").exists() or bool(calls), "code": run.code}


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Whether anything was answered or run, and what the run ends with."""
    said = after["said"]
    good = not said["answered"] and not said["ran"] and said["code"] == "STOP_HOST_FAILED"
    words = f"{said['answered']} calls answered, run elsewhere: {said['ran']}, {said['code'] or 'no stop'}"
    return ("BLOCKED" if good else "ESCAPED"), words
