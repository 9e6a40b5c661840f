"""The invariants: what must hold of every run at every step, each a function with its name.

Each is told the witness and what is about to be judged by it; each raises Violation. They compare the durable journal
with the world's truth, and never with what the product says of itself alone.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from inbounds.contracts.errors import EXIT_HOST, EXIT_KEPT, EXIT_REFUSED
from inbounds.contracts.reasons import Disposal, StopCode
from inbounds.journal.chain import Record
from inbounds.kernel import effects as fx
from inbounds.kernel.events import Denial, Failed, Judged, OperatorStopped, Polled, read
from inbounds.kernel.state import Phase, State

if TYPE_CHECKING:
    from simwitness import Witness

STOP_EFFECTS = (fx.CloseDoors, fx.Freeze, fx.RecordStop, fx.Persist, fx.Kill, fx.Dispose, fx.Finish)
ENDING = (Phase.STOPPING, Phase.FINISHED)
SLACK_MS = 8_000  # a tick, the loop's own slow effects, and the jail's deadline behind the kernel's
ORDER = ("lease_closed", "frozen", "stop.decided", "persisted", "killed", "disposed", "run.finished")
DISPOSED = {"kept": "keep", "reverted": "revert", "quarantined": "quarantine"}


class Violation(BaseException):
    """An invariant does not hold. No Exception: the product must not be able to swallow it."""

    def __init__(self, name: str, detail: str) -> None:
        self.name, self.detail = name, detail
        super().__init__(f"{name}: {detail}")


def _holds(name: Callable[..., None], ok: object, detail: Callable[[], str]) -> None:
    if not ok:
        raise Violation(name.__name__, detail())


# -- after a stop


def nothing_executes_after_a_stop(seen: "Witness", role: str) -> None:
    _holds(nothing_executes_after_a_stop, not seen.stopped, lambda: f"a {role} works, the run is {seen.state.phase}")


def nothing_is_admitted_after_the_doors_closed(seen: "Witness") -> None:
    shut = seen.closed or seen.stopped
    _holds(nothing_is_admitted_after_the_doors_closed, not shut, lambda: "a request was admitted")


def no_way_on_without_signatures(seen: "Witness", before: State, record: Record) -> None:
    if before.phase is not Phase.FINISHED or seen.state.phase is Phase.FINISHED:
        return
    stop = next(r.hash for r in reversed(seen.records) if r.kind == "stop.decided")
    signed = seen.sim.people.resumed.get(stop, set())
    wanted = before.conduct.incident_approvals if before.incident else before.conduct.resume_approvals
    ok = record.kind == "run.reauthorized" and len(signed) >= wanted
    _holds(no_way_on_without_signatures, ok, lambda: f"{record.kind}: {sorted(signed)} signed, {wanted} are wanted")


def the_stop_is_in_order(seen: "Witness") -> None:
    """Of the last leg: each writer's steps in order, and the last writer's are complete."""
    passes: list[list[str]] = [[]]
    failed = False
    for record in seen.records:
        if record.kind == "run.reauthorized":
            passes, failed = [[]], False
        elif record.kind == "journal.recovered":
            passes.append([])
        elif record.kind == "stop.step":
            step = str(record.data["step"])
            passes[-1].append("disposed" if step in DISPOSED else step)
        elif record.kind == "effect.failed":
            failed = True
        elif record.kind in ("stop.decided", "run.finished"):
            passes[-1].append(record.kind)
    for steps in passes:
        places = [ORDER.index(step) for step in steps]
        _holds(the_stop_is_in_order, places == sorted(set(places)), lambda: f"{passes}")
    ending = next((steps for steps in reversed(passes) if steps), [])
    have = {step for steps in passes for step in steps}
    missing = [step for step in ORDER if step not in (have if step == "stop.decided" else ending)]
    over = ending == ["run.finished"] or not missing
    _holds(
        the_stop_is_in_order,
        over or failed or ("run.finished" not in missing and _carried(passes)),
        lambda: f"{passes}",
    )


def _carried(passes: list[list[str]]) -> bool:
    whole = [steps for steps in passes if "run.finished" in steps]
    return any(set(ORDER) - {"stop.decided"} <= set(steps) for steps in whole)


def the_end_is_recorded(seen: "Witness", code: int) -> None:
    last = seen.last("run.finished")
    stop = seen.last("stop.decided")
    name = the_end_is_recorded
    _holds(name, seen.state.phase is Phase.FINISHED and last and stop, lambda: f"the run is {seen.state.phase}")
    assert last is not None
    assert stop is not None
    kept = last["code"] == StopCode.DONE
    agree = last["code"] == stop["code"] == seen.state.stop_code and code == (EXIT_KEPT if kept else EXIT_REFUSED)
    agree = agree and last["exit"] in (EXIT_KEPT if kept else EXIT_REFUSED, EXIT_HOST)
    _holds(name, agree, lambda: f"exit {code}, finished {last}, stopped {stop['code']}")


# -- money and limits


def spend_is_within_the_cap(seen: "Witness") -> None:
    ledger, limits = seen.sim.world.ledger, seen.state.limits
    ok = ledger.spent <= limits.budget_micro_usd and ledger.spent_tokens <= limits.tokens
    detail = f"{ledger.spent} of {limits.budget_micro_usd}, {ledger.spent_tokens} of {limits.tokens} tokens"
    _holds(spend_is_within_the_cap, ok, lambda: detail)
    asked = seen.state.escalated_until_ms and seen.sim.world.post is not None
    _holds(nobody_spends_while_a_question_is_open, not asked, lambda: "a request was admitted")


def nobody_spends_while_a_question_is_open(_: "Witness") -> None:
    """Checked with every admission."""


def money_is_remembered(seen: "Witness", before: State, record: Record) -> None:
    """A recovery knows all that counts as spent, what a dead gateway had reserved included."""
    if record.kind != "run.recovered" or before.phase in (Phase.NEW, *ENDING):
        return
    ledger, state = seen.sim.world.ledger, seen.state
    ok = state.spent_micro_usd >= ledger.spent and state.tokens >= ledger.spent_tokens
    detail = f"{state.spent_micro_usd} known, {ledger.spent} spent; {state.tokens} tokens, {ledger.spent_tokens} spent"
    _holds(money_is_remembered, ok or isinstance(read(record.kind, record.data), Failed), lambda: detail)


def what_was_used_is_counted(seen: "Witness", before: State, record: Record) -> None:
    del before
    state = seen.state
    ok = (state.tokens, state.tool_calls) == (seen.tokens, seen.tool_calls)
    detail = f"after {record.kind}: {state.tokens} tokens and {state.tool_calls} calls, the records say"
    _holds(what_was_used_is_counted, ok, lambda: f"{detail} {seen.tokens} and {seen.tool_calls}")


def limits_change_by_an_amendment_alone(seen: "Witness", before: State, record: Record) -> None:
    after = seen.state
    if before.phase is Phase.NEW or (after.limits == before.limits and after.version == before.version):
        return
    name = limits_change_by_an_amendment_alone
    _holds(name, record.kind == "contract.amended", lambda: f"by {record.kind}")
    _holds(name, after.version == before.version + 1, lambda: f"from version {before.version} to {after.version}")
    signed = (after.version, after.limits) in seen.sim.people.amendments
    _holds(name, signed, lambda: f"nobody signed version {after.version} of {after.limits}")


def no_limit_is_passed(seen: "Witness", effect: fx.Effect) -> None:
    """What goes forward is within the limits, counted from the records and not by the kernel."""
    limits, name = seen.state.limits, no_limit_is_passed
    match effect:
        case fx.StartIteration():
            used = {
                "iterations": (effect.n, limits.iterations),
                "tool_calls": (seen.tool_calls, limits.tool_calls),
                "budget_usd": (seen.spent, limits.budget_micro_usd - 1),
                "tokens": (seen.tokens, limits.tokens - 1),
                "denials": (seen.denials, limits.denials),
            }
            over = {what: pair for what, pair in used.items() if pair[0] > pair[1]}
            _holds(name, not over, lambda: f"iteration {effect.n} begins: {over}")
        case fx.Judge():
            taken = seen.last("snapshot.taken") or {}
            ok = taken.get("complete") is True and taken["changed"] <= limits.file_changes
            ok = ok and taken["iteration_changed"] <= limits.iteration_file_changes
            _holds(name, ok, lambda: f"a judge looks at {taken}, {limits.file_changes} files may change")
        case fx.Commit():
            rules = seen.sim.world.trees.known[effect.tree].rules
            _holds(name, not rules, lambda: f"{effect.tree} is committed, whatever {rules} say")
        case _:
            return


def a_cause_stops(seen: "Witness", before: State, record: Record) -> None:
    """What must end a run ends it with the very record that says so."""
    if before.phase in (Phase.NEW, *ENDING):
        return
    event = read(record.kind, record.data, record.hash)
    limits = before.limits
    cause = (
        isinstance(event, Failed | OperatorStopped)
        or (isinstance(event, Denial) and event.sensitive)
        or (isinstance(event, Polled) and (event.bytes > limits.disk_bytes or event.inodes > limits.inodes))
        or (isinstance(event, Judged) and event.rules and before.phase is Phase.JUDGING)
    )
    _holds(a_cause_stops, not cause or seen.state.phase is Phase.STOPPING, lambda: f"{record.kind} {dict(record.data)}")


def the_wall_clock_is_kept(seen: "Witness") -> None:
    """True time, suspended time included; the time in which no supervisor lived counts where no clock was set."""
    sim, state = seen.sim, seen.state
    if seen.begun < 0 or state.phase in (Phase.NEW, *ENDING) or seen.faulty():
        return
    now = sim.time.ms
    due = seen.begun + sim.hidden_ms + state.limits.wall_clock_ms
    over = now - max(due, sim.time.woken_ms, seen.born_ms)
    _holds(the_wall_clock_is_kept, over <= SLACK_MS, lambda: f"{over} ms beyond it, the run is {state.phase}")


# -- effects


def every_effect_has_its_event(seen: "Witness", effect: fx.Effect, ref: str) -> None:
    name = every_effect_has_its_event
    seq, place = (int(part) for part in ref.split("."))
    if seq < 0:
        _holds(name, isinstance(effect, STOP_EFFECTS), lambda: f"{effect} without a record")
        return
    implied = seen.effects.get(seq, ())
    ok = place < len(implied) and implied[place] == effect
    _holds(name, ok, lambda: f"{effect} for {ref}: the durable records give {implied}")
    _holds(name, (seq, place) not in seen.done, lambda: f"{effect} for {ref} a second time")
    seen.done.add((seq, place))


def a_replay_gives_the_state(seen: "Witness", state: State) -> None:
    def differ() -> str:
        names = [name for name in State.__slots__ if getattr(state, name) != getattr(seen.state, name)]
        return ", ".join(f"{n}: {getattr(state, n)} in memory, {getattr(seen.state, n)} replayed" for n in names)

    _holds(a_replay_gives_the_state, state == seen.state, differ)


def nothing_durable_is_lost(durable: bytes, found: bytes) -> None:
    ok = found.startswith(durable)
    _holds(nothing_durable_is_lost, ok, lambda: f"{len(durable)} bytes were durable, {len(found)} are found")


def every_run_ends(detail: str) -> None:
    """Called by whoever has waited long enough."""
    raise Violation(every_run_ends.__name__, detail)


# -- workspace and commits


def an_agent_works_in_its_iteration(seen: "Witness") -> None:
    told = seen.told == seen.coder_n
    _holds(an_agent_works_in_its_iteration, told, lambda: f"an agent works, iteration {seen.told} was recorded last")
    phase = seen.state.phase
    ok = phase in (Phase.WORKING, Phase.STOPPING) or seen.sim.world.post is None
    _holds(an_agent_works_in_its_iteration, ok, lambda: f"an agent works, the run is {phase}")


def nothing_works_during_a_snapshot(seen: "Witness") -> None:
    crew = seen.sim.world.crew
    busy = [jail.role for jail in crew.jails if jail.alive] if crew else []
    _holds(nothing_works_during_a_snapshot, not busy, lambda: f"alive: {busy}")


def work_begins_where_it_must(seen: "Witness", effect: fx.Effect) -> None:
    """No iteration, snapshot or judgement begins while a coder's jail lives."""
    if isinstance(effect, fx.StartIteration | fx.TakeSnapshot | fx.Judge | fx.Commit):
        nothing_works_during_a_snapshot(seen)


def the_workspace_is_somewhere(seen: "Witness") -> None:
    """In a running iteration, at a checkpoint or set apart: there is one wherever a phase needs it."""
    needs = seen.state.phase in (Phase.WORKING, Phase.SNAPSHOT, Phase.JUDGING, Phase.COMMITTING)
    there = seen.sim.world.workspace is not None
    there = there or seen.scarred or seen.faulty()  # where no record fits, none says that it was set apart
    _holds(the_workspace_is_somewhere, there or not needs, lambda: f"there is none, the run is {seen.state.phase}")


def a_leg_begins_at_the_checkpoint(seen: "Witness") -> None:
    if not seen.restored:
        return
    here = seen.sim.world.workspace
    ok = here is not None and here.name == seen.restored
    _holds(a_leg_begins_at_the_checkpoint, ok, lambda: f"the agent begins at {here}, not at {seen.restored}")


def the_workspace_is_disposed_of(seen: "Witness", effect: fx.Dispose) -> None:
    last = seen.records[-1]
    if last.kind != "stop.step" or last.data["step"] not in DISPOSED or not last.data["ok"]:
        return
    if last.data["detail"] == "there was no workspace":
        return
    here = seen.sim.world.workspace
    match effect.disposal:
        case Disposal.REVERT:
            ok = here is not None and here.name == (effect.checkpoint or "base")
        case Disposal.QUARANTINE:
            ok = here is None
        case Disposal.KEEP:
            ok = here is None
    _holds(the_workspace_is_disposed_of, ok, lambda: f"{effect}: the workspace is at {here}")


def each_stop_keeps_its_evidence(seen: "Witness", before: State, record: Record) -> None:
    """What is said to be persisted is what stood at the end of this leg, and of no earlier one."""
    del before
    said = record.data if record.kind == "stop.step" else {}
    if said.get("step") == "persisted" and said["ok"] and str(said["detail"]).startswith("tree "):
        kept = seen.sim.world.evidence
        _holds(each_stop_keeps_its_evidence, seen.legs in kept, lambda: f"leg {seen.legs} says {said}, kept: {kept}")


def only_judged_trees_are_committed(seen: "Witness", n: int, tree: str) -> None:
    world = seen.sim.world
    ok = (n, tree) in world.judged and tree in world.snapshots
    _holds(only_judged_trees_are_committed, ok, lambda: f"{tree} of iteration {n} is on the branch")


def the_checkpoint_is_safe(seen: "Witness", before: State, record: Record) -> None:
    tree = seen.state.checkpoint
    if tree == before.checkpoint:
        return
    world = seen.sim.world
    ok = world.trees.known[tree].safe and any(commit.tree == tree for commit in world.branch)
    _holds(the_checkpoint_is_safe, ok, lambda: f"{world.trees.known[tree]} after {record.kind}")


def only_what_is_done_lands_once(seen: "Witness", commit: str) -> None:
    world = seen.sim.world
    done = seen.state.stop_code == StopCode.DONE or (seen.last("stop.decided") or {}).get("code") == StopCode.DONE
    ok = done and commit == world.branch[-1].name and commit not in world.development
    _holds(only_what_is_done_lands_once, ok, lambda: f"{commit} lands, {world.development} have, done: {done}")


OF_RECORDS: tuple[Callable[["Witness", State, Record], None], ...] = (
    no_way_on_without_signatures,
    money_is_remembered,
    what_was_used_is_counted,
    limits_change_by_an_amendment_alone,
    a_cause_stops,
    each_stop_keeps_its_evidence,
    the_checkpoint_is_safe,
)
