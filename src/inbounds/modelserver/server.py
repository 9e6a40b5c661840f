"""The provider's side of the wire: HTTP, keys, streaming and faults, around a Player. Plays the provider for the demo
and for tests; it is no part of the gateway and knows nothing of it.
"""

import asyncio
import collections
import contextlib
import hmac
import json
import threading
from dataclasses import dataclass
from types import ModuleType, TracebackType
from typing import Any, Self, TextIO, cast

from aiohttp import web

from inbounds.contracts.errors import HostError
from inbounds.modelserver import script as scripts
from inbounds.modelserver import wire_chat, wire_messages, wire_responses
from inbounds.modelserver.bill import Bill, Line
from inbounds.modelserver.play import Played, Player
from inbounds.modelserver.wire import BYTES_PER_TOKEN, BadRequestError, Wire

# Agents send their whole history with files in it; providers take about as much.
BODY_BYTES_MAX = 64 << 20
# The newest requests, kept for tests that look at what reached the provider.
SEEN_MAX = 200
START_SECONDS_MAX = 10
STOP_SECONDS_MAX = 10


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it arrived, header names in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes


class ModelServer:
    """A provider on 127.0.0.1, in a thread of its own: `with ModelServer(script) as server: server.url`.

    `source` is a Script, its JSON, or a bare list of turns; `url` ends without /v1.
    """

    def __init__(self, source: Any, *, port: int = 0, bill: TextIO | None = None) -> None:
        """Parse the script; nothing listens yet."""
        self.script = scripts.of(source)
        self.bill = Bill(bill)
        self.port = port
        self.seen: collections.deque[Seen] = collections.deque(maxlen=SEEN_MAX)
        self._player = Player(self.script)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._fault: OSError | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self.serve()), name="modelserver", daemon=True)

    @property
    def url(self) -> str:
        """The base URL without /v1."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        """The API key that it takes."""
        return self.script.key

    def start(self) -> Self:
        """Listen; HostError if the port can't be had."""
        self._thread.start()
        if not self._ready.wait(START_SECONDS_MAX):
            raise HostError("the model server did not start", expected=f"it within {START_SECONDS_MAX} s")
        if self._fault is not None:
            raise HostError(f"port {self.port}: {self._fault.strerror}", expected="a free port") from self._fault
        return self

    def stop(self) -> None:
        """Stop listening, hanging requests included."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop ended by itself between the check and the call
                self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(STOP_SECONDS_MAX)

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    async def serve(self) -> None:
        """Serve until `stop`; sets `port` once it listens."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", self.port)
            await site.start()
            self.port = int(runner.addresses[0][1])
            self._ready.set()
            await self._stop.wait()
        except OSError as fault:
            self._fault = fault
            self._ready.set()
        finally:
            await runner.cleanup()

    def app(self) -> web.Application:
        """Build the routes, with and without /v1, as base URLs come in both kinds."""
        app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[self._guard])
        for prefix in ("/v1", ""):
            for path, module in (
                ("/chat/completions", wire_chat),
                ("/responses", wire_responses),
                ("/messages", wire_messages),
            ):
                app.router.add_post(prefix + path, _handler(self, module))
            app.router.add_post(prefix + "/messages/count_tokens", self._count_tokens)
            app.router.add_get(prefix + "/models", self._models)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(Seen(request.path_qs, headers, body))
        given = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        spoken = wire_messages if "messages" in request.path else wire_chat
        if not hmac.compare_digest(given.encode(), self.script.key.encode()):
            return web.json_response(spoken.error(401, "Incorrect API key provided."), status=401)
        try:
            return cast("web.StreamResponse", await handler(request))
        except BadRequestError as fault:
            return web.json_response(spoken.error(400, str(fault)), status=400)

    async def answer(self, request: web.Request, spoken: Wire) -> web.StreamResponse:
        """Answer one request in one format, as the script has it."""
        raw = await request.read()
        asked = spoken.read(_object(raw), len(raw))
        played = self._player.play(asked)
        fault = played.fault
        if fault is not None and fault.kind == "status":
            self._bill(spoken, played, status=fault.status, streamed=False)
            if fault.body:
                return web.Response(text=fault.body, status=fault.status, content_type="application/json")
            return web.json_response(spoken.error(fault.status, "This was ordered by the script."), status=fault.status)
        if fault is not None and fault.kind == "hang":
            self._bill(spoken, played, status=0, streamed=asked.stream)
            await asyncio.Event().wait()
        # Work that a provider has begun is charged, whether or not anybody stays to hear it.
        self._bill(spoken, played, status=200, streamed=asked.stream)
        await asyncio.sleep(played.turn.delay_ms / 1000)
        if asked.stream:
            return await self._stream(request, played, spoken.events(played.reply, asked))
        return await self._whole(request, played, json.dumps(spoken.whole(played.reply)).encode())

    async def _whole(self, request: web.Request, played: Played, text: bytes) -> web.StreamResponse:
        kind = played.fault.kind if played.fault else ""
        if kind == "malformed":
            return web.Response(body=text[: len(text) // 2], content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(text))})
        response.headers["x-request-id"] = f"req_{played.reply.request:08d}"
        await response.prepare(request)
        if kind == "cut":
            await response.write(text[: len(text) // 2])
            return _break(request, response)
        await response.write(text)
        await response.write_eof()
        return response

    async def _stream(self, request: web.Request, played: Played, events: list[bytes]) -> web.StreamResponse:
        kind = played.fault.kind if played.fault else ""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        response.headers["x-request-id"] = f"req_{played.reply.request:08d}"
        await response.prepare(request)
        for at, event in enumerate(events):
            if at == max(1, len(events) // 2):
                if kind == "cut":
                    return _break(request, response)
                if kind == "malformed":
                    await response.write(b'event: broken\ndata: {"type": "brok\n\n')
            await response.write(event)
            if played.turn.chunk_delay_ms:
                await asyncio.sleep(played.turn.chunk_delay_ms / 1000)
        await response.write_eof()
        return response

    def _bill(self, spoken: Wire, played: Played, *, status: int, streamed: bool) -> None:
        charged = status == 200
        usage = played.usage if charged else scripts.Usage()
        self.bill.add(
            Line(
                request=played.reply.request,
                format=spoken.name,
                model=played.reply.model,
                turn=played.name,
                status=status,
                streamed=streamed,
                input_tokens=usage.input,
                output_tokens=usage.output,
                cache_read_tokens=usage.cache_read,
                cache_write_tokens=usage.cache_write,
                cost_micro_usd=played.cost_micro_usd if charged else 0,
                tool_calls=len(played.reply.calls) if charged else 0,
            )
        )

    async def _count_tokens(self, request: web.Request) -> web.Response:
        raw = await request.read()
        _object(raw)
        return web.json_response({"input_tokens": max(1, len(raw) // BYTES_PER_TOKEN)})

    async def _models(self, request: web.Request) -> web.Response:
        del request
        named = [
            {
                "id": model,
                "object": "model",
                "type": "model",
                "display_name": model,
                "created": 1_760_000_000,
                "created_at": "2025-10-09T08:53:20Z",
                "owned_by": "script",
            }
            for model in sorted(self.script.prices)
        ]
        return web.json_response({"object": "list", "data": named, "has_more": False})


def _handler(server: ModelServer, module: ModuleType) -> Any:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await server.answer(request, cast("Wire", module))

    return handle


def _object(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise BadRequestError("the body is no JSON") from None
    if not isinstance(body, dict):
        raise BadRequestError("the body is no JSON object")
    return body


def _break(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Drop the connection in the middle of a reply."""
    if request.transport is not None:
        request.transport.abort()
    return response
