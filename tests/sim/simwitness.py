"""The witness: reads what is durable of the journal as it becomes so, and checks every invariant at its moment.

Decides again from the durable records alone; knows the world's truth; knows nothing of the supervisor's memory but what
it is shown to compare.
"""

import os
from typing import TYPE_CHECKING, Any

import siminvariants as inv

from inbounds.journal import chain
from inbounds.journal.chain import Record
from inbounds.kernel import decide as kernel
from inbounds.kernel.effects import Dispose, Effect
from inbounds.kernel.events import Denial, Event, Recovered, Usage, read
from inbounds.kernel.state import Phase, State

if TYPE_CHECKING:
    from simrun import Sim


class Witness:
    """What the durable records say, and what has been counted beside them."""

    def __init__(self, sim: "Sim") -> None:
        self.sim = sim
        self.records: list[Record] = []
        self._offset = 0
        self._raw, self._file = b"", -1
        self.coder_n = -1
        self.born_ms = 0
        self.last_ms = 0
        self.state = State()
        self.effects: dict[int, tuple[Effect, ...]] = {}
        self.done: set[tuple[int, int]] = set()
        self.stopped = self.closed = False
        self.told = -1
        self.restored = ""
        self.tokens = self.tool_calls = self.spent = self.denials = 0
        self.begun = -1
        self.unwritten = self.legs = 0
        self.scarred = False  # a record of this leg could not be written, in this life or before

    # -- the journal

    def at_sync(self) -> None:
        """More of the journal is durable."""
        content = os.pread(self._fd(), 1 << 20, self._offset)
        end = content.rfind(b"\n") + 1
        for line in content[:end].splitlines():
            self._take(chain.decode(line))
        self._raw += content[:end]
        self._offset += end

    def _fd(self) -> int:
        if self._file < 0:
            self._file = os.open(self.sim.disk.journal, os.O_RDONLY | os.O_CLOEXEC)
        return self._file

    def close(self) -> None:
        """Look at the file no more."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _take(self, record: Record) -> None:
        self.records.append(record)
        self.last_ms = self.sim.time.ms
        before = self.state
        event = read(record.kind, record.data, record.hash)
        self.state, effects = kernel.decide(before, event, record.at_ms) if event else (before, ())
        if effects:
            self.effects[record.seq] = effects
        self._count(record, before, event)
        self.sim.note(f"{record.seq} {record.kind} {dict(record.data)} -> {self.state.phase}")
        self.sim.saw(before.phase, record.kind, self.state)
        for check in inv.OF_RECORDS:
            check(self, before, record)

    def _count(self, record: Record, before: State, event: Event | None) -> None:
        kind, data = record.kind, record.data
        alive = before.phase not in (Phase.NEW, Phase.FINISHED)
        if type(event) is Usage and alive:
            self.tokens += event.input_tokens + event.output_tokens
            self.tool_calls += event.tool_calls
            self.spent = event.spent_micro_usd
        elif type(event) is Recovered and alive and before.phase is not Phase.STOPPING:
            self.tokens, self.tool_calls = max(self.tokens, event.tokens), max(self.tool_calls, event.tool_calls)
            self.spent = max(self.spent, event.spent_micro_usd)
        elif type(event) is Denial:
            self.denials += 1
        elif kind == "iteration.started":
            self.told = self.state.n
            self.restored = ""
        elif kind == "stop.decided" or (kind == "stop.step" and data.get("step") == "frozen" and data.get("ok")):
            self.stopped = True
        elif kind == "stop.step" and data.get("step") == "lease_closed" and data.get("ok"):
            self.closed = True
        elif before.phase is Phase.FINISHED is not self.state.phase:
            self.stopped = self.closed = False
            self.scarred, self.denials = False, 0
            self.legs += 1
            self.restored = self.state.checkpoint or "base"
        if before.phase is Phase.NEW is not self.state.phase:
            self.begun = self.sim.time.ms

    def rebuild(self) -> None:
        """Another process has the journal: what was durable must be there still, and the rest counts from now on."""
        with open(self.sim.disk.journal, "rb") as file:
            content = file.read()
        inv.nothing_durable_is_lost(self._raw, content)
        self.at_sync()
        self.scarred = self.scarred or self.faulty()
        self.done.clear()
        self.unwritten = self.sim.disk.failures
        self.coder_n = self.told = -1
        self.born_ms = self.sim.time.ms

    def forget(self) -> None:
        """The journal's very name was lost with the power, before anything was built on it."""
        self.close()
        self.records, self._offset, self._raw = [], 0, b""

    def replayed(self, state: State) -> None:
        """What the product's own replay makes of it."""
        inv.a_replay_gives_the_state(self, state)

    # -- moments

    def faulty(self) -> bool:
        """Whether a record could not be written in this life."""
        return self.sim.disk.failures > self.unwritten

    def performs(self, effect: Effect, ref: str) -> None:
        """The supervisor is about to carry an effect out."""
        inv.every_effect_has_its_event(self, effect, ref)
        inv.no_limit_is_passed(self, effect)
        inv.work_begins_where_it_must(self, effect)

    def look(self, state: State) -> None:
        """The loop waits: its memory and the journal must agree."""
        if not self.faulty():
            inv.a_replay_gives_the_state(self, state)
        inv.the_wall_clock_is_kept(self)
        inv.the_workspace_is_somewhere(self)

    def opened_for(self, n: int) -> None:
        """A coder's jail was opened."""
        self.coder_n = n
        self.told = -1
        inv.a_leg_begins_at_the_checkpoint(self)

    def executes(self, role: str) -> None:
        """Something of the run did something."""
        inv.nothing_executes_after_a_stop(self, role)
        if role == "coder":
            inv.an_agent_works_in_its_iteration(self)
            inv.the_wall_clock_is_kept(self)

    def admitted(self, usd: int) -> None:
        """The gateway let a request through."""
        inv.nothing_is_admitted_after_the_doors_closed(self)
        inv.spend_is_within_the_cap(self)

    def quiet(self) -> None:
        """A snapshot is being taken."""
        inv.nothing_works_during_a_snapshot(self)

    def committed(self, n: int, tree: str) -> None:
        """Something stands on the agent branch."""
        inv.only_judged_trees_are_committed(self, n, tree)

    def landed(self, commit: str) -> None:
        """Something stands on development."""
        inv.only_what_is_done_lands_once(self, commit)

    def disposed(self, effect: Dispose) -> None:
        """The workspace was disposed of, or that failed."""
        inv.the_workspace_is_disposed_of(self, effect)

    def ended(self, code: int) -> None:
        """The supervisor ended by itself."""
        if not self.faulty():
            inv.the_end_is_recorded(self, code)
            if not self.scarred:
                inv.the_stop_is_in_order(self)

    def last(self, kind: str) -> dict[str, Any] | None:
        """The data of the last durable record of a kind."""
        return next((record.data for record in reversed(self.records) if record.kind == kind), None)
