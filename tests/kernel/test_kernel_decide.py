"""The kernel's rules as properties: total, deterministic, one way to stop, and no way past a limit."""

import random
import statistics
import time
from dataclasses import replace

import pytest
from histories import (
    ACCEPTED,
    PASSED,
    SMALL,
    START_MS,
    TO_JUDGING,
    TO_WORKING,
    WAYS,
    drive,
    events,
    mild,
    of,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inbounds.contracts.reasons import MEANING, Disposal, StopCode
from inbounds.kernel import effects as fx
from inbounds.kernel.decide import decide
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
    Tick,
    Usage,
)
from inbounds.kernel.state import Phase, State

SEQUENCE = (fx.CloseDoors, fx.Freeze, fx.RecordStop, fx.Persist, fx.Kill, fx.Dispose, fx.Finish)


def code_of(effects: list[fx.Effect] | tuple[fx.Effect, ...]) -> StopCode | None:
    return next((effect.code for effect in effects if isinstance(effect, fx.RecordStop)), None)


def usage(spent: int = 0, tokens: int = 1, calls: int = 0) -> Usage:
    return Usage(spent_micro_usd=spent, input_tokens=tokens, output_tokens=0, tool_calls=calls)


def a_round(n: int, *, progress: bool, passing: bool = False) -> list[Event]:
    """One honest iteration after its start was asked for."""
    tests = "PASS" if passing else "FAIL"
    return [
        IterationStarted(n),
        usage(),
        JailExited("coder", "exited"),
        SnapshotTaken(n, f"tree{n}", 1, complete=True, why=""),
        Judged("scope", "PASS", "", ()),
        Judged("tests", tests, "", ()),
        IterationFinished(n, f"tree{n}", True, progress, 0 if passing else 1, 0 if passing else 1),
        CommitMade(n, "c"),
    ]


@pytest.mark.parametrize("phase", list(Phase))
@given(event=events, at=st.integers(0, 3 * 10**12))
def test_every_event_in_every_phase_has_an_answer(phase: Phase, event: Event, at: int) -> None:
    state, _ = drive(WAYS[phase])
    assert state.phase is phase
    after, effects = decide(state, event, at)
    assert isinstance(after, State)
    again, same = decide(state, event, at)
    assert (after, effects) == (again, same)
    if phase in (Phase.STOPPING, Phase.FINISHED):
        assert effects == ()
        assert after.phase in (Phase.STOPPING, Phase.FINISHED)


# From somewhere real, then anything: pure noise would rarely leave the first phases.
histories = st.builds(
    lambda way, noise: [*way, *noise],
    st.sampled_from(list(WAYS.values())),
    st.lists(st.one_of(mild, events), max_size=40),
)


@given(histories)
def test_any_history_keeps_its_invariants(history: list[Event]) -> None:
    state, stops, starts, judged = State(), 0, 0, ""
    for at, event in enumerate(history):
        was = state
        state, effects = decide(state, event, START_MS + at)
        if code_of(effects):
            stops += 1
            assert tuple(type(effect) for effect in effects) == SEQUENCE
            assert state.phase is Phase.STOPPING
        elif state.phase is Phase.STOPPING:
            assert was.phase is Phase.STOPPING
        for effect in effects:
            starts += isinstance(effect, fx.StartIteration)
            if isinstance(effect, fx.Judge):
                judged = effect.tree
            if isinstance(effect, fx.Commit):
                assert effect.tree == judged  # what was judged is what is committed
        if state.phase not in (Phase.NEW, Phase.STOPPING, Phase.FINISHED):
            assert state.spent_micro_usd < state.limits.budget_micro_usd
            assert state.tool_calls <= state.limits.tool_calls
            assert state.tokens < state.limits.tokens
            assert state.denials <= state.limits.denials
            assert state.n <= state.limits.iterations
    assert stops <= 1
    assert starts <= SMALL.iterations


@given(histories)
@pytest.mark.req("H15")
def test_a_journal_replays_to_the_same_state(history: list[Event]) -> None:
    assert drive(history) == drive(list(history))


@given(st.lists(of(Judged), max_size=6), st.integers(0, 2), st.booleans(), st.lists(mild, max_size=10))
def test_done_needs_every_required_judge_and_every_acceptance_test(
    spoken: list[Event], missing: int, changed: bool, noise: list[Event]
) -> None:
    end = [IterationFinished(1, "tree1", changed, True, missing, missing), CommitMade(1, "c")]
    state, verdicts, failing = State(), {}, -1
    for at, event in enumerate([*TO_JUDGING, *spoken, *end, *noise]):
        if isinstance(event, IterationStarted) and state.phase is Phase.STARTING and event.n == state.n:
            verdicts = {}
        if isinstance(event, Judged) and state.phase is Phase.JUDGING:
            verdicts[event.judge] = event.outcome
        if isinstance(event, IterationFinished) and state.phase is Phase.JUDGING and event.n == state.n:
            failing = event.acceptance_failing
        state, effects = decide(state, event, START_MS + at)
        if code_of(effects) is StopCode.DONE:
            assert verdicts.get("scope") == verdicts.get("tests") == "PASS"
            assert failing == 0


@pytest.mark.parametrize("judge", ["scope", "tests"])
@pytest.mark.parametrize("outcome", ["INCONCLUSIVE", "FAIL", None])
def test_inconclusive_never_opens_the_gate(judge: str, outcome: str | None) -> None:
    other = "tests" if judge == "scope" else "scope"
    spoken = [Judged(other, "PASS", "", ())] + ([Judged(judge, outcome, "", ())] if outcome else [])
    state, effects = drive([*TO_JUDGING, *spoken, IterationFinished(1, "tree1", True, True, 0, 0), CommitMade(1, "c")])
    assert code_of(effects) is None
    assert state.phase is Phase.STARTING
    # the positive control: with both PASS the same history is done
    _, effects = drive([*TO_JUDGING, *PASSED, IterationFinished(1, "tree1", True, True, 0, 0), CommitMade(1, "c")])
    assert code_of(effects) is StopCode.DONE


def test_passing_judges_do_not_make_up_for_a_failing_acceptance_test() -> None:
    end = IterationFinished(1, "tree1", True, True, acceptance_failing=1, failing_after=1)
    state, effects = drive([*TO_JUDGING, *PASSED, end, CommitMade(1, "c")])
    assert code_of(effects) is None
    assert state.phase is Phase.STARTING


def test_what_was_judged_is_committed_whatever_the_last_record_names() -> None:
    _, effects = drive([*TO_JUDGING, *PASSED, IterationFinished(1, "another", True, True, 0, 0)])
    assert effects[-1] == fx.Commit(1, "tree1")


@pytest.mark.parametrize("n", [-1, 0, 2, 7])
def test_an_iteration_begins_only_as_the_one_that_was_asked_for(n: int) -> None:
    state, _ = drive(TO_WORKING[:2])
    assert drive([IterationStarted(n)], state) == (state, [])
    assert drive([IterationStarted(1)], state)[0].phase is Phase.WORKING


STOPS: dict[StopCode, tuple[Event, ...]] = {
    StopCode.DONE: (*TO_JUDGING, *PASSED, IterationFinished(1, "tree1", True, True, 0, 0), CommitMade(1, "c")),
    StopCode.STOP_SECURITY_VIOLATION: (*TO_JUDGING, Judged("security", "FAIL", "", ("bandit.B602",))),
    StopCode.STOP_SECRET_EXPOSURE: (*TO_JUDGING, Judged("security", "FAIL", "", ("secrets.aws",))),
    StopCode.STOP_UNAUTHORIZED_ACCESS: (*TO_WORKING, Denial("decoy", ".aws/credentials", sensitive=True)),
    StopCode.STOP_BUDGET_EXCEEDED: (*TO_WORKING, ModelRefused("would not fit", "run")),
    StopCode.STOP_NO_PROGRESS: (*TO_WORKING[:2], *(e for n in (1, 2, 3) for e in a_round(n, progress=False))),
    StopCode.STOP_RUNTIME_EXCEEDED: (*TO_WORKING, Tick()),
    StopCode.STOP_SCOPE_EXCEEDED: (*TO_JUDGING, Judged("scope", "FAIL", "", ("scope.undeclared",))),
    StopCode.STOP_FILES_EXCEEDED: (*TO_JUDGING[:4], SnapshotTaken(1, "t", 11, complete=True, why="")),
    StopCode.STOP_TOOL_CALLS_EXCEEDED: (*TO_WORKING, usage(calls=21)),
    StopCode.STOP_ITERATIONS_EXCEEDED: (*TO_WORKING[:2], *(e for n in range(1, 5) for e in a_round(n, progress=True))),
    StopCode.STOP_RESOURCES_EXCEEDED: (*TO_WORKING, Polled(SMALL.disk_bytes + 1, 0)),
    StopCode.STOP_TESTS_WEAKENED: (*TO_JUDGING, Judged("scope", "FAIL", "", ("scope.acceptance_test",))),
    StopCode.STOP_TAMPERING: (*TO_WORKING, Failed("contract", "policy.yaml")),
    StopCode.STOP_PREFLIGHT_FAILED: (ACCEPTED, PreflightFinished(ok=False, reasons=("no Landlock",), failing=0)),
    StopCode.STOP_HOST_FAILED: (*TO_WORKING, Failed("supervisor", "died")),
    StopCode.STOP_GATEWAY_FAILED: (*TO_WORKING, Failed("gateway", "died")),
    StopCode.STOP_AGENT_FAILED: (*TO_WORKING, JailExited("coder", "failed")),
    StopCode.STOP_OPERATOR: (*TO_WORKING, OperatorStopped("ana", "lunch")),
}


@pytest.mark.parametrize("code", list(StopCode))
@pytest.mark.req("E15")
def test_every_stop_code_is_reached_and_ends_by_the_same_sequence(code: StopCode) -> None:
    step = SMALL.wall_clock_ms // 2 if code is StopCode.STOP_RUNTIME_EXCEEDED else 1
    state, effects = drive(STOPS[code], step_ms=step)
    stop = effects[-len(SEQUENCE) :]
    assert tuple(type(effect) for effect in stop) == SEQUENCE
    disposal = MEANING[code][0]
    assert stop == list(fx.stop_sequence(code, next(e.why for e in stop if isinstance(e, fx.RecordStop)), disposal))
    assert stop[2].why  # type: ignore[union-attr] # RecordStop by the sequence above
    assert state.phase is Phase.STOPPING
    assert (disposal is Disposal.KEEP) == (code is StopCode.DONE)


def test_the_stop_sequence_is_the_prescribed_one() -> None:
    assert [type(e).__name__ for e in fx.stop_sequence(StopCode.DONE, "", Disposal.KEEP)] == [
        "CloseDoors",
        "Freeze",
        "RecordStop",
        "Persist",
        "Kill",
        "Dispose",
        "Finish",
    ]


@pytest.mark.parametrize("phase", [p for p in Phase if p not in (Phase.STOPPING, Phase.FINISHED)])
@pytest.mark.parametrize("cause", [Failed("gateway", "x"), OperatorStopped("a", "b")])
def test_a_fault_or_a_person_stops_in_every_phase(phase: Phase, cause: Event) -> None:
    state, _ = drive(WAYS[phase])
    after, effects = decide(state, cause, START_MS + 20)
    assert after.phase is Phase.STOPPING
    assert tuple(type(effect) for effect in effects) == SEQUENCE


@given(st.integers(0, 10_000_000))
@example(SMALL.budget_micro_usd - 1)
@example(SMALL.budget_micro_usd)
def test_spend_at_or_above_the_budget_stops(spent: int) -> None:
    state, effects = drive([*TO_WORKING, usage(spent=spent)])
    if spent >= SMALL.budget_micro_usd:
        assert code_of(effects) is StopCode.STOP_BUDGET_EXCEEDED
    else:
        assert state.phase is Phase.WORKING
        assert code_of(effects) is None


@pytest.mark.parametrize("cap", ["run", "month", "thread_month", "organization"])
def test_a_spent_cap_at_the_gateway_stops(cap: str) -> None:
    assert code_of(drive([*TO_WORKING, ModelRefused("full", cap)])[1]) is StopCode.STOP_BUDGET_EXCEEDED


@pytest.mark.parametrize("cap", ["request", "busy", ""])
def test_one_refused_request_is_a_denial_and_no_stop(cap: str) -> None:
    state, effects = drive([*TO_WORKING, ModelRefused("too large", cap)])
    assert (state.phase, state.denials, code_of(effects)) == (Phase.WORKING, 1, None)


@given(st.integers(0, 30), st.integers(0, 30))
@example(SMALL.tool_calls, 0)
@example(SMALL.tool_calls, 1)
@pytest.mark.req("E2")
def test_tool_calls_are_capped(first: int, second: int) -> None:
    _, effects = drive([*TO_WORKING, usage(calls=first), usage(calls=second)])
    over = first + second > SMALL.tool_calls
    assert (code_of(effects) is StopCode.STOP_TOOL_CALLS_EXCEEDED) == over


@given(st.integers(0, 30))
@example(SMALL.file_changes)
@example(SMALL.file_changes + 1)
@pytest.mark.req("E3")
def test_file_changes_are_capped(changed: int) -> None:
    state, effects = drive([*TO_JUDGING[:4], SnapshotTaken(1, "t", changed, complete=True, why="")])
    over = changed > SMALL.file_changes
    assert (code_of(effects) is StopCode.STOP_FILES_EXCEEDED) == over
    assert (state.phase is Phase.JUDGING) != over


def test_a_tree_that_could_not_be_read_whole_is_never_judged() -> None:
    _, effects = drive([*TO_JUDGING[:4], SnapshotTaken(1, "t", 0, complete=False, why="depth")])
    assert code_of(effects) is StopCode.STOP_SCOPE_EXCEEDED
    assert not any(isinstance(effect, fx.Judge) for effect in effects)


@pytest.mark.parametrize("phase", [p for p in Phase if p not in (Phase.NEW, Phase.STOPPING, Phase.FINISHED)])
@given(event=events)
def test_nothing_goes_on_after_the_wall_clock(phase: Phase, event: Event) -> None:
    state, _ = drive(WAYS[phase])
    after, effects = decide(state, event, state.started_ms + SMALL.wall_clock_ms)
    assert after.phase is Phase.STOPPING
    assert tuple(type(effect) for effect in effects) == SEQUENCE
    assert code_of(effects) is not StopCode.DONE


def test_a_late_stop_names_the_more_telling_cause() -> None:
    state, _ = drive(TO_WORKING)
    late = state.started_ms + SMALL.wall_clock_ms
    decoy, dead = Denial("decoy", "", sensitive=True), Failed("supervisor", "")
    assert code_of(decide(state, decoy, late)[1]) is StopCode.STOP_UNAUTHORIZED_ACCESS
    assert code_of(decide(state, dead, late)[1]) is StopCode.STOP_HOST_FAILED
    assert code_of(decide(state, Tick(), late)[1]) is StopCode.STOP_RUNTIME_EXCEEDED
    assert decide(state, Tick(), late - 1) == (state, ())


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(1, 5))
@pytest.mark.req("M7", "E6")
def test_iterations_without_progress_end_the_run(progress: list[bool], cap: int) -> None:
    limits = replace(SMALL, iterations=100, no_progress=cap)
    state, _ = drive([Accepted(limits, "standard", ("scope", "tests")), TO_WORKING[1]])
    streak, ended = 0, False
    for n, gained in enumerate(progress, 1):
        state, made = drive(a_round(n, progress=gained), state)
        streak = 0 if gained else streak + 1
        ended = ended or streak >= cap
        if ended:
            assert state.phase is Phase.STOPPING
            assert code_of(made) is StopCode.STOP_NO_PROGRESS or code_of(made) is None
        else:
            assert state.phase is Phase.STARTING
            assert fx.StartIteration(n + 1) in made


@given(st.integers(1, 12))
@pytest.mark.req("E5")
def test_iterations_are_capped(cap: int) -> None:
    limits = replace(SMALL, iterations=cap)
    state, _ = drive([Accepted(limits, "standard", ("scope", "tests")), TO_WORKING[1]])
    for n in range(1, cap + 1):
        assert state.phase is Phase.STARTING
        state, made = drive(a_round(n, progress=True), state)
    assert code_of(made) is StopCode.STOP_ITERATIONS_EXCEEDED


@pytest.mark.req("E5")
def test_model_turns_of_one_iteration_halt_the_agent_once() -> None:
    state, effects = drive([*TO_WORKING, *[usage() for _ in range(SMALL.turns + 3)]])
    assert [type(e) for e in effects[-1:]] == [fx.HaltAgent]
    assert sum(isinstance(e, fx.HaltAgent) for e in effects) == 1
    assert state.phase is Phase.WORKING  # what stands is judged
    state, effects = drive([JailExited("coder", "killed")], state)
    assert effects == [fx.TakeSnapshot(1)]


@pytest.mark.parametrize("repeats", range(1, 6))
def test_denials_are_counted_in_the_standard_profile(repeats: int) -> None:
    _, effects = drive([*TO_WORKING, *[Denial("name", "example.com", sensitive=False)] * repeats])
    assert (code_of(effects) is StopCode.STOP_UNAUTHORIZED_ACCESS) == (repeats > SMALL.denials)


@pytest.mark.req("N6")
def test_the_first_denial_stops_in_the_strict_profile() -> None:
    strict = Accepted(SMALL, "strict", ("scope", "tests"))
    _, effects = drive([strict, *TO_WORKING[1:], Denial("name", "example.com", sensitive=False)])
    assert code_of(effects) is StopCode.STOP_UNAUTHORIZED_ACCESS


@pytest.mark.req("N6")
@pytest.mark.parametrize("profile", ["standard", "strict"])
@pytest.mark.parametrize("outcome", ["PASS", "FAIL", "INCONCLUSIVE"])
def test_a_grave_finding_stops_whatever_else_the_judge_says(profile: str, outcome: str) -> None:
    history = [Accepted(SMALL, profile, ()), *TO_JUDGING[1:], Judged("security", outcome, "", ("bandit.B602",))]
    assert code_of(drive(history)[1]) is StopCode.STOP_SECURITY_VIOLATION


def test_an_agent_that_never_asked_its_model_failed() -> None:
    _, effects = drive([*TO_JUDGING, *PASSED, IterationFinished(1, "tree1", False, False, 1, 1)])
    assert code_of(effects) is StopCode.STOP_AGENT_FAILED


def test_nothing_resumes_after_the_end() -> None:
    state, _ = drive(WAYS[Phase.FINISHED])
    again, effects = drive([*TO_WORKING, Finished("DONE")], state)
    assert (again, effects) == (state, [])


def test_a_decision_costs_microseconds() -> None:
    draw = random.Random(7)
    state, _ = drive(TO_WORKING)
    mix = [usage(), Tick(), Denial("name", "x", sensitive=False), JailExited("tester", "exited"), Polled(1, 1)]
    taken = []
    for _ in range(5_000):
        event = draw.choice(mix)
        begin = time.perf_counter_ns()
        decide(state, event, START_MS + 5)
        taken.append(time.perf_counter_ns() - begin)
    assert statistics.median(taken) < 20_000, f"p50 {statistics.median(taken)} ns"


settings.register_profile("kernel", deadline=None)
settings.load_profile("kernel")
