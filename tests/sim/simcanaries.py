"""Planted bugs: each changes the product's own code for as long as a simulation runs, and each must be found.

A canary names the invariants that may find it; one that nothing finds would mean that the simulator's silence says
nothing.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from inbounds.gateway.ledger import Totals
from inbounds.journal.writer import Journal
from inbounds.kernel import decide as kernel
from inbounds.kernel import effects as fx
from inbounds.kernel import events
from inbounds.kernel.events import BY_KIND
from inbounds.kernel.state import Phase, State
from inbounds.run import amending, authorize, loop, reauthorize, replay, supervisor
from inbounds.run.clock import Clock
from inbounds.run.loop import Loop
from inbounds.run.supervisor import Supervisor

Patch = tuple[Any, str, Any]


@dataclass(frozen=True, slots=True)
class Canary:
    """A bug: what it does to which attribute, and how many seeds the simulator has to find it."""

    name: str
    patches: Callable[[], tuple[Patch, ...]]
    found_by: frozenset[str]
    seeds: int = 4_000

    @contextlib.contextmanager
    def planted(self) -> Iterator[None]:
        """The bug is in the product within this."""
        patches = self.patches()
        before = [(target, name, getattr(target, name)) for target, name, _ in patches]
        try:
            for target, name, value in patches:
                setattr(target, name, value)
            yield
        finally:
            for target, name, value in before:
                setattr(target, name, value)


def _a_rule_is_skipped() -> tuple[Patch, ...]:
    over = kernel._over

    def lenient(state: State) -> Any:
        found = over(state)
        return None if found and "tool calls" in found[1] else found

    return ((kernel, "_over", lenient),)


def _effects_before_the_record() -> tuple[Patch, ...]:
    def hasty(self: Loop, kind: str, data: Any, written: Any = None) -> str:
        at = self.now_ms()
        event = events.read(kind, data, "")
        made: tuple[fx.Effect, ...] = ()
        if event is not None:
            self.state, made = kernel.decide(self.state, event, at)
        self._perform(made, self._journal.head[0] + 1)  # type: ignore[attr-defined] # the real journal has one
        self._journal.append(kind, dict(data), at, sync=kind in BY_KIND)
        if written:
            written.set()
        return ""

    return ((Loop, "_take", hasty),)


def _nothing_is_synced() -> tuple[Patch, ...]:
    return ((Journal, "sync", lambda _: None),)


def _reserved_money_is_forgotten() -> tuple[Patch, ...]:
    return ((Totals, "spent_micro_usd", property(lambda totals: totals.settled_micro_usd)),)


def _a_recovery_starts_from_its_own_figures() -> tuple[Patch, ...]:
    recovered = kernel._recovered

    def forgetful(state: State, event: events.Recovered) -> Any:
        return recovered(state, replace(event, spent_micro_usd=0, tokens=0, tool_calls=0))

    return ((kernel, "_recovered", forgetful),)


def _a_stop_without_freeze() -> tuple[Patch, ...]:
    whole = fx.stop_sequence

    def thawed(*args: Any) -> Any:
        return tuple(effect for effect in whole(*args) if not isinstance(effect, fx.Freeze | fx.Kill))

    return ((kernel, "stop_sequence", thawed), (replay, "stop_sequence", thawed))


def _doors_stay_open() -> tuple[Patch, ...]:
    done = Supervisor._stop

    def open_doors(self: Supervisor, effect: Any) -> None:
        if isinstance(effect, fx.CloseDoors):
            self.loop.record("stop.step", {"step": "lease_closed", "ok": True, "detail": ""})
        elif isinstance(effect, fx.Freeze):
            pause = getattr(self.parts, "_meanwhile")  # noqa: B009 - the simulated parts' own time
            pause("halt")
            done(self, effect)
        else:
            done(self, effect)

    return ((Supervisor, "_stop", open_doors),)


def _a_stale_stop_is_signed_for() -> tuple[Patch, ...]:
    def any_stop(run_dir: Any, contract: Any) -> Any:
        stops = [record for record in replay.records(run_dir) if record.kind == "stop.decided"]
        found = {}
        for record in replay.records(run_dir):
            said = record.data.get("statement") or {}
            if record.kind == reauthorize.DECISION and said.get("stop_hash") in {stop.hash for stop in stops}:
                name = authorize.signed_by(said, record.data["signature"], contract.operator_keys, "")
                if name in (contract.conducted().resume_by or contract.operator_keys):
                    found[name] = record
        return found

    def authorized(state: State, event: events.Reauthorized) -> bool:
        able = set(event.operators) & set(state.conduct.resume_by or event.operators)
        return state.stop_code not in ("", "DONE") and len(able) >= state.conduct.resume_approvals

    return ((reauthorize, "given", any_stop), (kernel, "_authorized", authorized))


def _an_amendment_skips_a_version() -> tuple[Patch, ...]:
    def amended(state: State, event: events.Amended) -> State:
        return replace(state, version=event.version + 1, limits=event.limits, escalated_until_ms=0)

    return ((kernel, "_amended", amended),)


def _anybody_may_amend() -> tuple[Patch, ...]:
    def read(asked: Any, contract: Any, version: int) -> Any:
        said = asked.get("statement")
        if not isinstance(said, dict):
            return amending.REFUSED, {"why": ""}
        return amending.AMENDED, {"version": version + 1, "operator": "ana", "limits": said["limits"]}

    return ((amending, "read", read),)


def _another_tree_is_committed() -> tuple[Patch, ...]:
    perform = Supervisor.perform

    def swapped(self: Supervisor, effect: Any, ref: str) -> None:
        if type(effect) is fx.Commit:
            world = getattr(self.parts, "world")  # noqa: B009 - the simulated parts' world
            effect = fx.Commit(effect.n, world.workspace.name if effect.n > 1 else "base")
        perform(self, effect, ref)

    return ((Supervisor, "perform", swapped),)


def _a_usage_counts_for_nothing() -> tuple[Patch, ...]:
    counted = kernel._counted

    def once(state: State, event: events.Usage) -> State:
        return state if event.spent_micro_usd == state.spent_micro_usd else counted(state, event)

    return ((kernel, "_counted", once),)


def _the_checkpoint_moves_to_any_tree() -> tuple[Patch, ...]:
    return ((kernel, "_safe", lambda *_: True),)


def _the_wall_clock_rules() -> tuple[Patch, ...]:
    def wall(self: Clock) -> int:
        return int(self._wall_ns() // 1_000_000)  # type: ignore[attr-defined] # kept by the patch below

    def keep(self: Clock, wall_ns: Callable[[], int], boot_ns: Callable[[], int]) -> None:
        self._wall_ns = wall_ns  # type: ignore[attr-defined] # what a careless clock would ask
        self._boot_ns, self._offset_ns = boot_ns, 0

    return ((Clock, "__init__", keep), (Clock, "__call__", wall))


def _suspended_time_is_free() -> tuple[Patch, ...]:
    def awake(self: Clock) -> int:
        now = (self._offset_ns + self._boot_ns()) // 1_000_000
        before = getattr(self, "_before", now)
        lost = getattr(self, "_lost", 0)
        if now - before > 5_000_000_000 // 100:  # a step of most of a minute is a sleep to CLOCK_MONOTONIC
            lost += now - before
        self._before, self._lost = now, lost  # type: ignore[attr-defined] # the bug's own memory
        return now - lost

    return ((Clock, "__call__", awake),)


def _nothing_ticks() -> tuple[Patch, ...]:
    return ((Loop, "_tick", lambda _: None),)


def _a_snapshot_while_the_agent_works() -> tuple[Patch, ...]:
    started = kernel._running

    def skips(state: State, event: Any, at_ms: int) -> Any:
        if isinstance(event, events.IterationStarted) and state.phase is Phase.STARTING:
            return replace(state, phase=Phase.SNAPSHOT, n=event.n), (fx.TakeSnapshot(state.n),)
        return started(state, event, at_ms)

    return ((kernel, "_running", skips),)


def _recovery_forgets_a_stop() -> tuple[Patch, ...]:
    def forgets(found: Any) -> Any:
        made = replay_whole(found)
        if made.state.phase is Phase.STOPPING:
            made.state, made.stop = replace(made.state, phase=Phase.WORKING), ()
        return made

    replay_whole = replay.replay
    return ((replay, "replay", forgets),)


def _the_agent_goes_unannounced() -> tuple[Patch, ...]:
    class Said(loop.Written):
        def is_set(self) -> bool:
            return True

    return ((loop, "Written", Said),)


def _a_result_lands_twice() -> tuple[Patch, ...]:
    finish = Supervisor._finish

    def twice(self: Supervisor, code: Any) -> None:
        if code == "DONE":
            self.parts.promote(again=False)
        finish(self, code)

    return ((Supervisor, "_finish", twice),)


def _dispositions_are_forgotten() -> tuple[Patch, ...]:
    def kept(self: Supervisor, disposal: Any, checkpoint: str) -> None:
        del checkpoint
        name = supervisor.DISPOSED[disposal]
        self.loop.record("stop.step", {"step": name, "ok": True, "detail": "done"})

    return ((Supervisor, "_dispose", kept),)


# -- what the simulator found in the product: each bug once more


def _an_earlier_stop_counts() -> tuple[Patch, ...]:
    def go_on(self: Supervisor, kind: str, data: Any) -> int:
        self.worker.start()
        self.loop.post(kind, data)
        return self._until_finished()

    return ((Supervisor, "go_on", go_on),)


def _a_crashed_leg_begins_anywhere() -> tuple[Patch, ...]:
    recovered = kernel._recovered

    def careless(state: State, event: events.Recovered) -> Any:
        return recovered(replace(state, restore=False), event)

    return ((kernel, "_recovered", careless),)


def _a_clock_set_back_stands_still() -> tuple[Patch, ...]:
    made = Loop.__init__

    def still(self: Loop, *args: Any) -> None:
        made(self, *args)
        self._ahead_ms = 0

    return ((Loop, "__init__", still),)


def _a_malformed_record_ends_every_recovery() -> tuple[Patch, ...]:
    return ((replay, "read", events.parse),)


def _a_stop_without_its_cause_is_forgotten() -> tuple[Patch, ...]:
    running = kernel._running

    def forgets(state: State, event: Any, at_ms: int) -> Any:
        return (state, ()) if isinstance(event, events.StopStep) else running(state, event, at_ms)

    return ((kernel, "_running", forgets),)


def _of(name: str, patches: Callable[[], tuple[Patch, ...]], *found_by: str) -> Canary:
    return Canary(name, patches, frozenset(found_by))


CANARIES = (
    _of("a rule of decide is skipped", _a_rule_is_skipped, "no_limit_is_passed"),
    _of("effects come before their record", _effects_before_the_record, "every_effect_has_its_event"),
    _of("nothing is synced", _nothing_is_synced, "every_effect_has_its_event", "a_replay_gives_the_state"),
    _of("reserved money is forgotten", _reserved_money_is_forgotten, "money_is_remembered"),
    _of("a recovery has its own figures", _a_recovery_starts_from_its_own_figures, "money_is_remembered"),
    _of("a stop without freeze", _a_stop_without_freeze, "nothing_executes_after_a_stop"),
    _of("the doors stay open", _doors_stay_open, "nothing_is_admitted_after_the_doors_closed"),
    _of("a stale stop hash opens a leg", _a_stale_stop_is_signed_for, "no_way_on_without_signatures"),
    _of("an amendment skips a version", _an_amendment_skips_a_version, "limits_change_by_an_amendment_alone"),
    _of("anybody may amend", _anybody_may_amend, "limits_change_by_an_amendment_alone"),
    _of("another tree is committed", _another_tree_is_committed, "only_judged_trees_are_committed"),
    _of("a repeated usage counts once", _a_usage_counts_for_nothing, "what_was_used_is_counted"),
    _of("the checkpoint moves to any tree", _the_checkpoint_moves_to_any_tree, "the_checkpoint_is_safe"),
    _of("the wall clock rules", _the_wall_clock_rules, "the_wall_clock_is_kept"),
    _of("suspended time is free", _suspended_time_is_free, "the_wall_clock_is_kept"),
    _of("nothing ticks", _nothing_ticks, "the_wall_clock_is_kept", "every_run_ends"),
    _of("a snapshot while the agent works", _a_snapshot_while_the_agent_works,
        "an_agent_works_in_its_iteration", "nothing_works_during_a_snapshot"),
    _of("a recovery forgets that a stop had begun", _recovery_forgets_a_stop, "a_replay_gives_the_state"),
    _of("an agent goes before that is written", _the_agent_goes_unannounced, "an_agent_works_in_its_iteration"),
    _of("a result lands twice", _a_result_lands_twice, "only_what_is_done_lands_once"),
    _of("a disposal is only said", _dispositions_are_forgotten, "the_workspace_is_disposed_of"),
    _of("an earlier leg's stop counts", _an_earlier_stop_counts, "each_stop_keeps_its_evidence"),
    _of("a crashed leg begins anywhere", _a_crashed_leg_begins_anywhere, "a_leg_begins_at_the_checkpoint"),
    _of("a clock set back stands still", _a_clock_set_back_stands_still, "the_wall_clock_is_kept", "every_run_ends"),
    _of("a malformed record ends every recovery", _a_malformed_record_ends_every_recovery, "every_run_ends"),
    _of("a stop without its cause is forgotten", _a_stop_without_its_cause_is_forgotten,
        "nothing_executes_after_a_stop", "nothing_is_admitted_after_the_doors_closed"),
)  # fmt: skip
