"""One supervisor process: the real journal writer, replay, loop, supervisor and entry, on simulated ports.

Dies by Killed at any boundary; then only what World and Disk hold is left.
"""

import queue
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from simparts import Parts
from simworker import Worker

from inbounds.journal.writer import Journal
from inbounds.kernel import effects as fx
from inbounds.kernel.effects import Effect
from inbounds.kernel.state import Phase
from inbounds.run import replay
from inbounds.run.clock import Clock
from inbounds.run.entry import Entry
from inbounds.run.launch import JOURNAL
from inbounds.run.loop import Item
from inbounds.run.supervisor import Supervisor

if TYPE_CHECKING:
    from simrun import Sim

IDLE_PARTS = 30  # how finely an idle run's time is cut: a clock that stands still is seen all the same


class Inbox:
    """The port Events: where the real loop waits, simulated time passes."""

    def __init__(self, life: "Life") -> None:
        self._life = life
        self._items: deque[Item] = deque()

    def put(self, item: Item) -> None:
        """Hand one in."""
        self._items.append(item)

    def get_nowait(self) -> Item:
        """The next one, if there is one now."""
        if not self._items:
            raise queue.Empty
        return self._items.popleft()

    def get(self, *, timeout: float | None = None) -> Item:
        """The next one, after what happens meanwhile."""
        life, schedule = self._life, self._life.sim.schedule
        schedule.step()
        life.sim.witness.look(life.supervisor.loop.state)
        life.sim.faults.point("idle")
        now = schedule.time.ms
        if not self._items:
            assert timeout is not None
            schedule.pass_to(self._until(now, int(timeout * 1000)), lambda: bool(self._items))
        elif life.rng.random() < 0.1:
            schedule.pass_to(now + life.rng.randrange(50))  # the loop's thread is late
        return self.get_nowait()

    def _until(self, now: int, tick_ms: int) -> int:
        """The end of this wait: one tick, or many at once where nothing is due that any of them could see."""
        life, state = self._life, self._life.supervisor.loop.state
        coarse = now + max(tick_ms, state.limits.wall_clock_ms // IDLE_PARTS)
        due = [coarse, state.started_ms + state.limits.wall_clock_ms - life.ahead_ms()]
        if state.escalated_until_ms:
            due.append(state.escalated_until_ms - life.ahead_ms())
        if (soon := life.sim.schedule.next_ms()) is not None:
            due.append(soon)
        return max(now + tick_ms, min(at for at in due if at > now))


class Seen(Supervisor):
    """The real supervisor, with boundaries before and behind every effect."""

    life: "Life"

    def perform(self, effect: Effect, ref: str) -> None:
        """As the supervisor does, watched."""
        name, sim = type(effect).__name__, self.life.sim
        sim.note(f"perform {effect} for {ref}")
        sim.witness.performs(effect, ref)
        sim.faults.point(f"before:{name}")
        super().perform(effect, ref)
        sim.faults.point(f"after:{name}")
        if isinstance(effect, fx.Dispose):
            sim.witness.disposed(effect)


class Life:
    """From the journal's lock to its end or death."""

    def __init__(self, sim: "Sim") -> None:
        self.sim, self.rng, self.world = sim, sim.rng, sim.world
        self.alive, self.watching = True, False
        self.clock = Clock(sim.time.wall_ns, sim.time.boot_ns)
        journal = Journal.open(sim.place / JOURNAL, signer=sim.signer)
        sim.witness.rebuild()
        replayed = replay.replay(replay.records(sim.place))
        sim.witness.replayed(replayed.state)
        self.supervisor = Seen(journal, replayed, self.clock, Inbox(self))
        self.supervisor.life = self
        self.worker = Worker(self, self.supervisor.fault)
        self.parts = Parts(self)
        self.supervisor.equip(self.parts, self.worker)
        self.entry = Entry(self.supervisor, self.parts, self, replayed, sim.agreed.contract(), sim.place)
        for owed in sim.script(replayed.state.phase is Phase.FINISHED):
            self.after(*owed)

    # -- the port Watch

    def start(self) -> None:
        """Begin looking."""
        self.watching = True
        self.parts.looks()

    def stop(self) -> None:
        """Look no more."""
        self.watching = False

    # -- time

    def after(self, delay_ms: int, act: Callable[[], None]) -> None:
        """Have something done later, if this process still lives then."""
        self.sim.schedule.after(delay_ms, lambda: act() if self.alive else None)

    def pass_(self, ms: int, enough: Callable[[], bool] = lambda: False) -> None:
        """The loop's own thread is busy; everything else goes on."""
        self.sim.schedule.pass_to(self.sim.time.ms + ms, enough)

    def ahead_ms(self) -> int:
        """By how much the run's clock is before true time."""
        return self.supervisor.loop.now_ms() - self.sim.time.ms

    # -- how it is entered and left

    def enter(self, mode: str) -> int:
        """As inbounds.run's main and `inbounds stop` on a dead supervisor do."""
        if mode == "finish":
            return self.entry.finish("part.failed", {"part": "supervisor", "detail": "it died during the run"})
        ways = {"start": self.entry.start, "recover": self.entry.recover, "resume": self.entry.resume}
        return ways[mode]()

    def dies(self, *, at_once: bool) -> None:
        """Nothing of this process is left."""
        self.alive = self.watching = False
        self.world.supervisor_dies(at_once=at_once)
        self.sim.disk.release()
