"""A run's permission to spend: open until it is closed, with the counts that close it and the requests in flight.

Single-threaded (the event loop's). Knows nothing of HTTP or money.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from inbounds.gateway.config import Caps
from inbounds.gateway.pace import Pace
from inbounds.gateway.refusal import Refusal

INFLIGHT_MAX = 64  # requests at once; agents run a handful of subagents
DETAIL_CHARS_MAX = 300  # of what an agent sent, repeated in an event
PAUSED_RETRY_SECONDS = 30  # a person is being asked: minutes, and agents give up after a handful of tries
CLOSE_SECONDS = 10  # for those in flight to be charged after a close; they only have to write the ledger


@dataclass(slots=True)
class Lease:
    """`closed` and `paused` hold why; `tool_calls` is the run's total, `turns` this iteration's."""

    caps: Caps
    emit: Callable[[dict[str, Any]], None]
    stalled: Callable[[], bool]
    tool_calls: int = 0
    turns: int = 0
    iteration: int = 0
    closed: str = ""
    paused: str = ""
    pace: Pace = field(default_factory=Pace)
    _inflight: dict[int, Callable[[], Any]] = field(default_factory=dict)
    _next: int = 0
    _told: set[str] = field(default_factory=set)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)
    _settled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def inflight(self) -> int:
        """Requests that are being forwarded now."""
        return len(self._inflight)

    def refusal(self) -> Refusal | None:
        """Why no request is admitted now, if so; a closed lease is final for this run."""
        if self.closed:
            return Refusal(
                402,
                "lease_closed",
                f"this run was stopped ({self.closed}); no further request is accepted.",
            )
        if self.paused:
            why = f"this run is paused ({self.paused}); it may go on later."
            return Refusal(503, "paused", why, retry_after_s=PAUSED_RETRY_SECONDS)
        if self.stalled():
            return Refusal(503, "busy", "the supervisor does not keep up with what happens here.", retry_after_s=10)
        if self.caps.tool_calls is not None and self.tool_calls > self.caps.tool_calls:
            return self.over_tool_calls()
        if self.caps.turns is not None and self.turns >= self.caps.turns:
            return Refusal(
                402,
                "spent",
                f"all {self.caps.turns} model requests of this iteration are used. Stop here.",
                cap="turns",
            )
        return None

    def over_tool_calls(self) -> Refusal:
        """The answer at the tool-call cap."""
        return Refusal(
            402,
            "spent",
            f"all {self.caps.tool_calls} tool calls of this run are used. Stop here.",
            cap="tool_calls",
        )

    def begin(self, iteration: int) -> None:
        """An iteration begins: its turns start at zero, unless it is the one that an earlier gateway died in."""
        if iteration == self.iteration:
            return
        self.iteration, self.turns = iteration, 0
        self._told.discard("turns")

    def pause(self, why: str) -> None:
        """Admit nothing for now, without closing; "" goes on. What is in flight is not cut."""
        self.paused = why
        self.pace.wake()
        self.settled()

    def amend(self, caps: Caps) -> None:
        """Other ceilings from now on. A closed lease stays closed; a raised ceiling can be exhausted again."""
        self.caps = caps
        self._told.clear()
        self.settled()

    def tell_turns(self) -> None:
        """One more model request was admitted (and counted in `turns`) and starts now."""
        self.pace.begun()
        self.emit({"event": "turns", "n": self.iteration, "total": self.turns})

    def tell_refused(self, refusal: Refusal, model: str) -> None:
        """The supervisor hears of every refusal, and once of every cap that is exhausted."""
        detail = refusal.detail[:DETAIL_CHARS_MAX] or refusal.message[:DETAIL_CHARS_MAX]
        facts = {
            "reason": refusal.reason,
            "status": refusal.status,
            "model": model[:DETAIL_CHARS_MAX],
            "detail": detail,
        }
        self.emit({"event": "refused", **facts})
        if refusal.cap:
            self.tell_spent(refusal.cap, refusal.message)

    def tell_spent(self, cap: str, detail: str) -> None:
        """A cap is exhausted; said once."""
        if cap not in self._told:
            self._told.add(cap)
            self.emit({"event": "spent", "cap": cap, "detail": detail})

    def fits_tool_calls(self, more: int) -> bool:
        """Whether a reply with so many tool calls stays within the cap."""
        return self.caps.tool_calls is None or self.tool_calls + more <= self.caps.tool_calls

    def count_tool_calls(self, more: int) -> None:
        """Add a reply's tool calls to the run's; past the cap the lease closes."""
        if not more:
            return
        self.tool_calls += more
        self.emit({"event": "tool_calls", "total": self.tool_calls})
        if not self.fits_tool_calls(0):
            self.tell_spent("tool_calls", f"the model asked for {self.tool_calls} tool calls")
            self.close("the cap on tool calls is reached")

    def enter(self, abort: Callable[[], Any]) -> int:
        """Note a request in flight and how to cut it; leave() with the number that this returns."""
        self._next += 1
        self._inflight[self._next] = abort
        self._idle.clear()
        return self._next

    def replace_abort(self, number: int, abort: Callable[[], Any]) -> None:
        """The request went on to another stage: cut it differently."""
        self._inflight[number] = abort

    def leave(self, number: int) -> None:
        """The request is charged and gone; whoever waits for money may look again."""
        del self._inflight[number]
        if not self._inflight:
            self._idle.set()
        self.settled()

    def settled(self) -> None:
        """Wake those who wait for a reservation to shrink."""
        self._settled.set()
        self._settled.clear()

    async def wait_settled(self, seconds: float) -> None:
        """Wait until something was settled here, or so long (other gateways share the ledger)."""
        try:
            async with asyncio.timeout(seconds):
                await self._settled.wait()
        except TimeoutError:
            return

    def close(self, why: str) -> None:
        """Admit nothing more and cut what is in flight; closing twice keeps the first reason."""
        if self.closed:
            return
        self.closed = why or "closed"
        self.emit({"event": "lease_closed", "why": self.closed, "inflight": len(self._inflight)})
        for abort in list(self._inflight.values()):
            abort()
        self.pace.wake()
        self.settled()

    async def drained(self) -> bool:
        """Wait until everything in flight is charged; False where that took too long."""
        if not self._inflight:
            return True
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True
