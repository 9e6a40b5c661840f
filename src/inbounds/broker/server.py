"""The broker's program: accepts on a jail's listeners, checks each call, and has the supervisor carry it out.

One of the two programs that a jailed agent can reach. It holds the run's token and the declared tools, nothing else:
no key, no file, no way to start anything. It ends when the supervisor's end of the control channel closes.
"""

import asyncio
import errno
import hmac
import itertools
import json
import logging
import os
import socket
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from inbounds.broker import mcp
from inbounds.broker.rights import RIGHTS
from inbounds.broker.tools import TOOLS_MAX, Refused, Tool, checked
from inbounds.program import channel
from inbounds.program.inbox import Inbox
from inbounds.program.seal import seal

# A call is a name and a few arguments; the whole must also fit one datagram to the supervisor.
BODY_BYTES_MAX = 32 << 10
# A slow body is a way to hold connections.
BODY_SECONDS_MAX = 10
# An agent and its sub-agents hold a few connections each; more are dropped at once.
CONNECTIONS_MAX = 64
# A connection that has said nothing whole by then is dropped.
SILENT_SECONDS_MAX = 15
# Tools run one after another, as they share the run's tester; a longer queue is an agent gone wild.
WAITING_MAX = 8
# The slowest declared tool is a whole test suite; after this its caller is told so, whatever becomes of it.
CALL_SECONDS_MAX = 900
HEADER_BYTES_MAX = 8190
# Refusals are told one by one up to this many, so that an agent can't flood the journal; all are counted.
REFUSALS_TOLD_MAX = 100
TOKEN_CHARS_MIN = 16
# Each role has one listener at a time; a run has few roles.
ROLES_MAX = 16
# Errors of accept that pass: descriptors ran out, or the peer went away first.
PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED, errno.EPROTO}

CLOSED = "the run is being stopped: no new tool call starts"


@dataclass(slots=True)
class State:
    """What the broker knows; changed by the control channel only, except the counts."""

    token: str = ""
    tools: dict[str, Tool] = field(default_factory=dict)
    closed: bool = False
    calls: int = 0
    refused: int = 0
    waiting: int = 0


class Broker:
    """The event loop's side: control channel, listeners, requests."""

    def __init__(self, control: socket.socket) -> None:
        """Take the control channel; nothing is served before it says what."""
        self.state = State()
        self._control = control
        self._control.setblocking(False)
        self._inbox = Inbox(control)
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[tuple[str, bool]]] = {}
        self._turn = asyncio.Semaphore(1)
        self._open: set[asyncio.BaseTransport] = set()
        self._heard: set[asyncio.BaseTransport] = set()
        self._accepting: dict[str, asyncio.Task[None]] = {}
        self._runner: web.AppRunner | None = None

    async def run(self, sealed: dict[str, str]) -> None:
        """Serve until the supervisor is gone."""
        quiet = logging.getLogger("inbounds.broker")
        app = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[self._guard])
        app.router.add_post("/mcp", self._mcp)
        app.router.add_post("/tools/{name}", self._plain)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=quiet,
            keepalive_timeout=60,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            handler_cancellation=True,
            auto_decompress=False,  # a compressed body is no JSON: nothing to blow up
        )
        await self._runner.setup()
        self._tell({"event": "ready", "pid": os.getpid(), "sealed": sealed})
        async for message in self._inbox:
            try:
                self._obey(message)
            except (KeyError, TypeError, ValueError) as fault:
                self._tell({"event": "fault", "why": f"{type(fault).__name__}: {fault}"})

    # -- the supervisor's side

    def _obey(self, message: channel.Message) -> None:
        body = message.body
        match body.get("op"):
            case "configure":
                self._configure(body)
            case "listen" if len(message.descriptors) == 1:
                self._listen(message.descriptors[0], str(body["role"]))
                return
            case "result":
                waiting = self._answers.pop(int(body["id"]), None)
                if waiting is not None and not waiting.done():
                    waiting.set_result((str(body["text"]), bool(body["is_error"])))
            case "detach":
                self._detach(str(body["role"]))
            case "close":
                self._close()
            case other:
                self._tell({"event": "fault", "why": f"unknown op {other!r}"})
        message.close()

    def _configure(self, body: dict[str, Any]) -> None:
        token = str(body["token"])
        tools = [Tool(str(t["name"]), str(t["description"]), dict(t["schema"])) for t in body["tools"]]
        if len(token) < TOKEN_CHARS_MIN or len(tools) > TOOLS_MAX:
            raise ValueError(f"expected a token of {TOKEN_CHARS_MIN} characters and at most {TOOLS_MAX} tools")
        self.state.token, self.state.tools = token, {tool.name: tool for tool in tools}
        self._tell({"event": "configured", "tools": len(tools)})

    def _listen(self, descriptor: int, role: str) -> None:
        """Accept there from now on, and no more on the listener that this role had before."""
        listener = socket.socket(fileno=descriptor)
        self._detach(role)
        if len(self._accepting) >= ROLES_MAX:
            listener.close()
            raise ValueError(f"more than {ROLES_MAX} roles")
        listener.setblocking(False)
        self._accepting[role] = asyncio.get_running_loop().create_task(self._accept(listener, role))
        self._tell({"event": "listening", "role": role})

    def _detach(self, role: str) -> None:
        """Let a role's listener go: one that is held keeps its jail's network namespace alive."""
        before = self._accepting.pop(role, None)
        if before is not None:
            before.cancel()

    def _close(self) -> None:
        self.state.closed = True
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_result((CLOSED, True))
        self._answers.clear()
        self._tell({"event": "closed", "calls": self.state.calls, "refused": self.state.refused})

    def _tell(self, body: dict[str, Any]) -> None:
        try:
            channel.send(self._control, body)
        except OSError:
            # A supervisor that takes nothing is dead or stuck: without it nothing may go on.
            self._inbox.end()

    # -- the agent's side

    async def _accept(self, listener: socket.socket, role: str) -> None:
        loop = asyncio.get_running_loop()
        assert self._runner is not None
        server = self._runner.server
        assert server is not None
        with listener:
            while True:
                try:
                    connection, _ = await loop.sock_accept(listener)
                except OSError as fault:
                    if fault.errno in PASSING:
                        await asyncio.sleep(1)
                        continue
                    self._tell({"event": "fault", "why": f"accept for {role}: {fault.strerror}"})
                    return
                self._open = {transport for transport in self._open if not transport.is_closing()}
                if len(self._open) >= CONNECTIONS_MAX:
                    connection.close()
                    continue
                transport, _ = await loop.connect_accepted_socket(server, connection)
                self._open.add(transport)
                loop.call_later(SILENT_SECONDS_MAX, self._drop_silent, transport)

    def _drop_silent(self, transport: asyncio.Transport) -> None:
        self._heard = {one for one in self._heard if not one.is_closing()}
        if transport not in self._heard:
            transport.abort()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.transport is not None:
            self._heard.add(request.transport)
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        right = f"Bearer {self.state.token}".encode()
        if not self.state.token or not hmac.compare_digest(given, right):
            return self._refuse("", "wrong token", 401)
        if "Origin" in request.headers:
            return self._refuse("", "a browser's request", 403)
        if self.state.closed:
            return self._refuse("", CLOSED, 403)
        try:
            async with asyncio.timeout(BODY_SECONDS_MAX):
                await request.read()
        except TimeoutError:
            return self._refuse("", "a body that does not end", 408)
        try:
            response: web.StreamResponse = await handler(request)
        except web.HTTPException:
            raise
        except Exception as fault:
            return self._refuse("", f"a fault of the broker: {type(fault).__name__}: {fault}", 500)
        return response

    async def _mcp(self, request: web.Request) -> web.Response:
        outcome = mcp.receive(await request.read(), self.state.tools)
        match outcome:
            case mcp.Answer(None):
                return web.Response(status=202)
            case mcp.Answer(body):
                return web.json_response(body)
            case mcp.RefusedCall(body, tool, why):
                self._count_refusal(tool, why)
                return web.json_response(body)
            case mcp.ToolCall(number, tool, arguments):
                text, is_error = await self._call(tool, arguments)
                return web.json_response(mcp.called(number, text, is_error=is_error))

    async def _plain(self, request: web.Request) -> web.Response:
        """The same call without the protocol: POST /tools/NAME with the arguments as the body."""
        name = request.match_info["name"]
        try:
            arguments = checked(self.state.tools, name, json.loads(await request.read() or b"{}"))
        except (Refused, ValueError, RecursionError) as refusal:
            return self._refuse(name, str(refusal), 400)
        text, is_error = await self._call(name, arguments)
        return web.json_response({"text": text, "is_error": is_error})

    async def _call(self, tool: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        state = self.state
        if state.waiting >= WAITING_MAX:
            self._count_refusal(tool, "too many calls wait")
            return f"{WAITING_MAX} calls wait already; this one was not made", True
        state.waiting += 1
        try:
            async with self._turn:
                if state.closed:
                    self._count_refusal(tool, CLOSED)
                    return CLOSED, True
                return await self._forward(tool, arguments)
        finally:
            state.waiting -= 1

    async def _forward(self, tool: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        number = next(self._numbers)
        answer: asyncio.Future[tuple[str, bool]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        self.state.calls += 1
        self._tell({"event": "call", "id": number, "tool": tool, "arguments": arguments})
        try:
            async with asyncio.timeout(CALL_SECONDS_MAX):
                return await answer
        except TimeoutError:
            return f"{tool} did not finish within {CALL_SECONDS_MAX} s", True
        finally:
            self._answers.pop(number, None)

    def _refuse(self, tool: str, why: str, status: int) -> web.Response:
        self._count_refusal(tool, why)
        return web.json_response({"error": why}, status=status)

    def _count_refusal(self, tool: str, why: str) -> None:
        self.state.refused += 1
        if self.state.refused <= REFUSALS_TOLD_MAX:
            self._tell({"event": "refused", "tool": tool[:80], "why": why[:400]})


def serve(control: socket.socket, begun: dict[str, str]) -> int:
    """Run the broker on its control channel; 0 when the supervisor ended it. `begun` is what `seal.begin` found."""
    # What an agent sends wrong is its own business and must not fill a log; faults go over the channel.
    logging.disable(logging.CRITICAL)
    for name in ("ascii", "latin-1", "utf-8", "idna"):
        "".encode(name)  # codecs load from files at first use, and there are none after the seal

    async def main() -> None:
        await Broker(control).run(begun | seal(RIGHTS))

    asyncio.run(main())
    return 0
