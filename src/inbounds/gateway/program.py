"""The gateway's process: configured over its control channel, sealed, then serving until told to stop or orphaned.

Order matters: open what is needed, seal, start threads, accept. Knows nothing of the path of a request.
"""

import asyncio
import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, tzinfo
from typing import Any, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from aiohttp import web

from inbounds.contracts.errors import EXIT_HOST, InboundsError, OperatorError
from inbounds.contracts.units import INTEGER_MAX
from inbounds.gateway.clerk import Clerk, LedgerFailedError
from inbounds.gateway.config import GatewayConfig
from inbounds.gateway.emitter import Emitter
from inbounds.gateway.exchange import Desk
from inbounds.gateway.forward import Forwarder, ports
from inbounds.gateway.lease import Lease
from inbounds.gateway.ledger import AMENDABLE, Account, Anchor, RunAccount, ScopeCap, Totals
from inbounds.gateway.pace import INTERVAL_MS_MAX
from inbounds.gateway.prices import PriceBook
from inbounds.gateway.rights import rights
from inbounds.gateway.schema import open_ledger, transaction
from inbounds.gateway.server import HEADER_BYTES_MAX, HEADERS_MAX, Gateway
from inbounds.program import channel, entry
from inbounds.program.inbox import Inbox
from inbounds.program.seal import seal

KEYS_BYTES_MAX = 256 << 10  # keys of every provider that an operator may have
CONNECTIONS_MAX = 128  # of one jail: twice the requests that may be under way at once
LISTENERS_MAX = 64  # jails alive at once in one run


def zone_of(name: str) -> tzinfo:
    """The organisation's time zone; UTC needs no database."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise OperatorError(f"time zone {name!r}", expected="an IANA name such as Europe/Madrid") from None


def account_of(config: GatewayConfig) -> RunAccount:
    """Whose ceilings a request of this run counts toward; a run counts in full for each of its requirements."""
    caps = config.caps
    scopes = [
        ScopeCap("run", config.run_id, False, caps.run_micro_usd, caps.run_tokens),
        ScopeCap("thread", config.thread, True, caps.thread_month_micro_usd, caps.thread_month_tokens),
        ScopeCap("organisation", config.organisation, True, caps.month_micro_usd, caps.month_tokens),
        *(ScopeCap("requirement", name, False, caps.requirement_micro_usd, None) for name in config.requirements),
    ]
    return RunAccount(
        config.run_id, config.thread, config.requirements, config.organisation, config.zone, tuple(scopes)
    )


def _anchor(head: dict[str, Any]) -> Anchor:
    """A journal's head; checked before it is queued, as those who share a commit would fail with it."""
    kinds = {"seq": int, "hash": str, "size": int, "root": str, "note": str, "at_ms": int}
    if head.keys() != kinds.keys() or any(type(head[name]) is not kind for name, kind in kinds.items()):
        raise OperatorError("no journal head", expected=", ".join(kinds), where="gateway anchors")
    if not all(0 <= head[name] <= INTEGER_MAX for name in ("seq", "size", "at_ms")):
        raise OperatorError("a journal head with impossible numbers", where="gateway anchors")
    return Anchor(**head)


class _Closed(asyncio.Protocol):
    """What a connection gets that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Drop it."""
        cast("asyncio.Transport", transport).abort()  # uvloop's transports are so in all but inheritance


def _bounded(runner: web.AppRunner) -> Callable[[], asyncio.BaseProtocol]:
    """Accept for `runner` up to CONNECTIONS_MAX at once: each costs memory and a descriptor."""
    server = runner.server
    assert server is not None
    return lambda: server() if len(server.connections) < CONNECTIONS_MAX else _Closed()


@dataclass(slots=True)
class Program:
    """The control loop's state: the gateway, its listeners by role, and whether it is to end."""

    gateway: Gateway
    emitter: Emitter
    runners: dict[str, web.AppRunner] = field(default_factory=dict)
    listening: dict[str, asyncio.Server] = field(default_factory=dict)

    async def attach(self, role: str, sock: socket.socket) -> None:
        """Accept on a listener of a jail. The role's earlier one is closed: its jail is gone, its namespace may go."""
        await self.detach(role)
        if len(self.runners) >= LISTENERS_MAX:
            sock.close()
            self.emitter.emit({"event": "attach_refused", "role": role, "why": f"{LISTENERS_MAX} listeners are open"})
            return
        runner = web.AppRunner(
            self.gateway.app(role),
            access_log=None,
            handle_signals=False,
            handler_cancellation=False,  # a client that leaves must not stop the metering
            auto_decompress=False,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            max_headers=HEADERS_MAX,
            lingering_time=2,
            shutdown_timeout=1,
        )
        await runner.setup()
        sock.setblocking(False)
        self.listening[role] = await asyncio.get_running_loop().create_server(_bounded(runner), sock=sock)
        self.runners[role] = runner
        self.emitter.emit({"event": "attached", "role": role})

    async def detach(self, role: str) -> None:
        """Stop accepting on a role's listener."""
        listening, runner = self.listening.pop(role, None), self.runners.pop(role, None)
        if listening is not None:
            listening.close()
        if runner is not None:
            await runner.cleanup()

    async def close_lease(self, why: str) -> None:
        """Close the lease and say so once everything in flight is charged."""
        lease = self.gateway.desk.lease
        lease.close(why)
        drained = await lease.drained()
        self.emitter.emit({"event": "lease_drained", "why": lease.closed, "ok": drained})

    async def amend(self, number: int, ceilings: dict[str, Any]) -> None:
        """Other ceilings for the running lease, kept before they bind; what is spent or reserved stays so."""
        desk = self.gateway.desk
        now = int(time.time() * 1000)
        try:
            if (
                not ceilings
                or not set(ceilings) <= set(AMENDABLE)
                or not all(type(v) is int for v in ceilings.values())
            ):
                raise OperatorError("nothing that can be amended", expected=f"integers for {', '.join(AMENDABLE)}")
            caps = replace(desk.lease.caps, **ceilings)

            def work() -> Totals:
                desk.account.amend(ceilings, now)
                desk.account.cap_run(caps.run_micro_usd, caps.run_tokens)
                return desk.account.totals()

            totals = await desk.clerk.do(work)
        except (InboundsError, LedgerFailedError) as error:
            desk.account.cap_run(desk.lease.caps.run_micro_usd, desk.lease.caps.run_tokens)
            self.emitter.emit({"event": "amended", "id": number, "ok": False, "why": str(error)})
            return
        desk.lease.amend(caps)
        facts = {name: getattr(caps, name) for name in AMENDABLE}
        spent = {"spent_micro_usd": totals.spent_micro_usd, "spent_tokens": totals.spent_tokens}
        self.emitter.emit({"event": "amended", "id": number, "ok": True, "caps": facts, **spent})

    async def anchor(self, number: int, head: dict[str, Any]) -> None:
        """Keep a journal's head in the ledger, where the run's own files can't reach it."""
        desk = self.gateway.desk
        try:
            anchor = _anchor(head)
            await desk.clerk.do(lambda: desk.account.anchor(anchor))
        except (OperatorError, LedgerFailedError) as error:
            self.emitter.emit({"event": "anchored", "id": number, "ok": False, "why": str(error)})
            return
        self.emitter.emit({"event": "anchored", "id": number, "ok": True})

    def pace(self, number: int, interval_ms: int) -> None:
        """Slow down (0: no more)."""
        self.gateway.desk.lease.pace.set(max(0, min(interval_ms, INTERVAL_MS_MAX)))
        self.emitter.emit({"event": "paced", "id": number})

    def pause(self, number: int, why: str) -> None:
        """Admit nothing for now ("" goes on)."""
        self.gateway.desk.lease.pause(why)
        self.emitter.emit({"event": "paused", "id": number})

    async def status(self, number: int) -> None:
        """Report the run's figures."""
        desk = self.gateway.desk
        totals = await desk.clerk.do(desk.account.totals)
        self.emitter.emit(
            {
                "event": "status",
                "id": number,
                "settled_micro_usd": totals.settled_micro_usd,
                "reserved_micro_usd": totals.reserved_micro_usd,
                "unknown_micro_usd": totals.unknown_micro_usd,
                "spent_micro_usd": totals.spent_micro_usd,
                "cap_micro_usd": totals.cap_micro_usd,
                "spent_tokens": totals.spent_tokens,
                "requests": totals.requests,
                "tool_calls": desk.lease.tool_calls,
                "turns": desk.lease.turns,
                "inflight": desk.lease.inflight,
                "lease_closed": desk.lease.closed,
                "paused": desk.lease.paused,
                "interval_ms": desk.lease.pace.interval_ms,
                "waiting": desk.lease.pace.waiting,
                "roles": sorted(self.runners),
            }
        )

    async def obey(self, message: channel.Message) -> bool:
        """Carry out one control message; False where it says to stop."""
        sockets = [socket.socket(fileno=descriptor) for descriptor in message.descriptors]
        match message.body:
            case {"op": "attach", "role": str(role)} if len(sockets) == 1:
                await self.attach(role, sockets.pop())
            case {"op": "detach", "role": str(role)}:
                await self.detach(role)
            case {"op": "iteration", "n": int(number)}:
                self.gateway.desk.lease.begin(number)
            case {"op": "close_lease", "why": str(why)}:
                await self.close_lease(why)
            case {"op": "pace", "id": int(number), "interval_ms": int(interval_ms)}:
                self.pace(number, interval_ms)
            case {"op": "pause", "id": int(number), "why": str(why)}:
                self.pause(number, why)
            case {"op": "amend", "id": int(number), "ceilings": dict(ceilings)}:
                await self.amend(number, ceilings)
            case {"op": "anchor", "id": int(number), "head": dict(head)}:
                await self.anchor(number, head)
            case {"op": "status", "id": int(number)}:
                await self.status(number)
            case {"op": "stop"}:
                return False
            case _:
                self.emitter.emit({"event": "unknown_op", "op": str(message.body.get("op"))[:100]})
        for sock in sockets:
            sock.close()
        return True

    async def serve(self, control: socket.socket) -> None:
        """Obey until told to stop; at EOF the supervisor is dead, and so is this program."""
        async for message in Inbox(control):
            if not await self.obey(message):
                break
        await self._end()

    async def _end(self) -> None:
        lease = self.gateway.desk.lease
        lease.close("the gateway is stopping")
        await lease.drained()
        for role in list(self.runners):
            await self.detach(role)
        await self.gateway.desk.forwarder.close()
        now = int(time.time() * 1000)
        desk = self.gateway.desk
        try:
            await desk.clerk.do(lambda: desk.account.close(now, lease.closed))
        except LedgerFailedError as error:  # reserved stays spent either way; the next gateway notes it
            self.emitter.emit({"event": "ledger_failed", "detail": str(error)})


def _warm() -> None:
    """Import what would otherwise be imported behind the seal, or while a request waits."""
    import encodings.idna

    import genai_prices.data_snapshot
    import msgspec

    assert encodings.idna
    assert genai_prices.data_snapshot
    assert msgspec


async def _serve(config: GatewayConfig, control: socket.socket, emitter: Emitter, parts: "_Opened") -> None:
    parts.clerk.start()
    parts.forwarder.open()
    lease = Lease(config.caps, emitter.emit, stalled=lambda: emitter.stalled)
    account = parts.account
    doubted = await parts.clerk.do(lambda: account.open(int(time.time() * 1000)))
    lease.caps = replace(config.caps, **await parts.clerk.do(account.amended))  # an earlier gateway's run goes on
    account.cap_run(lease.caps.run_micro_usd, lease.caps.run_tokens)
    totals = await parts.clerk.do(account.totals)
    lease.tool_calls = totals.tool_calls
    lease.iteration, lease.turns = await parts.clerk.do(account.turns)
    desk = Desk(parts.clerk, account, parts.forwarder, lease, emitter.emit)
    program = Program(Gateway(config, parts.zone, parts.prices, desk), emitter)
    emitter.emit(
        {
            "event": "ready",
            "pid": os.getpid(),
            "seal": parts.sealed,
            "spent_micro_usd": totals.spent_micro_usd,
            "left_unknown": doubted,
            "tool_calls": lease.tool_calls,
            "iteration": lease.iteration,
            "turns": lease.turns,
            "caps": asdict(lease.caps),
        }
    )
    await program.serve(control)
    parts.clerk.stop()


@dataclass(slots=True)
class _Opened:
    """What had to be opened before the seal."""

    zone: tzinfo
    prices: PriceBook
    forwarder: Forwarder
    clerk: Clerk
    account: Account
    sealed: dict[str, str]


def _open(config: GatewayConfig, begun: dict[str, str]) -> _Opened:
    zone = zone_of(config.zone)
    prices = PriceBook(config)
    forwarder = Forwarder(config)
    connection = open_ledger(config.ledger)
    with transaction(connection):
        pass  # makes the log and its index exist: the seal names files, and forbids making others
    sealed = begun | seal(rights(config.ledger, config.ca_bundle, ports(config)))
    return _Opened(zone, prices, forwarder, Clerk(connection), Account(connection, account_of(config)), sealed)


def serve(control: socket.socket, begun: dict[str, str]) -> int:
    """Serve one run over the control channel; returns the exit code. `begun` is what `seal.begin` found."""
    _warm()
    received = entry.first_message(control)
    if received is None:
        return EXIT_HOST
    try:
        config = GatewayConfig.load(received.body.get("config"))
        for descriptor in received.descriptors:
            config = config.with_keys(_read_keys(descriptor))
        parts = _open(config, begun)
    except InboundsError as error:
        channel.send(control, {"event": "failed", "exit": error.exit_code, **error.facts()})
        return error.exit_code
    emitter = Emitter(control)
    emitter.start()
    try:
        _event_loop_run(_serve(config, control, emitter, parts))
    finally:
        emitter.stop()
    return 0


def _read_keys(descriptor: int) -> Any:
    """The keys' JSON from the start of a passed file, which is closed here."""
    try:
        raw = os.pread(descriptor, KEYS_BYTES_MAX + 1, 0)
        return json.loads(raw) if len(raw) <= KEYS_BYTES_MAX else None
    except (OSError, ValueError) as error:
        raise OperatorError(f"provider keys that can't be read: {type(error).__name__}", where="gateway keys") from None
    finally:
        os.close(descriptor)


def _event_loop_run(main: Any) -> None:
    try:
        import uvloop
    except ImportError:  # a platform without its wheel: the standard loop does the same, slower
        asyncio.run(main)
        return
    uvloop.run(main)
