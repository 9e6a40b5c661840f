"""Slow-down before stop: at least so long between the starts of two model requests of a run, whoever makes them.

Requests wait in the order they came; a line that is too long is answered at once. Single-threaded (the event loop's).
Knows nothing of HTTP or money.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from inbounds.gateway.refusal import Refusal

INTERVAL_MS_MAX = 600_000  # ten minutes: beyond that it is no pace but a pause
WAITING_MAX = 16  # requests in line, each with its body in memory; agents run a handful of subagents
WAIT_MS_MAX = 240_000  # the strictest client of an agent, node's fetch, gives up 300 s after asking


@dataclass(slots=True)
class Pace:
    """`interval_ms` 0 is off. Whoever holds `turn` is the only one to start a request meanwhile."""

    interval_ms: int = 0
    waiting: int = 0
    _began: float = -math.inf
    _line: asyncio.Lock = field(default_factory=asyncio.Lock)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def set(self, interval_ms: int) -> None:
        """From now on at least so long between two starts, for those in line, too."""
        self.interval_ms = interval_ms
        self.wake()

    def wake(self) -> None:
        """Have those in line look again: the interval changed, or nothing is admitted any more."""
        self._changed.set()
        self._changed.clear()

    def begun(self) -> None:
        """A model request starts now."""
        self._began = time.monotonic()

    @asynccontextmanager
    async def turn(self, refusal: Callable[[], Refusal | None]) -> AsyncIterator[Refusal | None]:
        """Wait in line; gives what refuses this request, or None where it may start inside the block."""
        if not self.interval_ms:
            yield None
            return
        if self.waiting >= WAITING_MAX or self._ahead_ms() > WAIT_MS_MAX:
            yield self.too_many()
            return
        self.waiting += 1
        try:
            async with self._line:
                yield await self._wait(refusal)
        finally:
            self.waiting -= 1

    def too_many(self) -> Refusal:
        """The answer to a request that can't wait here."""
        return Refusal(
            429,
            "paced",
            f"this run is slowed down to one model request in {self.interval_ms / 1000:g} s, and others wait already.",
            retry_after_s=max(1, math.ceil(min(self._ahead_ms(), INTERVAL_MS_MAX) / 1000)),
        )

    def _ahead_ms(self) -> float:
        """How long one that comes now would wait."""
        return max(0.0, self._left()) * 1000 + self.waiting * self.interval_ms

    def _left(self) -> float:
        """Seconds until the next start is due."""
        return self._began + self.interval_ms / 1000 - time.monotonic()

    async def _wait(self, refusal: Callable[[], Refusal | None]) -> Refusal | None:
        while (refused := refusal()) is None and (left := self._left()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return refused
