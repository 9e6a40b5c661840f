"""The routes that a jailed agent can reach, and the admission of its requests: token, form, model, price, money.

Every route that is not named here is refused: no unmetered path exists. Knows nothing of processes or control.
"""

import asyncio
import hmac
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from functools import partial
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from inbounds.contracts.units import show_usd
from inbounds.gateway.clerk import LedgerFailedError
from inbounds.gateway.config import Format, GatewayConfig, Model
from inbounds.gateway.exchange import (
    AUTH_STATUSES,
    ERROR_BYTES_MAX,
    REDIRECT_CLASS,
    Desk,
    Exchange,
    answer_refusal,
    read_limited,
    reply_headers,
)
from inbounds.gateway.lease import INFLIGHT_MAX
from inbounds.gateway.ledger import Ask, Grant, Shortage
from inbounds.gateway.prices import PriceBook, Prices, UnknownPriceError
from inbounds.gateway.refusal import Refusal
from inbounds.gateway.replies import BrokenReplyError
from inbounds.gateway.requests import ModelRequest, parse_json, parse_request

BODY_BYTES_MAX = 32 << 20  # Anthropic's own limit for a request
BODIES_BYTES_MAX = 128 << 20  # of all requests being read or forwarded; bounds this program's memory
BODY_SECONDS = 60  # for an agent on the same machine to send its body
# Counting costs no money and no turn, so it has a limit of its own: each is a message out, and a line of the journal.
COUNTS_MAX = 1_000
HEADER_BYTES_MAX = 16 << 10
HEADERS_MAX = 100
BUSY_SECONDS = 30  # to wait for others' reservations to shrink before a tight clamp is taken
POLL_SECONDS = 0.5  # how often another gateway's settlements are looked for while waiting
OUTPUT_TOKENS_MIN = 64  # less is no reply; an agent would only ask again

ROUTES = {
    "/v1/chat/completions": Format.CHAT,
    "/v1/responses": Format.RESPONSES,
    "/v1/messages": Format.MESSAGES,
}
COUNT_TOKENS = "/v1/messages/count_tokens"


@dataclass(slots=True)
class Gateway:
    """One run's gateway: what it was configured with and the desk its exchanges share."""

    config: GatewayConfig
    zone: tzinfo
    prices: PriceBook
    desk: Desk
    bodies: int = 0
    counts: int = 0

    def app(self, role: str) -> web.Application:
        """The application behind one listener; the listener is the role's identity."""

        async def entry(http: web.Request) -> web.StreamResponse:
            return await self.handle(http, role)

        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_route("*", "/{path:.*}", entry)
        app.on_response_prepare.append(_hide_server)
        return app

    async def handle(self, http: web.Request, role: str) -> web.StreamResponse:
        """Answer one request; a fault of ours is a clean 500 and never an open door."""
        wire = _wire_of(http.path)
        if http.path == "/" and http.method in {"GET", "HEAD"}:
            return web.Response(status=404)  # how agents try whether anything listens: no event, nothing asked
        try:
            refused = self._authenticate(http)
            if refused:
                return self._refuse(refused, wire)
            if http.path == "/v1/models" and http.method in {"GET", "HEAD"}:
                return web.json_response(self._models())
            if wire is None:
                return self._refuse(
                    Refusal(404, "route", f"{http.path[:200]!r} is no route of this gateway.", detail=http.path), None
                )
            if http.method != "POST":
                return self._refuse(Refusal(405, "route", f"{http.method} is not how a model is asked."), wire)
            return await self._model_request(http, wire, role)
        except LedgerFailedError as error:
            self.desk.emit({"event": "ledger_failed", "detail": str(error)})
            self.desk.lease.close("the ledger can't be written")
            return self._refuse(Refusal(402, "ledger", "the ledger can't be written, so nothing is forwarded."), wire)

    def _refuse(self, refusal: Refusal, wire: Format | None, model: str = "") -> web.Response:
        return answer_refusal(self.desk.lease, refusal, wire, model)

    def _authenticate(self, http: web.Request) -> Refusal | None:
        """Every credential that is shown must be this run's token, and one must be (compared in constant time)."""
        bearers = http.headers.getall("Authorization", [])
        shown = [value.removeprefix("Bearer ").removeprefix("bearer ") for value in bearers]
        shown += http.headers.getall("x-api-key", [])
        right = [hmac.compare_digest(value.encode(errors="replace"), self.config.token.encode()) for value in shown]
        if not right or not all(right):
            return Refusal(401, "token", "this is not the token of this run.")
        return None

    def _models(self) -> dict[str, Any]:
        """The configured models, in a shape that OpenAI's and Anthropic's clients both read."""
        names = list(self.config.models)
        listed = [
            {
                "id": name,
                "object": "model",
                "type": "model",
                "display_name": name,
                "owned_by": "inbounds",
                "created": 0,
                "created_at": "1970-01-01T00:00:00Z",
            }
            for name in names
        ]
        ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
        return {"object": "list", "data": listed, "has_more": False, **ends}

    async def _model_request(self, http: web.Request, wire: Format, role: str) -> web.StreamResponse:
        refused = self.desk.lease.refusal()
        if refused:
            return self._refuse(refused, wire)
        if self.desk.lease.inflight >= INFLIGHT_MAX:
            return self._refuse(Refusal(503, "busy", "too many requests at once.", retry_after_s=2), wire)
        body = bytearray()
        try:
            refused = await self._read_body(http, body)
            return self._refuse(refused, wire) if refused else await self._admit(http, wire, role, bytes(body))
        finally:
            self.bodies -= len(body)

    async def _read_body(self, http: web.Request, body: bytearray) -> Refusal | None:
        """Read into `body`, counted as it arrives: a thousand bodies that never end must not fill this host."""
        if http.headers.get("Content-Encoding", "identity").lower() != "identity":
            return Refusal(415, "encoding", "compressed request bodies are not accepted.")
        too_large = Refusal(413, "too_large", f"the body is larger than {BODY_BYTES_MAX} bytes.")
        if (http.content_length or 0) > BODY_BYTES_MAX:
            return too_large
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in http.content.iter_any():
                    body += chunk
                    self.bodies += len(chunk)
                    if len(body) > BODY_BYTES_MAX:
                        return too_large
                    if self.bodies > BODIES_BYTES_MAX:
                        return Refusal(503, "busy", "too much is being sent at once.", retry_after_s=2)
        except (TimeoutError, aiohttp.ClientError, web.HTTPException, ConnectionError) as error:
            return Refusal(400, "malformed", f"the body did not arrive: {type(error).__name__}.")
        return None

    async def _admit(self, http: web.Request, wire: Format, role: str, raw: bytes) -> web.StreamResponse:
        body = parse_json(raw)
        request = body if isinstance(body, Refusal) else parse_request(wire, body)
        if isinstance(request, Refusal):
            return self._refuse(request, wire, str(body.get("model", "")) if isinstance(body, dict) else "")
        priced = self._price(request)
        if isinstance(priced, Refusal):
            return self._refuse(priced, wire, request.model)
        model, prices = priced
        query = "?beta=true" if wire is Format.MESSAGES and http.query.get("beta") == "true" else ""
        if http.path == COUNT_TOKENS:
            return await self._count_tokens(http, request, model, query)
        pace = self.desk.lease.pace
        async with pace.turn(self.desk.lease.refusal) as refused:
            if refused is None and pace.interval_ms and _left(http):
                return web.Response(status=408)  # nobody reads it, and nobody should pay for what nobody waits for
            grant = refused or await self._reserve(request, model, prices, role, paced=pace.interval_ms > 0)
        if isinstance(grant, Refusal):
            return self._refuse(grant, wire, request.model)
        exchange = Exchange(self.desk, request, model, self.config.upstreams[model.upstream], prices, grant, role)
        return await exchange.run(http, http.path + query)

    def _price(self, request: ModelRequest) -> tuple[Model, Prices] | Refusal:
        """The model and its prices now; what is not configured, or has no price, is refused."""
        model = self.config.models.get(request.model)
        if model is None:
            known = ", ".join(sorted(self.config.models)[:20])
            return Refusal(403, "unknown_model", f"model {request.model!r} is not allowed here. Allowed: {known}.")
        upstream = self.config.upstreams[model.upstream]
        if request.wire not in upstream.formats:
            return Refusal(403, "format", f"{upstream.name} is not configured for {request.wire.value}.")
        try:
            return model, self.prices.price(model.name, datetime.now(UTC))
        except UnknownPriceError as error:
            return Refusal(403, "unknown_price", f"{error}: a request that can't be priced is not forwarded.")

    async def _reserve(
        self, request: ModelRequest, model: Model, prices: Prices, role: str, *, paced: bool
    ) -> Grant | Refusal:
        """Reserve the worst case durably, waiting a while where others only hold what they will give back."""
        caps = self.desk.lease.caps
        wanted = min(request.output_wanted or model.output_tokens_max, model.output_tokens_max)
        tokens = request.input_tokens_max
        ask = Ask(
            role=role,
            format=request.wire.value,
            model=model.name,
            upstream=model.upstream,
            input_tokens=tokens,
            input_pico=prices.dearest_input(
                tokens, cache_write=request.cache_write, cache_write_1h=request.cache_write_1h
            ),
            output_pico=prices.output.dearest(tokens),
            output_min=min(wanted, OUTPUT_TOKENS_MIN),
            output_wanted=wanted,
            micro_usd_max=caps.request_micro_usd,
            tokens_max=caps.request_tokens,
            iteration=self.desk.lease.iteration,
        )
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            refused = self.desk.lease.refusal()
            if refused is None and self.desk.lease.pace.interval_ms and not paced:
                refused = self.desk.lease.pace.too_many()  # slowed down while it waited for money, not in line
            if refused:
                return refused
            attempt = ask if time.monotonic() < deadline else replace(ask, patient=False)
            month = datetime.now(self.zone).strftime("%Y-%m")
            # the turn is counted in the same step as the check above, so that no two requests share the last one
            self.desk.lease.turns += 1
            try:
                outcome = await self.desk.clerk.do(
                    partial(self.desk.account.reserve, attempt, month, int(time.time() * 1000))
                )
            except BaseException:
                self.desk.lease.turns -= 1
                raise
            if isinstance(outcome, Grant):
                return await self._granted(outcome)
            self.desk.lease.turns -= 1
            if not outcome.busy or not attempt.patient:
                return _shortage(outcome, ask)
            await self.desk.lease.wait_settled(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))

    async def _granted(self, grant: Grant) -> Grant | Refusal:
        """The lease may have closed while the ledger was written: then the money goes back and nothing leaves."""
        refused = self.desk.lease.refusal() if self.desk.lease.closed else None
        if refused:
            now = int(time.time() * 1000)
            await self.desk.clerk.do(
                lambda: self.desk.account.release(grant.reservation, "the lease closed before it was sent", now)
            )
            return refused
        self.desk.lease.tell_turns()
        return grant

    async def _count_tokens(self, http: web.Request, request: ModelRequest, model: Model, query: str) -> web.Response:
        """Anthropic counts tokens for nothing; the same checks apply, as the body leaves this machine."""
        self.counts += 1
        if self.counts > COUNTS_MAX:
            why = f"{COUNTS_MAX} requests to count tokens are what a run may make"
            return self._refuse(Refusal(403, "feature", why, detail="count_tokens"), request.wire, request.model)
        upstream = self.config.upstreams[model.upstream]
        body = msgspec.json.encode({**request.body, "model": model.upstream_model})
        started = time.monotonic()

        async def ask() -> tuple[aiohttp.ClientResponse, bytes]:
            target = COUNT_TOKENS + query
            async with await self.desk.forwarder.post(upstream, request.wire, target, body, http.headers) as reply:
                return reply, await read_limited(reply, ERROR_BYTES_MAX)

        asking = asyncio.ensure_future(ask())
        number = self.desk.lease.enter(asking.cancel)
        try:
            reply, answer = await asking
        except asyncio.CancelledError:
            refused = self.desk.lease.refusal()
            if refused is None or not asking.cancelled():
                raise
            return self._refuse(refused, request.wire, request.model)
        except (aiohttp.ClientError, TimeoutError, BrokenReplyError):
            refusal = Refusal(502, "upstream_unreachable", f"{upstream.name} can't be reached.", retry_after_s=5)
            return self._refuse(refusal, request.wire, request.model)
        finally:
            self.desk.lease.leave(number)
        self.desk.emit(
            {
                "event": "counted",
                "format": request.wire.value,
                "model": model.name,
                "status": reply.status,
                "host": upstream.host,
                "bytes_out": len(body),
                "bytes_in": len(answer),
                "ms": int((time.monotonic() - started) * 1000),
            }
        )
        if reply.status in AUTH_STATUSES or reply.status // 100 == REDIRECT_CLASS:
            return self._refuse(Refusal(403, "upstream_auth", "the provider refused this gateway."), request.wire)
        return web.Response(status=reply.status, body=answer, headers=reply_headers(reply))


def _left(http: web.Request) -> bool:
    """Whether the agent has hung up."""
    return http.transport is None or http.transport.is_closing()


def _wire_of(path: str) -> Format | None:
    return Format.MESSAGES if path == COUNT_TOKENS else ROUTES.get(path)


def _shortage(shortage: Shortage, ask: Ask) -> Refusal:
    """Say which ceiling, and what is left of it; "busy" and "spent" are not the same answer."""
    cap = shortage.cap.replace("organisation-month", "month").replace("organisation", "month")
    needs = show_usd(ask.bound(ask.output_min))
    if shortage.busy:
        return Refusal(
            503, "busy", f"other requests hold the rest of the {cap} budget; try again shortly.", retry_after_s=10
        )
    if cap == "request":
        return Refusal(413, "request_cap", f"one request may not cost ${needs}, as this one might; send less.")
    left = "" if shortage.left_micro_usd is None else f" ${show_usd(max(0, shortage.left_micro_usd))} is left,"
    return Refusal(
        402,
        "spent",
        f"the {cap} budget does not allow this request:{left} it may cost ${needs} at least. "
        "This will not change by retrying. Stop here.",
        cap=cap,
    )


async def _hide_server(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.pop("Server", None)
