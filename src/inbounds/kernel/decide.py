"""decide(state, event) -> (state, effects): the only place where a stop rule lives (E9, ARCHITECTURE step 8).

Pure and total: no clock, file, socket or randomness; an event that makes no sense in a phase changes nothing. Standard
library only.
"""

from dataclasses import replace
from typing import assert_never

from inbounds.contracts.reasons import MEANING, StopCode
from inbounds.contracts.verdict import Outcome
from inbounds.kernel.effects import (
    Commit,
    Effect,
    HaltAgent,
    Judge,
    RecordStop,
    RunPreflight,
    StartIteration,
    TakeSnapshot,
    stop_sequence,
)
from inbounds.kernel.events import (
    Accepted,
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
    SnapshotTaken,
    StopStep,
    Tick,
    Usage,
)
from inbounds.kernel.state import Phase, State

# Caps on one request or on time: refusing that request is the whole answer, and it counts as a denial.
NOT_SPENT = frozenset({"request", "busy"})

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
)
PART_STOPS = {
    "gateway": StopCode.STOP_GATEWAY_FAILED,
    "agent": StopCode.STOP_AGENT_FAILED,
    "contract": StopCode.STOP_TAMPERING,
    "preflight": StopCode.STOP_PREFLIGHT_FAILED,
}


def decide(state: State, event: Event, at_ms: int) -> Step:
    """The next state and what to do, in order; `at_ms` is when the event was recorded."""
    if state.phase is Phase.FINISHED:
        return state, ()
    if state.phase is Phase.STOPPING:
        return (replace(state, phase=Phase.FINISHED), ()) if isinstance(event, Finished) else (state, ())
    after, effects = _running(state, event, at_ms)
    late = state.phase is not Phase.NEW and at_ms - state.started_ms >= state.limits.wall_clock_ms
    # A late event that stops the run by itself (a decoy opened, a dead supervisor) names the more telling cause.
    if late and not any(isinstance(e, RecordStop) and e.code is not StopCode.DONE for e in effects):
        return _stop(after, StopCode.STOP_RUNTIME_EXCEEDED, "the wall-clock limit passed")
    return after, effects


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
            return _usage(state, event)
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
            return _onward(state) if state.phase is Phase.COMMITTING else (state, ())
        case Polled():
            over = event.bytes > state.limits.disk_bytes or event.inodes > state.limits.inodes
            why = f"the workspace holds {event.bytes} bytes in {event.inodes} files"
            return _stop(state, StopCode.STOP_RESOURCES_EXCEEDED, why) if over else (state, ())
        case Failed():
            return _stop(state, PART_STOPS.get(event.part, StopCode.STOP_HOST_FAILED), f"{event.part}: {event.detail}")
        case OperatorStopped():
            return _stop(state, StopCode.STOP_OPERATOR, f"{event.who}: {event.why}")
        case Tick() | StopStep() | Finished():
            return state, ()
    assert_never(event)


def _accepted(state: State, event: Accepted, at_ms: int) -> Step:
    if state.phase is not Phase.NEW:
        return state, ()
    fresh = State(
        phase=Phase.PREFLIGHT,
        limits=event.limits,
        profile=event.profile,
        required_judges=event.required_judges,
        started_ms=at_ms,
    )
    return fresh, (RunPreflight(),)


def _preflight(state: State, event: PreflightFinished) -> Step:
    if state.phase is not Phase.PREFLIGHT:
        return state, ()
    if not event.ok:
        return _stop(state, StopCode.STOP_PREFLIGHT_FAILED, "; ".join(event.reasons) or "no reason given")
    return _start(state, 1)


def _usage(state: State, event: Usage) -> Step:
    after = replace(
        state,
        iteration_turns=state.iteration_turns + 1,
        spent_micro_usd=event.spent_micro_usd,
        tokens=state.tokens + event.input_tokens + event.output_tokens,
        tool_calls=state.tool_calls + event.tool_calls,
    )
    limits = state.limits
    if after.tool_calls > limits.tool_calls:
        why = f"{after.tool_calls} tool calls, {limits.tool_calls} allowed"
        return _stop(after, StopCode.STOP_TOOL_CALLS_EXCEEDED, why)
    if after.spent_micro_usd >= limits.budget_micro_usd:
        return _stop(after, StopCode.STOP_BUDGET_EXCEEDED, "the budget is spent")
    if after.tokens >= limits.tokens:
        return _stop(after, StopCode.STOP_BUDGET_EXCEEDED, f"{after.tokens} tokens, {limits.tokens} allowed")
    if after.iteration_turns >= limits.turns and state.phase is Phase.WORKING and not state.halted:
        return replace(after, halted=True), (HaltAgent(f"{limits.turns} model turns in one iteration"),)
    return after, ()


def _refused(state: State, event: ModelRefused) -> Step:
    if event.cap == "turns":
        if state.phase is not Phase.WORKING or state.halted:
            return state, ()
        return replace(state, halted=True), (HaltAgent(event.reason),)
    if event.cap == "lease":
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
    return after, ()


def _exited(state: State, event: JailExited) -> Step:
    if state.phase is not Phase.WORKING or event.role != "coder":
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
    return replace(state, phase=Phase.JUDGING, tree=event.tree), (Judge(state.n, event.tree),)


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
    if not event.changed and state.iteration_turns == 0:
        return _stop(state, StopCode.STOP_AGENT_FAILED, "the agent ended without asking its model anything")
    passed = all(state.verdicts.get(judge) == Outcome.PASS for judge in state.required_judges)
    after = replace(
        state,
        phase=Phase.COMMITTING,
        without_progress=0 if event.progress else state.without_progress + 1,
        acceptance_failing=event.acceptance_failing,
        done=passed and event.acceptance_failing == 0,
    )
    return (after, (Commit(event.n, state.tree),)) if event.changed else _onward(after)


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
    return replace(state, phase=Phase.STOPPING), stop_sequence(code, why, MEANING[code][0])
