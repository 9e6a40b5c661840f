"""A provider that bills for every request it serves, and the real gateway before it: where economic cases are tried.

The provider's own bill is the truth that a case is held against, whatever ledger and gateway say. Knows nothing of
cases and of jails; listens on loopback only, and holds a key that is worth nothing.
"""

import contextlib
import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from inbounds.contracts.errors import HostError, OperatorError
from inbounds.gateway.config import Caps, Format, GatewayConfig, Model, PriceOverride, Upstream
from inbounds.gateway.control import GatewayProcess

MESSAGES = "/v1/messages"
CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
MODEL, OUTPUT_TOKENS_MAX = "m", 1_000
INPUT_MICRO_USD, OUTPUT_MICRO_USD = 1, 10  # per token: figures that are added in the head
BYTES_PER_TOKEN = 4  # as tokenizers of English have it
SECONDS_MAX = 20  # for one answer, on a machine that does other things
BODY_BYTES_MAX = 48 << 20  # above the gateway's own limit, so that it is the gateway that refuses
HTTP_OK = 200
REFUSED = 0  # the status of a request that got no answer at all


@dataclass
class Ledger:
    """What the provider served and will bill: requests, tokens out, micro-dollars, the keys that it was shown."""

    requests: int = 0
    tokens_out: int = 0
    micro_usd: int = 0
    paths: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, tokens_in: int, tokens_out: int) -> None:
        """Bill so much more."""
        with self.lock:
            self.requests += 1
            self.tokens_out += tokens_out
            self.micro_usd += tokens_in * INPUT_MICRO_USD + tokens_out * OUTPUT_MICRO_USD


class Served(BaseHTTPRequestHandler):
    """One request at the provider; `market` is bound by the server that is made for it."""

    protocol_version = "HTTP/1.1"
    market: "Market"

    def log_message(self, *_: object) -> None:
        """Say nothing: what it served stands in the ledger."""

    def do_POST(self) -> None:
        """Bill first, as providers do, then answer as the case ordered."""
        raw = self.rfile.read(min(int(self.headers["Content-Length"] or 0), BODY_BYTES_MAX))
        ledger = self.market.bill
        ledger.paths.append(self.path)
        ledger.keys.add(self.headers.get("X-Api-Key", ""))
        body = _decoded(raw)
        ledger.models.append(str(body.get("model")))
        wanted = body.get("max_tokens", body.get("max_output_tokens", OUTPUT_TOKENS_MAX))
        copies = body.get("n", 1)
        self.raw = raw
        self.tokens_in = len(raw) // BYTES_PER_TOKEN
        self.tokens_out = int(wanted if isinstance(wanted, int) else 0) * int(copies if isinstance(copies, int) else 1)
        self.tokens_out = min(self.tokens_out, self.market.appetite)
        try:
            self.market.play(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def answer(self, usage: Mapping[str, Any] | None = None, tools: int = 0) -> None:
        """Bill it all and say what was billed, or what `usage` claims instead (JSON: {} means that none is said)."""
        self.market.bill.add(self.tokens_in, self.tokens_out)
        said = {"input_tokens": self.tokens_in, "output_tokens": self.tokens_out} if usage is None else dict(usage)
        content: list[dict[str, Any]] = [{"type": "text", "text": "hello"}]
        content += [{"type": "tool_use", "id": f"t{n}", "name": "sh", "input": {}} for n in range(tools)]
        self.reply(200, {"id": "1", "type": "message", "content": content, **({"usage": said} if said else {})})

    def reply(self, status: int, body: Any, **headers: str) -> None:
        """A whole reply in JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def begin_stream(self) -> None:
        """The head of a stream of events."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def event(self, data: Mapping[str, Any]) -> None:
        """One event of a stream, in Anthropic's form."""
        text = f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
        self.wfile.flush()

    def end_stream(self) -> None:
        """The stream's end."""
        self.wfile.write(b"0\r\n\r\n")


def _decoded(raw: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError, RecursionError):
        body = json.loads(raw)
        if isinstance(body, dict):
            return body
    return {}  # a provider that reads anything: what can't be read is billed by its bytes


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """A gateway that hangs up is what some cases are about."""


@dataclass
class Market:
    """A provider, and before it the real gateway (`guarded`) or nothing: the agent with the key in its own hands.

    `cap_micro_usd` is the run's budget. `appetite` bounds the tokens that the provider makes of a request.
    """

    scratch: Path
    guarded: bool
    cap_micro_usd: int = 20_000
    caps: Mapping[str, int] = field(default_factory=dict)
    play: Callable[[Served], None] = lambda served: served.answer()
    appetite: int = OUTPUT_TOKENS_MAX
    models: Mapping[str, Model] | None = None
    thread: str = "drill/economic"
    ledger_path: str = ""
    bill: Ledger = field(default_factory=Ledger)
    token: str = field(default_factory=lambda: "drill-" + os.urandom(18).hex())
    key: str = field(default_factory=lambda: "sk-drill-" + os.urandom(9).hex())
    hold: threading.Event = field(default_factory=threading.Event)
    heard: list[dict[str, Any]] = field(default_factory=list)
    gateways: list[GatewayProcess] = field(default_factory=list)
    port: int = 0

    def __enter__(self) -> Self:
        """Open the shop; what was started is ended in `__exit__`, also where the gateway can't be started."""
        self.server = _Server(("127.0.0.1", 0), type("Bound", (Served,), {"market": self}))
        self.thread_of_server = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread_of_server.start()
        try:
            self.port = self.start_gateway(self.token) if self.guarded else self.server.server_port
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End gateways and provider."""
        self.hold.set()
        for gateway in self.gateways:
            gateway.stop()
        self.server.shutdown()
        self.server.server_close()
        self.thread_of_server.join(SECONDS_MAX)

    def start_gateway(self, token: str, run_id: str = "20261122-100000-d00d00") -> int:
        """One more run's gateway on the same ledger; the port on which a jail would reach it."""
        gateway = GatewayProcess.start(self.config(token, run_id), self.heard.append)
        self.gateways.append(gateway)
        with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
            gateway.attach(listener, "coder")
            return int(listener.getsockname()[1])

    def config(self, token: str, run_id: str) -> GatewayConfig:
        """What this gateway serves."""
        url = f"http://127.0.0.1:{self.server.server_port}"
        return GatewayConfig(
            run_id=run_id,
            thread=self.thread,
            requirements=("FR-1",),
            token=token,
            ledger=self.ledger_path or str(self.scratch / "ledger.sqlite"),
            caps=Caps(run_micro_usd=self.cap_micro_usd, **self.caps),
            upstreams={"acme": Upstream("acme", tuple(Format), url, "X-Api-Key", "", self.key)},
            models=self.models or {MODEL: Model(MODEL, "acme", "acme-large", OUTPUT_TOKENS_MAX, _PRICE)},
        )

    def ask(
        self,
        path: str = MESSAGES,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
        port: int = 0,
        **fields: Any,
    ) -> int:
        """One request as an agent makes it: its status, REFUSED where it was hung up on. Bytes go as they are."""
        data = body if isinstance(body, bytes) else json.dumps({**(asking() if body is None else body), **fields})
        sent = {"Content-Type": "application/json", "X-Api-Key": self.credential(token), **(headers or {})}
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=SECONDS_MAX)
        try:
            connection.request("POST", path, data, sent)
            reply = connection.getresponse()
            reply.read()
        except (OSError, http.client.HTTPException):
            return REFUSED
        else:
            return reply.status
        finally:
            connection.close()

    def honest(self) -> None:
        """One modest request that must be served: a gateway that serves nobody would pass every case. HostError."""
        if (status := self.ask()) != HTTP_OK:
            raise HostError(f"an honest request got {status}", where="drill market", expected=str(HTTP_OK))

    def credential(self, token: str | None = None) -> str:
        """What an agent shows: the run's token, or the provider's key where nothing stands between."""
        return self.key if not self.guarded else self.token if token is None else token

    def send(self, data: bytes, seconds: float = SECONDS_MAX) -> bytes:
        """Raw bytes to whoever listens; the first of what comes back, b"" for nothing."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as sock:
            got = b""
            with contextlib.suppress(OSError):  # hung up on, or no answer in time: what came before is the answer
                sock.sendall(data)
                while b"\r\n\r\n" not in got and (part := sock.recv(65_536)):
                    got += part
            return got

    def facts(self, **more: Any) -> dict[str, Any]:
        """What a case says: the provider's bill against the cap."""
        bill = self.bill
        return {"billed": bill.micro_usd, "cap": self.cap_micro_usd, "served": bill.requests, **more}

    def gateway_peak(self) -> int:
        """Bytes that the gateway's process had in memory at its highest."""
        with open(f"/proc/{self.gateways[0].pid}/status", encoding="ascii", errors="replace") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

    def wait(self, event: str, seconds: float = SECONDS_MAX) -> dict[str, Any]:
        """The first such event of a gateway; {} where none came in time."""
        for _ in _until(seconds):
            for heard in list(self.heard):
                if heard.get("event") == event:
                    return heard
        return {}


_PRICE = PriceOverride(INPUT_MICRO_USD * 1_000_000, OUTPUT_MICRO_USD * 1_000_000, 100_000, 1_250_000, 2_000_000)


def _until(seconds: float) -> Iterator[None]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(0.01)


def asking(tokens: int = 100, text: str = "hi", **fields: Any) -> dict[str, Any]:
    """A plain request for at most so many tokens, as /v1/messages takes it."""
    return {"model": MODEL, "max_tokens": tokens, "messages": [{"role": "user", "content": text}], **fields}


def starts(make: Callable[[], object]) -> str:
    """Whether it "started", or how it was "refused: …": for cases about a gateway that must not start."""
    try:
        make()
    except (OperatorError, HostError) as refused:
        return f"refused: {refused.found}"
    return "started"
