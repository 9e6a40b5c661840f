"""Simulated time: true time, the wall clock that people move, and what is due when.

Knows nothing of runs. Deterministic: things due at the same moment happen in the order in which they were asked for.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass

STEPS_MAX = 20_000  # a run of the longest contract takes some 2,000; a run that goes round in circles takes them all


class Endless(BaseException):
    """More steps than any run takes. No Exception: the product must not be able to swallow it."""


@dataclass(slots=True)
class TrueTime:
    """Milliseconds that really passed, and by how much the wall clock is wrong."""

    ms: int
    wall_off_ms: int = 0
    booted_ms: int = 0
    woken_ms: int = 0

    def wall_ns(self) -> int:
        """CLOCK_REALTIME."""
        return (self.ms + self.wall_off_ms) * 1_000_000

    def boot_ns(self) -> int:
        """CLOCK_BOOTTIME: suspended time included."""
        return (self.ms - self.booted_ms) * 1_000_000


class Schedule:
    """What is due when."""

    def __init__(self, time: TrueTime) -> None:
        self.time = time
        self.steps = 0
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0

    def after(self, delay_ms: int, act: Callable[[], None]) -> None:
        """Have `act` called so much later."""
        self._order += 1
        heapq.heappush(self._due, (self.time.ms + delay_ms, self._order, act))

    def next_ms(self) -> int | None:
        """When the next thing is due."""
        return self._due[0][0] if self._due else None

    def step(self) -> None:
        """Count one, whoever takes it."""
        self.steps += 1
        if self.steps > STEPS_MAX:
            raise Endless(f"{self.steps} steps")

    def pass_to(self, until_ms: int, enough: Callable[[], bool] = lambda: False) -> None:
        """Let time pass, and what is due happen, until then or until it is enough."""
        due, time = self._due, self.time
        while not enough():
            if not due or due[0][0] > until_ms:
                time.ms = max(time.ms, until_ms)
                return
            at, _, act = heapq.heappop(due)
            time.ms = max(time.ms, at)
            self.step()
            act()

    def suspend(self, ms: int) -> None:
        """The machine sleeps: time passes and nothing happens; what was due meanwhile is late."""
        self.time.ms += ms
        self.time.woken_ms = self.time.ms
