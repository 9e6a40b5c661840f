"""The run loop: take an event, ask the kernel, write the record, carry the effects out; nothing else.

It knows neither jails nor gateways: a World carries effects out and posts what happens. The record is appended and
synced before its effects begin (write-ahead).
"""

import queue
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from inbounds.contracts.errors import InboundsError
from inbounds.kernel.decide import decide
from inbounds.kernel.effects import Effect
from inbounds.kernel.events import Event, Failed, Tick, parse
from inbounds.kernel.state import Phase, State

TICK_S = 0.25  # how late a wall-clock stop may be
QUEUE_MAX = 10_000  # events waiting; producers block beyond, so that a flood cannot eat memory

Post = Callable[[str, Mapping[str, Any]], None]


class Journal(Protocol):
    """The one writer of a run's evidence."""

    def append(self, kind: str, data: Mapping[str, Any], at_ms: int, *, sync: bool = True) -> object:
        """Append one record, on disk before this returns when `sync`."""


class World(Protocol):
    """Everything outside: carries an effect out at once or starts it, and posts events."""

    def perform(self, effect: Effect) -> None:
        """Carry one effect out; raise InboundsError if it cannot be."""


class Loop:
    """One run's events in order; `post` is safe from any thread."""

    def __init__(self, journal: Journal, now_ms: Callable[[], int], state: State | None = None) -> None:
        """`now_ms` gives Unix milliseconds; `state` is what a replayed journal says (recovery)."""
        self.state = state or State()
        self._journal = journal
        self._now_ms = now_ms
        self._events: queue.Queue[tuple[str, Mapping[str, Any]]] = queue.Queue(QUEUE_MAX)
        self._world: World | None = None

    def post(self, kind: str, data: Mapping[str, Any]) -> None:
        """Hand an event in; it is journalled and decided in the loop's own thread."""
        self._events.put((kind, data))

    def record(self, kind: str, data: Mapping[str, Any]) -> None:
        """Journal and decide now; only from within `perform` in the loop's own thread."""
        self._take(kind, data)

    def run(self, world: World) -> State:
        """Until the run is finished; returns its last state."""
        self._world = world
        while self.state.phase is not Phase.FINISHED:
            try:
                kind, data = self._events.get(timeout=TICK_S)
            except queue.Empty:
                self._tick()
            else:
                self._take(kind, data)
                self._tick()
        return self.state

    def _tick(self) -> None:
        at_ms = self._now_ms()
        _, effects = decide(self.state, Tick(), at_ms)
        if effects:
            self._take(Tick.KIND, {}, at_ms)

    def _take(self, kind: str, data: Mapping[str, Any], at_ms: int | None = None) -> None:
        at = self._now_ms() if at_ms is None else at_ms
        event = parse(kind, data)
        effects: tuple[Effect, ...] = ()
        if event is not None:
            self.state, effects = decide(self.state, event, at)
        self._journal.append(kind, data, at, sync=bool(effects) or event is not None)
        self._perform(effects, event)

    def _perform(self, effects: tuple[Effect, ...], cause: Event | None) -> None:
        assert self._world is not None
        for effect in effects:
            try:
                self._world.perform(effect)
            except InboundsError as fault:
                if isinstance(cause, Failed) or self.state.phase is Phase.STOPPING:
                    self._journal.append(
                        "effect.failed", {"effect": type(effect).__name__, "detail": fault.one_line()}, self._now_ms()
                    )
                else:
                    part = "preflight" if self.state.phase is Phase.PREFLIGHT else "host"
                    self._take(Failed.KIND, {"part": part, "detail": fault.one_line()})
