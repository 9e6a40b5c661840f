"""The run loop: take an event, ask the kernel, write the record, carry the effects out; nothing else.

It knows neither jails nor gateways: a World carries effects out and posts what happens. The record is appended and
synced before its effects begin (write-ahead): without its record nothing goes forward, but a stop always goes on. An
effect's name is its event's record and its place among the effects, "17.0"; what it leads to says `by` which it came.
"""

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

from inbounds.contracts.errors import EXIT_HOST, HostError, InboundsError
from inbounds.kernel.decide import decide
from inbounds.kernel.effects import Effect, Finish
from inbounds.kernel.events import BY_KIND, Failed, Finished, Tick, read
from inbounds.kernel.state import Phase, State

TICK_S = 0.25  # how late a wall-clock stop may be
QUEUE_MAX = 10_000  # events waiting; producers block beyond, so that a flood cannot eat memory
SAID_S_MAX = 60.0  # a record that takes longer than this to reach the disk is a fault

ENDING = frozenset({Phase.STOPPING, Phase.FINISHED})

log = logging.getLogger(__name__)

Post = Callable[[str, Mapping[str, Any]], None]


class Written(threading.Event):
    """Set once a record is on disk, or once `fault` says what kept it from getting there."""

    fault = ""
    kept = False  # whether it is on disk, be it too late or not

    def answer(self, kind: str, fault: str, state: State) -> None:
        """Say so; what a stop has overtaken is not to be done either."""
        self.kept = not fault
        self.fault = fault or (_late(kind) if state.phase in ENDING else "")
        self.set()


Item: TypeAlias = tuple[str, Mapping[str, Any], Written | None]


class Recorded(Protocol):
    """What the journal made of a record."""

    @property
    def seq(self) -> int:
        """Its place."""

    @property
    def hash(self) -> str:
        """What later records are bound to."""


class Journal(Protocol):
    """The one writer of a run's evidence."""

    def append(
        self, kind: str, data: dict[str, Any], at_ms: int | None = None, *, sync: bool | None = None
    ) -> Recorded:
        """Append one record, on disk before this returns when `sync`."""


class Events(Protocol):
    """Where events wait for the loop: a queue for threads, or a simulated one; queue.Empty where there is none."""

    def put(self, item: Item) -> None:
        """Hand one in; waits where too many wait already."""

    def get(self, *, timeout: float | None = None) -> Item:
        """The next one, waiting so many seconds for it."""

    def get_nowait(self) -> Item:
        """The next one, if there is one now."""


class World(Protocol):
    """Everything outside: carries an effect out at once or starts it, and posts events."""

    def perform(self, effect: Effect, ref: str) -> None:
        """Carry one effect out; whatever it raises becomes an event. Doing it twice is as good as once."""


class Loop:
    """One run's events in order; `post` is safe from any thread."""

    def __init__(
        self,
        journal: Journal,
        now_ms: Callable[[], int],
        state: State | None = None,
        at_ms: int = 0,
        events: Events | None = None,
    ) -> None:
        """`now_ms` gives Unix milliseconds; `state` is what a replayed journal says, `at_ms` its last record's time."""
        self.state = state or State()
        self._journal = journal
        self._now_ms = now_ms
        self._events: Events = events or queue.Queue(QUEUE_MAX)
        self._world: World | None = None
        self._at_ms = at_ms
        # A clock that was set back while no supervisor lived: the run's own goes on from where it was (E1).
        self._ahead_ms = max(0, at_ms - now_ms())
        self._by = ""
        self.unwritten = ""  # why the journal does not hold the run's end

    def post(self, kind: str, data: Mapping[str, Any]) -> None:
        """Hand an event in; it is journalled and decided in the loop's own thread."""
        self._events.put((kind, data, None))

    def say(self, kind: str, data: Mapping[str, Any]) -> None:
        """Hand an event in; returns once it is on disk, before what it announces is done. Not for the loop's thread.

        HostError where it does not get there.
        """
        written = self.announce(kind, data)
        if not written.wait(SAID_S_MAX):
            raise HostError(f"{kind} was not written within {SAID_S_MAX:.0f} s")
        if written.fault:
            raise HostError(written.fault)

    def announce(self, kind: str, data: Mapping[str, Any]) -> Written:
        """Hand an event in; what is returned is set once it is on disk, or has the fault.

        Within a stop it has one at once: nothing announced is done any more, and a stop waits for nobody.
        """
        if self.state.phase in ENDING:
            written = Written()
            written.answer(kind, _late(kind), self.state)
            return written
        return self.hand_in(kind, data)

    def hand_in(self, kind: str, data: Mapping[str, Any]) -> Written:
        """As `post`, within a stop too; what is returned is set once it is on disk, or has the fault."""
        written = Written()
        self._events.put((kind, data, written))
        return written

    def record(self, kind: str, data: Mapping[str, Any]) -> None:
        """Journal and decide now; only from within `perform` in the loop's own thread.

        HostError during a stop when the record cannot be written; before that, the stop is what it leads to.
        """
        fault = self._take(kind, {**data, "by": self._by} if self._by else data)
        if fault and self.state.phase in ENDING:
            raise HostError(fault)

    def drain(self) -> None:
        """Take what has been posted until now; the stop sequence calls it once nothing posts any more."""
        while True:
            try:
                kind, data, written = self._events.get_nowait()
            except queue.Empty:
                return
            self._take(kind, data, written)

    def run(self, world: World) -> State:
        """Until the run is finished; returns its last state."""
        self._world = world
        if self.state.phase is Phase.FINISHED:  # what was posted may open another leg
            self.drain()
        while self.state.phase is not Phase.FINISHED:
            try:
                kind, data, written = self._events.get(timeout=TICK_S)
            except queue.Empty:
                self._tick()
            else:
                self._take(kind, data, written)
                self._tick()
        return self.state

    def carry_on(self, world: World, effects: tuple[Effect, ...]) -> State:
        """Recovery within a stop: carry out what is left of its sequence, and take what is posted meanwhile."""
        self._world = world
        self._perform(effects, -1)
        self.drain()
        return self.state

    def now_ms(self) -> int:
        """The run's time: never back, and decisions are made at the journal's own, so that a replay decides alike."""
        self._at_ms = max(self._at_ms, self._now_ms() + self._ahead_ms)
        return self._at_ms

    def seen_ms(self) -> int:
        """The same for other threads: it moves nothing."""
        return max(self._at_ms, self._now_ms() + self._ahead_ms)

    def _tick(self) -> None:
        _, effects = decide(self.state, Tick(), self.now_ms())
        if effects:
            self._take(Tick.KIND, {})

    def _take(self, kind: str, data: Mapping[str, Any], written: Written | None = None) -> str:
        """Write, decide, act; returns what kept the record from being written, "" if nothing did."""
        at, ref, seq = self.now_ms(), "", -1
        fault = ""
        effects: tuple[Effect, ...] = ()
        try:
            record = self._journal.append(kind, dict(data), at, sync=kind in BY_KIND)
            ref, seq = record.hash, record.seq
        except Exception as error:
            fault = f"the record {kind} cannot be written: {_line(error)}"
            log.exception("%s", fault)
        event = read(kind, data, ref)
        if isinstance(event, Failed) and kind != Failed.KIND:
            fault = fault or event.detail
        if fault and self.state.phase not in ENDING:
            event = Failed("host", fault)
        if event is not None:
            before = self.state.phase
            self.state, effects = decide(self.state, event, at)
            if before is Phase.STOPPING and self.state.phase is Phase.FINISHED:
                self.unwritten = fault
        if written:  # before the effects: a stop among them would wait for whoever waits for this
            written.answer(kind, fault, self.state)
        self._perform(effects, seq)
        return fault

    def _perform(self, effects: tuple[Effect, ...], seq: int) -> None:
        """Carry out in order; a fault becomes a stop that replaces what was left, within a stop the rest goes on."""
        assert self._world is not None
        outer, ending = self._by, self.state.phase in ENDING
        for place, effect in enumerate(effects):
            self._by = f"{seq}.{place}"
            try:
                self._world.perform(effect, self._by)
            except Exception as error:
                name = type(effect).__name__
                log.warning("%s failed: %s", name, _line(error), exc_info=True)
                if self.state.phase not in ENDING:
                    part = "preflight" if self.state.phase is Phase.PREFLIGHT else "host"
                    self._take(Failed.KIND, {"part": part, "detail": _line(error)})
                    break
                self._in_stop(effect, name, _line(error))
            if self.state.phase in ENDING and not ending:
                break  # what this effect led to was a stop: it has been carried out, and nothing comes after it
        self._by = outer

    def _in_stop(self, effect: Effect, name: str, detail: str) -> None:
        if self.state.phase is Phase.FINISHED:
            return  # nothing may follow the last record; the log has it
        self._take("effect.failed", {"effect": name, "detail": detail})
        if isinstance(effect, Finish):  # nobody else would end this run
            self._take(Finished.KIND, {"code": effect.code.value, "exit": EXIT_HOST})


def _late(kind: str) -> str:
    return f"{kind} comes too late: the run is stopping"


def _line(error: Exception) -> str:
    return str(error) if isinstance(error, InboundsError) else f"{type(error).__name__}: {error}"
