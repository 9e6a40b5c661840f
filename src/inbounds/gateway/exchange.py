"""One admitted request from its reservation to its settlement: forward, watch the reply pass, charge the truth.

Whatever happens on either side, the reservation ends exactly once: settled from the provider's usage, released where
nothing can have been billed, or unknown, which stays charged at the bound (G9). Knows nothing of routes or tokens.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from inbounds.gateway.allowed import REPLY_HEADERS
from inbounds.gateway.clerk import Clerk
from inbounds.gateway.config import Format, Model, Upstream
from inbounds.gateway.forward import Forwarder
from inbounds.gateway.lease import Lease
from inbounds.gateway.ledger import Account, Grant, Totals
from inbounds.gateway.prices import Prices
from inbounds.gateway.refusal import Refusal
from inbounds.gateway.replies import (
    BrokenReplyError,
    EventSplitter,
    Reading,
    event_data,
    is_usage_only,
    read_reply,
    stream_meter,
)
from inbounds.gateway.requests import ModelRequest
from inbounds.gateway.usage import UnreadableUsageError, Usage

REPLY_BYTES_MAX = 64 << 20  # ten times what the largest output limit can fill
ERROR_BYTES_MAX = 1 << 20
OK_CLASS, REDIRECT_CLASS, REFUSED_CLASS = 2, 3, 4  # the first digit of a status
AUTH_STATUSES = frozenset({401, 403})
DRAIN_SECONDS = 120  # after the agent left, for the provider to say what it bills
CLIENT_WRITE_SECONDS = 60  # an agent that reads nothing for so long has left
UNBILLED_SERVER_ERRORS = frozenset({500, 503, 529})  # the provider's own "nothing was generated"; 502 and 504 are not


@dataclass(slots=True)
class Desk:
    """What every exchange works with."""

    clerk: Clerk
    account: Account
    forwarder: Forwarder
    lease: Lease
    emit: Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class Exchange:
    """The life of one reservation. `run` answers the agent; the charge is durable before the agent sees the end."""

    desk: Desk
    request: ModelRequest
    model: Model
    upstream: Upstream
    prices: Prices
    grant: Grant
    role: str
    started: float = field(default_factory=time.monotonic)
    status: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    _ended: bool = False
    _calls: int = 0
    _hashes: list[str] = field(default_factory=list)

    async def run(self, http: web.Request, target: str) -> web.StreamResponse:
        """Forward and answer; never leaves the reservation open."""
        # the way to cut it is the forwarding task's cancel at first, the reply's close once there is one
        sending = asyncio.ensure_future(self._send(http, target))
        number = self.desk.lease.enter(sending.cancel)
        try:
            reply = await self._await_reply(sending)
            if isinstance(reply, Refusal):
                return self.refuse(reply)
            self.desk.lease.replace_abort(number, reply.close)
            if self.desk.lease.closed:  # it closed between the reply's headers and this line
                reply.close()
            try:
                return await self._pass_on(http, reply)
            finally:
                reply.close() if not reply.content.at_eof() else reply.release()
        finally:
            sending.cancel()
            if not self._ended:
                await self._doubt("the exchange was cut before the reply was read")
            self.desk.lease.leave(number)

    async def _send(self, http: web.Request, target: str) -> aiohttp.ClientResponse:
        body = self.request.upstream_body(self.upstream, self.model.upstream_model, self.grant.output_tokens)
        self.bytes_out = len(body)
        return await self.desk.forwarder.post(self.upstream, self.request.wire, target, body, http.headers)

    async def _await_reply(self, sending: "asyncio.Future[aiohttp.ClientResponse]") -> aiohttp.ClientResponse | Refusal:
        """The reply's headers, or what to say instead. Only a connection that never stood gives the money back."""
        try:
            return await sending
        except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError, aiohttp.InvalidURL) as error:
            await self._release(f"no connection to {self.upstream.host}: {type(error).__name__}")
            return Refusal(502, "upstream_unreachable", f"{self.upstream.name} can't be reached.", retry_after_s=5)
        except (aiohttp.ClientError, TimeoutError) as error:
            await self._doubt(f"the connection broke before the reply: {type(error).__name__}")
            return Refusal(502, "upstream_broke", f"{self.upstream.name} broke off before its reply.", retry_after_s=5)
        except asyncio.CancelledError:
            if not self.desk.lease.closed or not sending.cancelled():
                raise
            await self._doubt("the lease was closed before the reply")
            return self.desk.lease.refusal() or self._broken()

    async def _pass_on(self, http: web.Request, reply: aiohttp.ClientResponse) -> web.StreamResponse:
        self.status = reply.status
        if reply.headers.get("Content-Encoding", "identity").lower() != "identity":
            await self._doubt("the reply is compressed and can't be metered")
            return self.refuse(Refusal(502, "upstream_broke", "the provider's reply can't be metered."))
        if reply.status // 100 != OK_CLASS:
            return await self._error(reply)
        if "text/event-stream" in reply.headers.get("Content-Type", ""):
            return await self._stream(http, reply)
        return await self._whole(reply)

    async def _error(self, reply: aiohttp.ClientResponse) -> web.StreamResponse:
        """An error is not billed, except where something in between speaks for a provider that may have worked."""
        try:
            body = await read_limited(reply, ERROR_BYTES_MAX)
        except (aiohttp.ClientError, TimeoutError, BrokenReplyError):
            body = b""
        self.bytes_in = len(body)
        if reply.status // 100 in {REDIRECT_CLASS, REFUSED_CLASS} or reply.status in UNBILLED_SERVER_ERRORS:
            await self._release(f"the provider answered {reply.status}")
        else:
            await self._doubt(f"the provider answered {reply.status}")
        if reply.status in AUTH_STATUSES or reply.status // 100 == REDIRECT_CLASS:
            why = f"{self.upstream.name} answered {reply.status} to this gateway; only the operator can mend that."
            return self.refuse(Refusal(403, "upstream_auth", why))
        if self.upstream.key:  # some providers repeat the key they refuse
            body = body.replace(self.upstream.key.encode(), b"[key]")
        return web.Response(status=reply.status, body=body, headers=reply_headers(reply))

    async def _whole(self, reply: aiohttp.ClientResponse) -> web.StreamResponse:
        try:
            body = await read_limited(reply, REPLY_BYTES_MAX)
            self.bytes_in = len(body)
            parsed = msgspec.json.decode(body)
        except (aiohttp.ClientError, TimeoutError, BrokenReplyError) as error:
            await self._doubt(f"the reply broke off: {type(error).__name__}")
            return self.refuse(self.desk.lease.refusal() or self._broken())
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            await self._doubt("the reply is not JSON")
            return self.refuse(self._broken())
        reading = read_reply(self.request.wire, parsed if isinstance(parsed, dict) else {})
        withheld = not self.desk.lease.fits_tool_calls(reading.tool_calls)
        self.desk.lease.count_tool_calls(reading.tool_calls)
        self._calls, self._hashes = reading.tool_calls, reading.calls.hashes
        await self._charge(reading)
        if withheld:
            return self.refuse(self.desk.lease.over_tool_calls())
        return web.Response(status=reply.status, body=body, headers=reply_headers(reply))

    async def _stream(self, http: web.Request, reply: aiohttp.ClientResponse) -> web.StreamResponse:
        """Pass events on as they complete; the meter sees each before the agent does."""
        answer = web.StreamResponse(status=reply.status, headers=reply_headers(reply))
        reader = _StreamReader(self, answer)
        try:
            async with asyncio.timeout(None) as deadline:
                reader.client_there = await _says(answer.prepare(http))
                async for chunk in reply.content.iter_any():
                    self.bytes_in += len(chunk)
                    there = reader.client_there
                    await reader.take(chunk)
                    if there and not reader.client_there:
                        deadline.reschedule(asyncio.get_running_loop().time() + DRAIN_SECONDS)
                await reader.finish()
        except (aiohttp.ClientError, TimeoutError, BrokenReplyError, UnreadableUsageError) as error:
            reader.reading.complaint = f"{type(error).__name__}: the stream could not be read to its end"
            reader.reading.usage = None  # whatever was seen so far may be partial
        self._hashes = reader.reading.calls.hashes
        await self._charge(reader.reading)
        if reader.client_there:
            if reader.reading.usage is None:
                refusal = self.desk.lease.refusal() or self._broken()
                await reader.say(error_event(self.request.wire, refusal))
            await _says(answer.write_eof())
        return answer

    def _broken(self) -> Refusal:
        return Refusal(502, "upstream_broke", f"{self.upstream.name} gave no reply that can be read.")

    def refuse(self, refusal: Refusal) -> web.Response:
        """Answer in the agent's own format, and say so to the supervisor."""
        return answer_refusal(self.desk.lease, refusal, self.request.wire, self.request.model)

    async def _charge(self, reading: Reading) -> None:
        """Settle from a final, readable usage; otherwise the bound stands."""
        if reading.usage is None:
            await self._doubt(reading.complaint or "the provider reported no usage")
            return
        usage, cost, calls = reading.usage, self.prices.cost(reading.usage), self._calls
        await self._end(
            "settled",
            lambda now: self.desk.account.settle(self.grant.reservation, usage, cost, calls, now),
            usage,
            cost,
        )
        if cost > self.grant.bound_micro_usd or usage.total > self.grant.bound_tokens:
            self.desk.emit(
                {
                    "event": "overshoot",
                    "request": self.grant.reservation,
                    "bound_micro_usd": self.grant.bound_micro_usd,
                    "cost_micro_usd": cost,
                }
            )
            self.desk.lease.close("the provider billed more than the request allowed")

    async def _doubt(self, why: str) -> None:
        calls = self._calls
        await self._end(
            "unknown",
            lambda now: self.desk.account.doubt(self.grant.reservation, why, calls, now),
            Usage(),
            self.grant.bound_micro_usd,
            why,
        )

    async def _release(self, why: str) -> None:
        await self._end(
            "released", lambda now: self.desk.account.release(self.grant.reservation, why, now), Usage(), 0, why
        )

    async def _end(self, state: str, write: Callable[[int], bool], usage: Usage, cost: int, why: str = "") -> None:
        """Write the end, then tell the supervisor; where the ledger fails it stays reserved, which is spent."""
        if self._ended:
            return
        self._ended = True
        now = int(time.time() * 1000)

        def work() -> Totals:
            write(now)
            return self.desk.account.totals()

        totals = await self.desk.clerk.do(work)
        event = {
            "event": "usage",
            "request": self.grant.reservation,
            "role": self.role,
            "format": self.request.wire.value,
            "model": self.model.name,
            "status": self.status,
            "state": state,
            "why": why,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cache_read_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "cost_micro_usd": cost,
            "spent_micro_usd": totals.spent_micro_usd,
            "reserved_micro_usd": totals.reserved_micro_usd,
            "tool_calls": self._calls,
            "tool_hashes": self._hashes,
            "tool_hashes_more": max(0, self._calls - len(self._hashes)),  # too many, too long, or never whole
            "host": self.upstream.host,
            "bytes_out": self.bytes_out,
            "bytes_in": self.bytes_in,
            "ms": int((time.monotonic() - self.started) * 1000),
        }
        self.desk.emit(event)


class _StreamReader:
    """Between the upstream's chunks and the agent: cuts events, meters them, forwards them."""

    def __init__(self, exchange: Exchange, answer: web.StreamResponse) -> None:
        self.exchange = exchange
        self.answer = answer
        self.client_there = True
        self._splitter = EventSplitter()
        self._meter = stream_meter(exchange.request.wire)

    @property
    def reading(self) -> Reading:
        return self._meter.reading

    async def take(self, chunk: bytes) -> None:
        if self.exchange.bytes_in > REPLY_BYTES_MAX:
            raise BrokenReplyError(f"a reply of more than {REPLY_BYTES_MAX} bytes")
        passed = [event for event in self._splitter.feed(chunk) if self._sees(event)]
        if passed:
            await self.say(b"".join(passed))

    async def finish(self) -> None:
        rest = self._splitter.rest()
        if rest and self._sees(rest):
            await self.say(rest)

    def _sees(self, event: bytes) -> bool:
        """Meter one event; False where the agent is not to get it. Past the tool-call cap nothing goes on."""
        data = event_data(event)
        if data is None:
            return True
        before = self._meter.reading.tool_calls
        self._meter.feed(data)
        more = self._meter.reading.tool_calls - before
        if more:
            self.exchange._calls += more  # noqa: SLF001 - the exchange's own other half
            over = not self.exchange.desk.lease.fits_tool_calls(more)
            self.exchange.desk.lease.count_tool_calls(more)
            if over:
                raise BrokenReplyError("the cap on tool calls is reached")
        request = self.exchange.request
        return not (request.wire is Format.CHAT and not request.usage_asked and is_usage_only(data))

    async def say(self, data: bytes) -> None:
        if self.client_there:
            self.client_there = await _says(self.answer.write(data))


async def _says(writing: Any) -> bool:
    """Whether the agent took it; one that is gone or reads nothing is no reason to stop metering."""
    try:
        async with asyncio.timeout(CLIENT_WRITE_SECONDS):
            await writing
    except (ConnectionError, TimeoutError):
        return False
    return True


async def read_limited(reply: aiohttp.ClientResponse, limit: int) -> bytes:
    """A reply's whole body; BrokenReplyError past `limit` bytes."""
    body = bytearray()
    async for chunk in reply.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise BrokenReplyError(f"a reply of more than {limit} bytes")
    return bytes(body)


def reply_headers(reply: aiohttp.ClientResponse) -> dict[str, str]:
    """The provider's headers that the agent sees."""
    return {name: value for name, value in reply.headers.items() if name.lower() in REPLY_HEADERS}


def error_event(wire: Format, refusal: Refusal) -> bytes:
    """A refusal as the last event of a stream that has begun."""
    head = b"event: error\n" if wire is not Format.CHAT else b""
    return head + b"data: " + refusal.body(wire) + b"\n\n"


def answer_refusal(lease: Lease, refusal: Refusal, wire: Format | None, model: str) -> web.Response:
    """The HTTP answer for a refusal; the supervisor hears of it first."""
    lease.tell_refused(refusal, model)
    return web.Response(status=refusal.status, body=refusal.body(wire), headers=refusal.headers())
