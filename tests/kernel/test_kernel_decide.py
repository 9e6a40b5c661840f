"""The kernel's rules as properties: total, deterministic, one way to stop, and no way past a limit."""

import random
import statistics
import time
from dataclasses import replace

import pytest
from histories import (
    ACCEPTED,
    LIVE,
    OVER,
    PASSED,
    SEQUENCE,
    SMALL,
    START_MS,
    TO_JUDGING,
    TO_WORKING,
    WAYS,
    a_round,
    as_record,
    code_of,
    drive,
    events,
    finished,
    histories,
    mild,
    of,
    snapshot,
    usage,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inbounds.contracts import conduct
from inbounds.contracts.limits import CEILING
from inbounds.contracts.reasons import MEANING, Disposal, StopCode
from inbounds.kernel import effects as fx
from inbounds.kernel.decide import decide
from inbounds.kernel.events import (
    CommitMade,
    Denial,
    Event,
    Failed,
    IterationFinished,
    IterationStarted,
    JailExited,
    Judged,
    ModelRefused,
    OperatorStopped,
    Polled,
    PreflightFinished,
    StopDecided,
    StopStep,
    Tick,
    parse,
)
from inbounds.kernel.state import Phase, State

WORKS = (Phase.STARTING, Phase.WORKING, Phase.SNAPSHOT, Phase.JUDGING, Phase.COMMITTING)
LONG = 200_000  # events: weeks of a busy run
PART = 20_000


@pytest.mark.parametrize("phase", list(Phase))
@given(event=events, at=st.integers(0, 3 * 10**12))
def test_every_event_in_every_phase_has_an_answer(phase: Phase, event: Event, at: int) -> None:
    state, _ = drive(WAYS[phase])
    assert state.phase is phase
    after, effects = decide(state, event, at)
    assert isinstance(after, State)
    again, same = decide(state, event, at)
    assert (after, effects) == (again, same)


class Watched:
    """Looks at every step of a history for what must hold whatever happened; `legs` are the stops, by number."""

    def __init__(self) -> None:
        self.stops = self.opened = 0
        self.judged = ""

    def look(self, was: State, event: Event, now: State, effects: tuple[fx.Effect, ...]) -> None:
        self.stop(was, now, effects)
        self.way_on(was, event, now, effects)
        self.tree(was, event, now, effects)
        assert (now.limits, now.version) == (was.limits, was.version) or type(event).__name__ in ("Accepted", "Amended")
        assert now.tokens >= was.tokens
        assert now.tool_calls >= was.tool_calls
        assert now.spent_micro_usd >= was.spent_micro_usd
        assert now.recoveries >= was.recoveries
        if now.phase in WORKS:
            assert now.spent_micro_usd < now.limits.budget_micro_usd
            assert now.tool_calls <= now.limits.tool_calls
            assert now.tokens < now.limits.tokens
            assert now.denials <= now.limits.denials
            assert now.n <= now.limits.iterations
            assert now.recoveries <= now.limits.restarts

    def stop(self, was: State, now: State, effects: tuple[fx.Effect, ...]) -> None:
        """One sequence, whole, once a leg; nothing is started after it."""
        if code := code_of(effects):
            self.stops += 1
            assert tuple(type(effect) for effect in effects) == SEQUENCE
            assert now.phase is Phase.STOPPING
            assert was.phase not in OVER
            [stop] = [effect for effect in effects if isinstance(effect, fx.RecordStop)]
            [disposed] = [effect for effect in effects if isinstance(effect, fx.Dispose)]
            assert (disposed.disposal, disposed.checkpoint) == (stop.disposal, stop.checkpoint)
            assert stop.checkpoint == now.checkpoint
            assert MEANING[code][0] in (stop.disposal, Disposal.REVERT)  # quarantine and keep are never loosened
            assert stop.why
        elif was.phase in OVER and now.phase in OVER:
            assert effects == ()
        assert self.stops <= self.opened + 1

    def way_on(self, was: State, event: Event, now: State, effects: tuple[fx.Effect, ...]) -> None:
        """What is over goes on by people's word about this very stop, and by nothing else (E14)."""
        if was.phase is Phase.STOPPING:
            assert now.phase in OVER
        if was.phase is not Phase.FINISHED or now.phase is Phase.FINISHED:
            return
        self.opened += 1
        assert type(event).__name__ == "Reauthorized"
        assert was.stop_code not in ("", StopCode.DONE)
        assert event.stop_hash == was.stop_hash != ""  # type: ignore[union-attr] # Reauthorized by the line above
        able = {name for name in event.operators if name in (was.conduct.resume_by or event.operators)}  # type: ignore[union-attr] # as above
        assert len(able) >= (was.conduct.incident_approvals if was.incident else was.conduct.resume_approvals)
        assert effects in ((fx.RunPreflight(),), (fx.Reopen(was.checkpoint, restore=True),))

    def tree(self, was: State, event: Event, now: State, effects: tuple[fx.Effect, ...]) -> None:
        """What was judged is what is committed, and only what was committed and safe is gone back to."""
        for effect in effects:
            if isinstance(effect, fx.Judge):
                self.judged = effect.tree
            if isinstance(effect, fx.Commit):
                assert effect.tree == self.judged
        if now.checkpoint != was.checkpoint:
            assert isinstance(event, CommitMade)
            assert was.phase is Phase.COMMITTING
            assert was.safe
            assert now.checkpoint == was.tree


@example([ModelRefused("", "tool_calls")], [0])
@given(histories, st.lists(st.integers(0, 20_000), min_size=60, max_size=60))
@pytest.mark.req("E9", "E14", "N7")
def test_any_history_keeps_its_invariants(history: list[Event], waits: list[int]) -> None:
    watched, state, at = Watched(), State(), START_MS
    for place, event in enumerate(history):
        was = state
        at += waits[place % len(waits)]
        state, effects = decide(state, event, at)
        watched.look(was, event, state, effects)


def test_the_histories_drawn_reach_further_legs_and_every_phase() -> None:
    """The positive control: what the invariants are about happens in them."""
    seen: set[object] = set()

    @settings(derandomize=True, max_examples=300)
    @given(histories)
    def reach(history: list[Event]) -> None:
        state = State()
        for place, event in enumerate(history):
            was = state
            state, effects = decide(state, event, START_MS + place)
            seen.update([state.phase, *(type(effect) for effect in effects)])
            if was.phase is Phase.FINISHED is not state.phase:
                seen.add("leg")
            if was.version != state.version:
                seen.add("amended")

    reach()
    wanted = {*Phase, "leg", "amended", fx.Reopen, fx.SlowDown, fx.Escalate, fx.HaltAgent, fx.ApplyLimits, fx.Commit}
    assert wanted <= seen, wanted - seen


@given(histories)
@pytest.mark.req("H15")
def test_a_journal_replays_to_the_same_state(history: list[Event]) -> None:
    read = [parse(*as_record(event)) for event in history]
    assert read == history
    assert drive([event for event in read if event]) == drive(history)


@given(st.lists(of(Judged), max_size=6), st.integers(0, 2), st.booleans(), st.lists(mild, max_size=10))
def test_done_needs_every_required_judge_and_every_acceptance_test(
    spoken: list[Event], missing: int, changed: bool, noise: list[Event]
) -> None:
    end: list[Event] = [finished(changed=changed, failing=missing), CommitMade(1, "c")]
    state, failing = State(), -1
    verdicts: dict[str, str] = {}
    history: list[Event] = [*TO_JUDGING, *spoken, *end, *noise]
    for at, event in enumerate(history):
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
@pytest.mark.parametrize("outcome", ["INCONCLUSIVE", "FAIL"])
def test_inconclusive_never_opens_the_gate(judge: str, outcome: str) -> None:
    other = "tests" if judge == "scope" else "scope"
    spoken = [Judged(other, "PASS", "", ()), Judged(judge, outcome, "", ())]
    state, effects = drive([*TO_JUDGING, *spoken, finished(), CommitMade(1, "c")])
    assert code_of(effects) is None
    assert state.phase is Phase.STARTING
    # the positive control: with both PASS the same history is done
    _, effects = drive([*TO_JUDGING, *PASSED, finished(), CommitMade(1, "c")])
    assert code_of(effects) is StopCode.DONE


@pytest.mark.parametrize("judge", ["scope", "tests"])
def test_a_tree_of_which_a_judge_said_nothing_is_not_committed(judge: str) -> None:
    _, effects = drive([*TO_JUDGING, Judged(judge, "PASS", "", ()), finished()])
    assert code_of(effects) is StopCode.STOP_HOST_FAILED
    assert not any(isinstance(effect, fx.Commit) for effect in effects)


def test_passing_judges_do_not_make_up_for_a_failing_acceptance_test() -> None:
    end = finished(failing=1)
    state, effects = drive([*TO_JUDGING, *PASSED, end, CommitMade(1, "c")])
    assert code_of(effects) is None
    assert state.phase is Phase.STARTING


def test_what_was_judged_is_committed_whatever_the_last_record_names() -> None:
    _, effects = drive([*TO_JUDGING, *PASSED, replace(finished(), tree="another")])
    assert effects[-1] == fx.Commit(1, "tree1")


@pytest.mark.parametrize("n", [-1, 0, 2, 7])
def test_an_iteration_begins_only_as_the_one_that_was_asked_for(n: int) -> None:
    state, _ = drive(TO_WORKING[:2])
    assert drive([IterationStarted(n)], state) == (state, [])
    assert drive([IterationStarted(1)], state)[0].phase is Phase.WORKING


STOPS: dict[StopCode, tuple[Event, ...]] = {
    StopCode.DONE: (*TO_JUDGING, *PASSED, finished(), CommitMade(1, "c")),
    StopCode.STOP_SECURITY_VIOLATION: (*TO_JUDGING, Judged("security", "FAIL", "", ("bandit.B602",))),
    StopCode.STOP_SECRET_EXPOSURE: (*TO_JUDGING, Judged("security", "FAIL", "", ("secrets.aws",))),
    StopCode.STOP_UNAUTHORIZED_ACCESS: (*TO_WORKING, Denial("decoy", ".aws/credentials", sensitive=True)),
    StopCode.STOP_BUDGET_EXCEEDED: (*TO_WORKING, ModelRefused("would not fit", "run")),
    StopCode.STOP_NO_PROGRESS: (*TO_WORKING[:2], *(e for n in (1, 2, 3) for e in a_round(n, progress=False))),
    StopCode.STOP_RUNTIME_EXCEEDED: (*TO_WORKING, Tick()),
    StopCode.STOP_SCOPE_EXCEEDED: (*TO_JUDGING, Judged("scope", "FAIL", "", ("scope.undeclared",))),
    StopCode.STOP_FILES_EXCEEDED: (*TO_JUDGING[:4], snapshot(changed=11)),
    StopCode.STOP_TOOL_CALLS_EXCEEDED: (*TO_WORKING, usage(calls=21)),
    StopCode.STOP_ITERATIONS_EXCEEDED: (*TO_WORKING[:2], *(e for n in range(1, 5) for e in a_round(n, progress=True))),
    StopCode.STOP_RESOURCES_EXCEEDED: (*TO_WORKING, Polled(SMALL.disk_bytes + 1, 0)),
    StopCode.STOP_TESTS_WEAKENED: (*TO_JUDGING, Judged("scope", "FAIL", "", ("scope.acceptance_test",))),
    StopCode.STOP_TAMPERING: (*TO_WORKING, Failed("contract", "policy.yaml")),
    StopCode.STOP_PREFLIGHT_FAILED: (ACCEPTED, PreflightFinished(ok=False, reasons=("no Landlock",), failing=0)),
    StopCode.STOP_HOST_FAILED: (*TO_WORKING, Failed("supervisor", "died")),
    StopCode.STOP_GATEWAY_FAILED: (*TO_WORKING, Failed("gateway", "died")),
    StopCode.STOP_AGENT_FAILED: (*TO_WORKING, JailExited("coder", "failed", 1)),
    StopCode.STOP_OPERATOR: (*TO_WORKING, OperatorStopped("ana", "lunch", incident=False)),
    StopCode.STOP_COVERAGE_REGRESSED: (*TO_JUDGING, Judged("coverage", "FAIL", "", ("coverage.total",))),
    StopCode.STOP_ANOMALY: (*TO_JUDGING, Judged("anomalies", "FAIL", "", ("anomaly.binary",))),
    StopCode.STOP_ESCALATION_UNANSWERED: (
        replace(ACCEPTED, conduct=replace(conduct.DEFAULT, escalate_at_percent=50, escalate_wait_ms=2)),
        *TO_WORKING[1:],
        usage(spent=SMALL.budget_micro_usd // 2),
        Tick(),
        Tick(),
    ),
}
assert set(STOPS) == set(StopCode)


@pytest.mark.parametrize("code", list(StopCode))
@pytest.mark.req("E15")
def test_every_stop_code_is_reached_and_ends_by_the_same_sequence(code: StopCode) -> None:
    step = SMALL.wall_clock_ms // 2 if code is StopCode.STOP_RUNTIME_EXCEEDED else 1
    state, effects = drive(STOPS[code], step_ms=step)
    stop = effects[-len(SEQUENCE) :]
    assert tuple(type(effect) for effect in stop) == SEQUENCE
    disposal = MEANING[code][0]
    recorded = next(effect for effect in stop if isinstance(effect, fx.RecordStop))
    assert recorded.code is code
    assert recorded.why
    assert stop == list(fx.stop_sequence(code, recorded.why, disposal, state.checkpoint))
    assert state.phase is Phase.STOPPING
    assert (disposal is Disposal.KEEP) == (code is StopCode.DONE)


def test_the_stop_sequence_is_the_prescribed_one() -> None:
    assert [type(e).__name__ for e in fx.stop_sequence(StopCode.DONE, "", Disposal.KEEP, "")] == [
        "CloseDoors",
        "Freeze",
        "RecordStop",
        "Persist",
        "Kill",
        "Dispose",
        "Finish",
    ]


@pytest.mark.parametrize("phase", LIVE)
@pytest.mark.parametrize("cause", [Failed("gateway", "x"), OperatorStopped("a", "b", incident=False)])
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
    state, effects = drive([*TO_JUDGING[:4], snapshot(changed=changed)])
    over = changed > SMALL.file_changes
    assert (code_of(effects) is StopCode.STOP_FILES_EXCEEDED) == over
    assert (state.phase is Phase.JUDGING) != over


def test_a_tree_that_could_not_be_read_whole_is_never_judged() -> None:
    _, effects = drive([*TO_JUDGING[:4], replace(snapshot(), complete=False, why="depth")])
    assert code_of(effects) is StopCode.STOP_SCOPE_EXCEEDED
    assert not any(isinstance(effect, fx.Judge) for effect in effects)


@pytest.mark.parametrize("phase", [phase for phase in LIVE if phase is not Phase.NEW])
@given(event=events)
def test_nothing_goes_on_after_the_wall_clock(phase: Phase, event: Event) -> None:
    state, _ = drive(WAYS[phase])
    after, effects = decide(state, event, state.started_ms + SMALL.wall_clock_ms)
    assert after.phase is Phase.STOPPING
    # A stop that is written already has had its sequence.
    assert tuple(type(effect) for effect in effects) == (() if isinstance(event, StopDecided) else SEQUENCE)
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
    state, _ = drive([replace(ACCEPTED, limits=limits), TO_WORKING[1]])
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
    state, _ = drive([replace(ACCEPTED, limits=limits), TO_WORKING[1]])
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
    state, effects = drive([JailExited("coder", "killed", 1)], state)
    assert effects == [fx.TakeSnapshot(1)]


@pytest.mark.parametrize("repeats", range(1, 6))
def test_denials_are_counted_in_the_standard_profile(repeats: int) -> None:
    _, effects = drive([*TO_WORKING, *[Denial("name", "example.com", sensitive=False)] * repeats])
    assert (code_of(effects) is StopCode.STOP_UNAUTHORIZED_ACCESS) == (repeats > SMALL.denials)


@pytest.mark.req("N6")
def test_the_first_denial_stops_in_the_strict_profile() -> None:
    strict = replace(ACCEPTED, profile="strict")
    _, effects = drive([strict, *TO_WORKING[1:], Denial("name", "example.com", sensitive=False)])
    assert code_of(effects) is StopCode.STOP_UNAUTHORIZED_ACCESS


@pytest.mark.req("N6")
@pytest.mark.parametrize("profile", ["standard", "strict"])
@pytest.mark.parametrize("outcome", ["PASS", "FAIL", "INCONCLUSIVE"])
def test_a_grave_finding_stops_whatever_else_the_judge_says(profile: str, outcome: str) -> None:
    history = [
        replace(ACCEPTED, profile=profile, required_judges=()),
        *TO_JUDGING[1:],
        Judged("security", outcome, "", ("bandit.B602",)),
    ]
    assert code_of(drive(history)[1]) is StopCode.STOP_SECURITY_VIOLATION


def test_an_agent_that_never_asked_its_model_failed() -> None:
    _, effects = drive([*TO_JUDGING, *PASSED, finished(changed=False, progress=False, failing=1)])
    assert code_of(effects) is StopCode.STOP_AGENT_FAILED


@given(st.integers(0, 20), st.integers(0, 20))
@example(SMALL.iteration_file_changes, SMALL.iteration_file_changes)
@example(SMALL.file_changes, SMALL.iteration_file_changes + 1)
@pytest.mark.req("E3")
def test_file_changes_are_capped_in_each_iteration_too(changed: int, iteration_changed: int) -> None:
    _, effects = drive([*TO_JUDGING[:4], snapshot(changed=changed, iteration_changed=iteration_changed)])
    over = changed > SMALL.file_changes or iteration_changed > SMALL.iteration_file_changes
    assert (code_of(effects) is StopCode.STOP_FILES_EXCEEDED) == over


@pytest.mark.parametrize("phase", LIVE)
@pytest.mark.parametrize("late", [0, SMALL.wall_clock_ms])
def test_a_stop_that_stands_in_the_journal_is_not_stopped_again(phase: Phase, late: int) -> None:
    """Its cause could not be written, on a disk full for everything else: a replay finds the stop event alone."""
    state, _ = drive(WAYS[phase])
    after, effects = decide(state, StopDecided("STOP_HOST_FAILED", "h1"), START_MS + late)
    assert (after.phase, after.stop_code, after.stop_hash) == (Phase.STOPPING, "STOP_HOST_FAILED", "h1")
    assert effects == ()


@pytest.mark.parametrize("phase", LIVE)
def test_a_stop_whose_cause_could_not_be_written_is_not_forgotten(phase: Phase) -> None:
    """Its supervisor died behind the first step and before the stop event: a replay finds the step alone."""
    state, _ = drive(WAYS[phase])
    _, effects = decide(state, StopStep("lease_closed", ok=True), START_MS + 20)
    assert code_of(effects) is StopCode.STOP_HOST_FAILED


def test_what_is_settled_behind_the_stop_counts() -> None:
    state, _ = drive([*TO_WORKING, usage(spent=5, tokens=7, calls=2), Failed("host", "x")])
    after, effects = drive([usage(spent=9, tokens=3, calls=1)], state)
    assert (after.spent_micro_usd, after.tokens, after.tool_calls) == (9, 10, 3)
    assert (after.phase, effects) == (Phase.STOPPING, [])


def test_a_late_total_takes_nothing_back() -> None:
    assert drive([*TO_WORKING, usage(spent=9), usage(spent=5)])[0].spent_micro_usd == 9


@pytest.mark.parametrize("reason", ["paused", "paced"])
def test_waiting_that_we_impose_is_no_denial(reason: str) -> None:
    asked = [ModelRefused(reason, "")] * (2 * SMALL.denials)
    assert drive([*TO_WORKING, *asked])[0].denials == 0
    # the positive control: as many refusals for another reason end the run
    assert code_of(drive([*TO_WORKING, *[replace(a, reason="no model") for a in asked]])[1]) is not None


def _long_history() -> list[Event]:
    """One run of as many events: rounds of thirty, with what a busy agent causes."""
    draw = random.Random(7)
    noise: list[Event] = [usage(), Tick(), Denial("name", "x", sensitive=False), JailExited("tester", "exited", 1)]
    limits = replace(CEILING, iterations=10_000, no_progress=10_000, denials=10**9)
    history: list[Event] = [replace(ACCEPTED, limits=limits), TO_WORKING[1]]
    for n in range(1, limits.iterations):
        if len(history) >= LONG:
            break
        first, *rest = a_round(n, progress=True)
        history += [first, *(draw.choice(noise) for _ in range(22)), *rest]
    return history


def test_a_decision_costs_microseconds_and_no_more_after_weeks() -> None:
    state, taken = State(), []
    history = _long_history()
    assert len(history) >= LONG
    for event in history:
        begin = time.perf_counter_ns()
        state, effects = decide(state, event, START_MS + 5)
        taken.append(time.perf_counter_ns() - begin)
        assert code_of(effects) is None
    half, early, late = (statistics.median(part) for part in (taken, taken[:PART], taken[-PART:]))
    print(f"decide: p50 {half} ns; first {PART:,} events {early} ns, last {late} ns of {len(taken):,}")
    assert half < 20_000, f"p50 {half} ns"
    assert late < 2 * early, f"p50 grew from {early} to {late} ns"
