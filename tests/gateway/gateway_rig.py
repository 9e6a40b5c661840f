"""A provider to order and a gateway in front of it: real processes, real sockets, a real ledger."""

import http.client
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from inbounds.gateway.config import Format, GatewayConfig, PriceOverride
from inbounds.gateway.control import GatewayProcess

TOKEN = "run-token-0123456789abcdef0123456789"
KEY = "sk-provider-key-that-nobody-may-see"
PRICE = PriceOverride(
    input_micro_usd_per_mtok=1_000_000,  # one micro-dollar per token
    output_micro_usd_per_mtok=10_000_000,
    cache_read_micro_usd_per_mtok=100_000,
    cache_write_5m_micro_usd_per_mtok=1_250_000,
    cache_write_1h_micro_usd_per_mtok=2_000_000,
)
EVERY = (Format.CHAT, Format.RESPONSES, Format.MESSAGES)


@dataclass
class Seen:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Provider:
    """Answers with what `play` does for each request; remembers what it was sent."""

    play: Callable[["Call"], None] = lambda call: call.reply(call.whole())
    seen: list[Seen] = field(default_factory=list)
    url: str = ""
    closed: threading.Event = field(default_factory=threading.Event)


class Call(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    provider: Provider
    body: dict[str, Any]

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        self.body = json.loads(raw)
        seen = Seen(self.path, {k.lower(): v for k, v in self.headers.items()}, self.body)
        self.provider.seen.append(seen)
        try:
            self.provider.play(self)
        except (BrokenPipeError, ConnectionResetError):
            self.provider.closed.set()
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass

    @property
    def wire(self) -> Format:
        path = self.path.partition("?")[0]
        return {"completions": Format.CHAT, "responses": Format.RESPONSES}.get(path.rsplit("/")[-1], Format.MESSAGES)

    def whole(self, tokens_in: int = 20, tokens_out: int = 5, calls: int = 0, **usage: Any) -> dict[str, Any]:
        """A reply in the format that was asked, with usage."""
        match self.wire:
            case Format.CHAT:
                tools = [{"id": f"c{n}", "type": "function", "function": {"name": "f"}} for n in range(calls)]
                message = {"role": "assistant", "content": "hello", "tool_calls": tools}
                used = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, **usage}
                return {"id": "1", "choices": [{"index": 0, "message": message}], "usage": used}
            case Format.RESPONSES:
                output = [{"type": "message", "content": []}]
                output += [{"type": "function_call", "name": "f", "call_id": f"c{n}"} for n in range(calls)]
                used = {"input_tokens": tokens_in, "output_tokens": tokens_out, **usage}
                return {"id": "1", "object": "response", "status": "completed", "output": output, "usage": used}
            case Format.MESSAGES:
                content = [{"type": "text", "text": "hello"}]
                content += [{"type": "tool_use", "id": f"c{n}", "name": "f", "input": {}} for n in range(calls)]
                used = {"input_tokens": tokens_in, "output_tokens": tokens_out, **usage}
                return {"id": "1", "type": "message", "content": content, "usage": used}

    def reply(self, body: Any, status: int = 200, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def start_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def event(self, data: Any) -> None:
        name = f"event: {data['type']}\n".encode() if isinstance(data, dict) and "type" in data else b""
        self.chunk(name + b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n")

    def opening(self, tokens_in: int = 20, **usage: Any) -> None:
        """The events before the end of a stream."""
        self.start_stream()
        match self.wire:
            case Format.CHAT:
                self.event({"choices": [{"index": 0, "delta": {"content": "hel"}}], "usage": None})
            case Format.RESPONSES:
                self.event({"type": "response.created", "response": {"usage": None}})
                self.event({"type": "response.output_text.delta", "delta": "hel"})
            case Format.MESSAGES:
                used = {"input_tokens": tokens_in, "output_tokens": 1, **usage}
                self.event({"type": "message_start", "message": {"usage": used}})
                self.event({"type": "content_block_delta", "index": 0, "delta": {"text": "hel"}})

    def tool(self, index: int) -> None:
        """A tool call begins in a stream."""
        match self.wire:
            case Format.CHAT:
                call = {"index": index, "id": f"c{index}", "function": {"name": "f", "arguments": ""}}
                self.event({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})
                more = {"index": index, "function": {"arguments": "{}"}}
                self.event({"choices": [{"index": 0, "delta": {"tool_calls": [more]}}]})
            case Format.RESPONSES:
                self.event({"type": "response.output_item.added", "item": {"type": "function_call", "name": "f"}})
            case Format.MESSAGES:
                block = {"type": "tool_use", "id": f"c{index}", "name": "f", "input": {}}
                self.event({"type": "content_block_start", "index": index + 1, "content_block": block})

    def closing(self, tokens_in: int = 20, tokens_out: int = 5, **usage: Any) -> None:
        """The events that end a stream, with the bill."""
        match self.wire:
            case Format.CHAT:
                self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None})
                if (self.body.get("stream_options") or {}).get("include_usage"):
                    used = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, **usage}
                    self.event({"choices": [], "usage": used})
                self.event(b"[DONE]")
            case Format.RESPONSES:
                used = {"input_tokens": tokens_in, "output_tokens": tokens_out, **usage}
                self.event({"type": "response.completed", "response": {"output": [], "usage": used}})
            case Format.MESSAGES:
                self.event({"type": "message_delta", "delta": {}, "usage": {"output_tokens": tokens_out}})
                self.event({"type": "message_stop"})
        self.end_stream()

    def stream(self, tokens_in: int = 20, tokens_out: int = 5, calls: int = 0) -> None:
        self.opening(tokens_in)
        for index in range(calls):
            self.tool(index)
        self.closing(tokens_in, tokens_out)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        pass  # the gateway hangs up where a test makes it


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


@dataclass
class Running:
    """A gateway with one attached listener, and what it said."""

    process: GatewayProcess
    config: GatewayConfig
    port: int
    heard: list[dict[str, Any]]

    def ask(
        self,
        wire: Format | str = Format.MESSAGES,
        body: Any = None,
        *,
        stream: bool = False,
        token: str | None = TOKEN,
        method: str = "POST",
        headers: dict[str, str] | None = None,
        **fields: Any,
    ) -> Answer:
        """One request as an agent makes it; `wire` is a format or a path."""
        path = PATHS.get(wire, str(wire))
        if body is None and method == "POST":
            body = {**body_of(wire), **({"stream": True} if stream else {}), **fields}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **(headers or {})}
        if token is not None:
            sent.setdefault("Authorization", f"Bearer {token}")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, data, sent)
            reply = connection.getresponse()
            return Answer(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
        finally:
            connection.close()

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.heard if event["event"] == kind]

    def wait(self, kind: str, count: int = 1, seconds: float = 15) -> list[dict[str, Any]]:
        deadline = time.monotonic() + seconds
        while len(found := self.events(kind)) < count:
            assert time.monotonic() < deadline, f"no {kind} in {self.heard}"
            time.sleep(0.01)
        return found


PATHS: dict[Any, str] = {
    Format.CHAT: "/v1/chat/completions",
    Format.RESPONSES: "/v1/responses",
    Format.MESSAGES: "/v1/messages",
}


def body_of(wire: Format | str) -> dict[str, Any]:
    match wire:
        case Format.CHAT:
            return {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}
        case Format.RESPONSES:
            return {"model": "m", "input": [{"role": "user", "content": "hi"}], "max_output_tokens": 100}
        case _:
            return {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}


def without(mechanism: str) -> bool:
    """Whether this run of the suite has the mechanism switched off, and so must fail the test that proves it."""
    return os.environ.get("INBOUNDS_TEST_WITHOUT") == mechanism


def altered(monkeypatch: Any, code: str) -> None:
    """Start gateways with `code` run first in their process: how a proof is shown to fail without its mechanism."""

    def command(_: str, control_fd: int) -> list[str]:
        begin = f"from inbounds.program.entry import begin; begin({control_fd}, serve)"
        return [sys.executable, "-I", "-c", f"{code}; from inbounds.gateway.program import serve; {begin}"]

    monkeypatch.setattr("inbounds.program.child.command", command)
