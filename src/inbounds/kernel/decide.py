"""decide(state, event) -> (state, effects): the only place where a stop rule lives (E9, ARCHITECTURE step 8).

Pure and total: no clock, file, socket or randomness; an event that makes no sense in a phase changes nothing. Standard
library only.
"""

from dataclasses import replace
from typing import assert_never

from inbounds.contracts.reasons import MEANING, Disposal, StopCode
from inbounds.contracts.verdict import Outcome
from inbounds.kernel.effects import (
    ApplyLimits,
    Commit,
    Effect,
    Escalate,
    HaltAgent,
    Judge,
    RecordStop,
    Reopen,
    RunPreflight,
    SlowDown,
    StartIteration,
    TakeSnapshot,
    stop_sequence,
)
from inbounds.kernel.events import (
    Accepted,
    Amended,
    CommitMade,
    Denial,
    Event,
    Failed,
    Finished,
    IterationFinished,
    IterationStarted,
    JailExited,
    Judged,
    ModelRefused,
    OperatorStopped,
    Polled,
    PreflightFinished,
    Reauthorized,
    Recovered,
    Reopened,
    SnapshotTaken,
    StopDecided,
    StopStep,
    Tick,
    Usage,
)
from inbounds.kernel.state import Phase, State

# Caps on one request or on time: refusing that request is the whole answer, and it counts as a denial.
NOT_SPENT = frozenset({"request", "busy"})
# What we impose ourselves: an agent that asks meanwhile reaches for nothing, and shall ask again.
OUR_WAIT = frozenset({"paused", "paced"})

Step = tuple[State, tuple[Effect, ...]]

# The first rule that matches names the stop; judged findings are critical or high by then.
RULE_STOPS: tuple[tuple[str, StopCode], ...] = (
    ("scope.acceptance_test", StopCode.STOP_TESTS_WEAKENED),
    ("tests.canary", StopCode.STOP_SECURITY_VIOLATION),
    ("tests.report_disagrees", StopCode.STOP_SECURITY_VIOLATION),
    ("tests.missing", StopCode.STOP_TESTS_WEAKENED),
    ("tests.acceptance_", StopCode.STOP_TESTS_WEAKENED),
    ("scope.executes_later", StopCode.STOP_SECURITY_VIOLATION),
    ("scope.", StopCode.STOP_SCOPE_EXCEEDED),
    ("secrets.", StopCode.STOP_SECRET_EXPOSURE),
    ("coverage.", StopCode.STOP_COVERAGE_REGRESSED),
    ("anomaly.", StopCode.STOP_ANOMALY),
)
PART_STOPS = {
    "gateway": StopCode.STOP_GATEWAY_FAILED,
    "agent": StopCode.STOP_AGENT_FAILED,
    "contract": StopCode.STOP_TAMPERING,
    "gpu": StopCode.STOP_RESOURCES_EXCEEDED,  # a ceiling that only looking bounds: what is over it has happened
    "preflight": StopCode.STOP_PREFLIGHT_FAILED,
}
# Where a run goes on whose supervisor died: its agent is dead too, and what it left is judged as it stands.
GOES_ON = {
    Phase.STARTING: Phase.STARTING,
    Phase.WORKING: Phase.SNAPSHOT,
    Phase.SNAPSHOT: Phase.SNAPSHOT,
    Phase.JUDGING: Phase.SNAPSHOT,
    Phase.COMMITTING: Phase.COMMITTING,
}
PERCENT = 100


def decide(state: State, event: Event, at_ms: int) -> Step:
    """The next state and what to do, in order; `at_ms` is when the event was recorded."""
    if state.phase is Phase.FINISHED:
        return _after_the_end(state, event)
    if state.phase is Phase.STOPPING:
        return _stopping(state, event), ()
    after, effects = _running(state, event, at_ms)
    # A late event that stops the run by itself (a decoy opened, a dead supervisor) names the more telling cause.
    done = any(isinstance(effect, RecordStop) and effect.code is StopCode.DONE for effect in effects)
    if state.phase is Phase.NEW or (after.phase is Phase.STOPPING and not done):
        return after, effects
    if at_ms - state.started_ms >= after.limits.wall_clock_ms:
        return _stop(after, StopCode.STOP_RUNTIME_EXCEEDED, "the wall-clock limit passed")
    if after.escalated_until_ms and at_ms >= after.escalated_until_ms:
        return _stop(after, StopCode.STOP_ESCALATION_UNANSWERED, "nobody answered that the budget is nearly spent")
    return after, effects


def exhausted(state: State, at_ms: int) -> tuple[str, ...]:
    """The limits that would end the run at once if it went on now: what an amendment has to raise before (E8)."""
    limits = state.limits
    used = {
        "wall_clock": (at_ms - state.started_ms, limits.wall_clock_ms),
        "iterations": (state.n, limits.iterations),
        "tool_calls": (state.tool_calls, limits.tool_calls + 1),
        "budget_usd": (state.spent_micro_usd, limits.budget_micro_usd),
        "tokens": (state.tokens, limits.tokens),
        "restarts": (state.recoveries, limits.restarts + 1),
    }
    return tuple(name for name, (now, most) in used.items() if now >= most)


def _after_the_end(state: State, event: Event) -> Step:
    """Only people's signed words count now (E14); an amendment alone starts nothing."""
    if isinstance(event, Amended):
        return _amended(state, event), ()
    if not isinstance(event, Reauthorized) or not _authorized(state, event):
        return state, ()
    leg = replace(
        state, phase=Phase.REOPENING, resume_at=Phase.STARTING, n=state.n + 1, denials=0, without_progress=0,
        done=False, halted=False, slowed=False, escalated_until_ms=0, verdicts={}, stop_code="", stop_hash="",
        incident=False,
    )  # fmt: skip
    if state.n == 0:  # it never came past its preflight
        return replace(leg, phase=Phase.PREFLIGHT, n=0), (RunPreflight(),)
    return replace(leg, restore=True), (Reopen(state.checkpoint, restore=True),)


def _authorized(state: State, event: Reauthorized) -> bool:
    """Bound to this very stop, by as many people as policy wants of those it names (E14, N7, O7)."""
    named = set(event.operators)
    able = named & set(state.conduct.resume_by) if state.conduct.resume_by else named
    wanted = state.conduct.incident_approvals if state.incident else state.conduct.resume_approvals
    short = state.stop_code not in ("", StopCode.DONE)
    return short and event.stop_hash == state.stop_hash != "" and len(able) >= wanted


def _stopping(state: State, event: Event) -> State:
    match event:
        case Finished():
            return replace(state, phase=Phase.FINISHED)
        case OperatorStopped(incident=True):  # another cause was first; going on takes what an incident takes
            return replace(state, incident=True)
        case StopDecided():
            return replace(state, stop_code=event.code, stop_hash=event.ref)
        case Amended():
            return _amended(state, event)
        case Usage():  # settled behind the stop: it counts for a leg that people may open
            return _counted(state, event)
        case _:
            return state


def _running(state: State, event: Event, at_ms: int) -> Step:
    match event:
        case Accepted():
            return _accepted(state, event, at_ms)
        case PreflightFinished():
            return _preflight(state, event)
        case IterationStarted():
            if state.phase is not Phase.STARTING or event.n != state.n:
                return state, ()
            return replace(state, phase=Phase.WORKING, n=event.n, iteration_turns=0, verdicts={}, halted=False), ()
        case Usage():
            return _usage(state, event, at_ms)
        case ModelRefused():
            return _refused(state, event)
        case Denial():
            return _denial(state, event)
        case JailExited():
            return _exited(state, event)
        case SnapshotTaken():
            return _snapshot(state, event)
        case Judged():
            return _judged(state, event)
        case IterationFinished():
            return _iteration(state, event)
        case CommitMade():
            if state.phase is not Phase.COMMITTING:
                return state, ()
            return _onward(replace(state, checkpoint=state.tree) if state.safe else state)
        case Polled():
            over = event.bytes > state.limits.disk_bytes or event.inodes > state.limits.inodes
            why = f"the workspace holds {event.bytes} bytes in {event.inodes} files"
            return _stop(state, StopCode.STOP_RESOURCES_EXCEEDED, why) if over else (state, ())
        case Failed():
            return _stop(state, PART_STOPS.get(event.part, StopCode.STOP_HOST_FAILED), f"{event.part}: {event.detail}")
        case OperatorStopped():
            stopped = replace(state, incident=event.incident)
            return _stop(stopped, StopCode.STOP_OPERATOR, f"{event.who}: {event.why}")
        case Recovered():
            return _recovered(state, event)
        case Reopened():
            return _reopened(state, event, at_ms)
        case Amended():
            return _in_force(state, _amended(state, event))
        case StopDecided():  # its cause could not be written: a disk that was full for everything else
            return replace(state, phase=Phase.STOPPING, stop_code=event.code, stop_hash=event.ref), ()
        case StopStep():  # the same, and the supervisor died before the stop event
            return _stop(state, StopCode.STOP_HOST_FAILED, "a stop had begun whose cause could not be written")
        case Reauthorized() | Tick() | Finished():
            return state, ()
    assert_never(event)


def _accepted(state: State, event: Accepted, at_ms: int) -> Step:
    if state.phase is not Phase.NEW:
        return state, ()
    fresh = replace(
        state,
        phase=Phase.PREFLIGHT,
        limits=event.limits,
        profile=event.profile,
        required_judges=event.required_judges,
        conduct=event.conduct,
        started_ms=at_ms,
    )
    return fresh, (RunPreflight(),)


def _preflight(state: State, event: PreflightFinished) -> Step:
    if state.phase is not Phase.PREFLIGHT:
        return state, ()
    if not event.ok:
        return _stop(state, StopCode.STOP_PREFLIGHT_FAILED, "; ".join(event.reasons) or "no reason given")
    if over := _over(state):  # a leg that people opened without raising what is used up
        return _stop(state, *over)
    return _start(state, 1)


def _counted(state: State, event: Usage) -> State:
    return replace(
        state,
        iteration_turns=state.iteration_turns + 1,
        spent_micro_usd=max(state.spent_micro_usd, event.spent_micro_usd),  # a late total takes nothing back
        tokens=state.tokens + event.input_tokens + event.output_tokens,
        tool_calls=state.tool_calls + event.tool_calls,
    )


def _usage(state: State, event: Usage, at_ms: int) -> Step:
    after, effects = _spent(_counted(state, event), at_ms)
    if after.phase is Phase.STOPPING:
        return after, effects
    turns = after.limits.turns
    if after.iteration_turns >= turns and state.phase is Phase.WORKING and not state.halted:
        return replace(after, halted=True), (*effects, HaltAgent(f"{turns} model turns in one iteration"))
    return after, effects


def _over(state: State) -> tuple[StopCode, str] | None:
    """The limit that the counters are beyond, whether they rose or it was lowered (E2, E4, E5, E9, N6)."""
    limits = state.limits
    if state.recoveries > limits.restarts:
        why = f"supervisor: it died {state.recoveries} times, {limits.restarts} restarts are allowed"
        return StopCode.STOP_HOST_FAILED, why
    if state.tool_calls > limits.tool_calls:
        return StopCode.STOP_TOOL_CALLS_EXCEEDED, f"{state.tool_calls} tool calls, {limits.tool_calls} allowed"
    if state.spent_micro_usd >= limits.budget_micro_usd:
        return StopCode.STOP_BUDGET_EXCEEDED, "the budget is spent"
    if state.tokens >= limits.tokens:
        return StopCode.STOP_BUDGET_EXCEEDED, f"{state.tokens} tokens, {limits.tokens} allowed"
    if state.denials > limits.denials:
        return StopCode.STOP_UNAUTHORIZED_ACCESS, f"{state.denials} denials, {limits.denials} allowed"
    if state.n > limits.iterations:
        return StopCode.STOP_ITERATIONS_EXCEEDED, f"iteration {state.n}, {limits.iterations} are allowed"
    return None  # progress is a matter of an iteration's end: _onward


def _spent(state: State, at_ms: int) -> Step:
    """What the counters lead to: a stop, a question to a person, slowing down, in this order (E2, E4, E9, G8)."""
    if over := _over(state):
        return _stop(state, *over)
    limits, conduct = state.limits, state.conduct
    effects: list[Effect] = []
    if (
        conduct.escalate_at_percent
        and state.escalated_version < state.version
        and state.spent_micro_usd * PERCENT >= limits.budget_micro_usd * conduct.escalate_at_percent
    ):
        until = at_ms + conduct.escalate_wait_ms
        state = replace(state, escalated_version=state.version, escalated_until_ms=until)
        why = f"{state.spent_micro_usd} of {limits.budget_micro_usd} micro-dollars are spent"
        effects.append(Escalate(why, until))
    after, slower = _slower(state)
    return after, (*effects, *slower)


def _pressed(state: State) -> bool:
    limits, conduct = state.limits, state.conduct
    used = (
        (state.tool_calls, limits.tool_calls),
        (state.spent_micro_usd, limits.budget_micro_usd),
        (state.tokens, limits.tokens),
        (state.denials, limits.denials),
    )
    share = conduct.slow_at_percent
    return share > 0 and any(now * PERCENT >= most * share for now, most in used)


def _slower(state: State) -> Step:
    if state.slowed or not _pressed(state):
        return state, ()
    return replace(state, slowed=True), (SlowDown(state.conduct.slow_interval_ms, state.conduct.slow_cpu_percent),)


def _amended(state: State, event: Amended) -> State:
    """The next version of the limits, and no other: a replayed or skipped one changes nothing."""
    if state.phase is Phase.NEW or event.version != state.version + 1:
        return state
    return replace(state, version=event.version, limits=event.limits, escalated_until_ms=0, slowed=False)


def _in_force(state: State, amended: State) -> Step:
    """The amended limits hold at once: one below what is used stops, one with room again lifts the slow-down (E9)."""
    if amended.version == state.version:
        return state, ()
    if over := _over(amended):
        return _stop(amended, *over)
    lifted = (SlowDown(0, PERCENT),) if state.slowed and not _pressed(amended) else ()
    return amended, (ApplyLimits(amended.limits, unpause=state.escalated_until_ms > 0), *lifted)


def _recovered(state: State, event: Recovered) -> Step:
    """Go on after the supervisor's death, as often as the limits allow; what was spent meanwhile counts (E16)."""
    if state.phase is Phase.NEW:
        return state, ()
    after = replace(
        state,
        recoveries=state.recoveries + 1,
        spent_micro_usd=max(state.spent_micro_usd, event.spent_micro_usd),
        tokens=max(state.tokens, event.tokens),
        tool_calls=max(state.tool_calls, event.tool_calls),
        slowed=False,  # a new gateway and a new jail know nothing of it
        halted=state.halted or state.phase is Phase.WORKING,  # its agent died with it, and not by itself
    )
    if state.conduct.recovery != "continue":
        return _stop(after, StopCode.STOP_HOST_FAILED, "supervisor: it died, and policy does not let a run go on")
    if over := _over(after):
        return _stop(after, *over)
    if state.phase is Phase.PREFLIGHT:
        return after, (RunPreflight(),)
    after = replace(after, phase=Phase.REOPENING, resume_at=GOES_ON.get(state.phase, state.resume_at))
    # A leg that people opened begins at the checkpoint, also where its supervisor died before it was there.
    return after, (Reopen(state.checkpoint, restore=state.restore),)


def _reopened(state: State, event: Reopened, at_ms: int) -> Step:
    if state.phase is not Phase.REOPENING:
        return state, ()
    if not event.ok:
        return _stop(state, StopCode.STOP_HOST_FAILED, "; ".join(event.reasons) or "no reason given")
    # Slowing down and asking have waited for the gateway that they are about.
    after, effects = _spent(replace(state, restore=False), at_ms)
    if after.phase is Phase.STOPPING:
        return after, effects
    if state.resume_at is Phase.SNAPSHOT:
        return replace(after, phase=Phase.SNAPSHOT), (*effects, TakeSnapshot(state.n))
    if state.resume_at is Phase.COMMITTING:
        return replace(after, phase=Phase.COMMITTING), (*effects, Commit(state.n, state.tree))
    after, start = _start(after, state.n)
    return after, (*effects, *start)


def _refused(state: State, event: ModelRefused) -> Step:
    if event.cap == "turns":
        if state.phase is not Phase.WORKING or state.halted:
            return state, ()
        return replace(state, halted=True), (HaltAgent(event.reason),)
    if event.cap == "lease" or event.reason in OUR_WAIT:
        return state, ()
    if event.cap == "tool_calls":
        return _stop(state, StopCode.STOP_TOOL_CALLS_EXCEEDED, event.reason)
    if event.cap and event.cap not in NOT_SPENT:
        return _stop(state, StopCode.STOP_BUDGET_EXCEEDED, f"the {event.cap} cap: {event.reason}")
    return _count_denial(state, f"request refused: {event.reason}")


def _denial(state: State, event: Denial) -> Step:
    if event.sensitive or state.profile == "strict":
        return _stop(state, StopCode.STOP_UNAUTHORIZED_ACCESS, f"{event.what}: {event.detail}")
    return _count_denial(state, f"{event.what}: {event.detail}")


def _count_denial(state: State, last: str) -> Step:
    after = replace(state, denials=state.denials + 1)
    if after.denials > state.limits.denials:
        return _stop(after, StopCode.STOP_UNAUTHORIZED_ACCESS, f"{after.denials} denials, the last: {last}")
    return _slower(after)


def _exited(state: State, event: JailExited) -> Step:
    if state.phase is not Phase.WORKING or event.role != "coder" or event.n != state.n:
        return state, ()
    if event.reason == "memory":
        return _stop(state, StopCode.STOP_RESOURCES_EXCEEDED, "the agent's processes went over the memory ceiling")
    if event.reason == "failed":
        return _stop(state, StopCode.STOP_AGENT_FAILED, "the agent could not be started")
    return replace(state, phase=Phase.SNAPSHOT), (TakeSnapshot(state.n),)


def _snapshot(state: State, event: SnapshotTaken) -> Step:
    if state.phase is not Phase.SNAPSHOT or event.n != state.n:
        return state, ()
    if not event.complete:
        return _stop(state, StopCode.STOP_SCOPE_EXCEEDED, f"the workspace cannot be judged: {event.why}")
    if event.changed > state.limits.file_changes:
        why = f"{event.changed} files changed, {state.limits.file_changes} allowed"
        return _stop(state, StopCode.STOP_FILES_EXCEEDED, why)
    if event.iteration_changed > state.limits.iteration_file_changes:
        allowed = state.limits.iteration_file_changes
        why = f"{event.iteration_changed} files changed in one iteration, {allowed} allowed"
        return _stop(state, StopCode.STOP_FILES_EXCEEDED, why)
    return replace(state, phase=Phase.JUDGING, tree=event.tree, verdicts={}), (Judge(state.n, event.tree),)


def _judged(state: State, event: Judged) -> Step:
    if state.phase is not Phase.JUDGING:
        return state, ()
    for prefix, code in RULE_STOPS:
        hit = next((rule for rule in event.rules if rule.startswith(prefix)), None)
        if hit:
            return _stop(state, code, f"{event.judge}: {event.summary} ({hit})")
    if event.rules:  # critical or high, whatever the judge could not finish beside it
        return _stop(state, StopCode.STOP_SECURITY_VIOLATION, f"{event.judge}: {event.summary}")
    return replace(state, verdicts={**state.verdicts, event.judge: event.outcome}), ()


def _iteration(state: State, event: IterationFinished) -> Step:
    if state.phase is not Phase.JUDGING or event.n != state.n:
        return state, ()
    if not event.changed and state.iteration_turns == 0 and not state.halted:
        return _stop(state, StopCode.STOP_AGENT_FAILED, "the agent ended without asking its model anything")
    if silent := [judge for judge in state.required_judges if judge not in state.verdicts]:
        return _stop(state, StopCode.STOP_HOST_FAILED, f"judges that said nothing: {', '.join(silent)}")
    passed = all(state.verdicts.get(judge) == Outcome.PASS for judge in state.required_judges)
    after = replace(
        state,
        phase=Phase.COMMITTING,
        without_progress=0 if event.progress else state.without_progress + 1,
        acceptance_failing=event.acceptance_failing,
        safe=_safe(state, event),
        done=passed and event.acceptance_failing == 0,
    )
    return (after, (Commit(event.n, state.tree),)) if event.changed else _onward(after)


def _safe(state: State, event: IterationFinished) -> bool:
    """No judge objects: the goal may still be open, but nothing that worked before is broken (E13)."""
    said = {judge: state.verdicts.get(judge) for judge in state.required_judges}
    open_goal = said.get("tests") == Outcome.FAIL and event.regressions == 0
    return all(said[judge] == Outcome.PASS or (judge == "tests" and open_goal) for judge in said)


def _onward(state: State) -> Step:
    if state.done:
        return _stop(state, StopCode.DONE, "every acceptance test passes and no judge objects")
    if state.without_progress >= state.limits.no_progress:
        why = f"{state.without_progress} iterations without a test gained"
        return _stop(state, StopCode.STOP_NO_PROGRESS, why)
    if state.n >= state.limits.iterations:
        return _stop(state, StopCode.STOP_ITERATIONS_EXCEEDED, f"{state.n} iterations, tests still fail")
    return _start(state, state.n + 1)


def _start(state: State, n: int) -> Step:
    return replace(state, phase=Phase.STARTING, n=n), (StartIteration(n),)


def _stop(state: State, code: StopCode, why: str) -> Step:
    disposal = Disposal.QUARANTINE if state.incident else state.conduct.disposal(code)
    sequence = stop_sequence(code, why or MEANING[code][1], disposal, state.checkpoint)
    return replace(state, phase=Phase.STOPPING), sequence
