"""How a run goes on: after a stop by people's word alone, after its supervisor's death, and with amended limits."""

from dataclasses import replace

import pytest
from histories import (
    ACCEPTED,
    CONDUCT,
    CONDUCTED,
    LIVE,
    PASSED,
    SEQUENCE,
    SMALL,
    START_MS,
    TO_JUDGING,
    TO_WORKING,
    WAYS,
    a_round,
    an_end,
    code_of,
    conducted,
    drive,
    events,
    failed_over,
    finished,
    judged,
    snapshot,
    usage,
)
from hypothesis import given
from hypothesis import strategies as st

from inbounds.contracts import conduct
from inbounds.contracts.reasons import MEANING, Disposal, StopCode
from inbounds.kernel import effects as fx
from inbounds.kernel.decide import GOES_ON, decide, exhausted
from inbounds.kernel.events import (
    Amended,
    CommitMade,
    Denial,
    Event,
    Failed,
    Finished,
    IterationStarted,
    JailExited,
    Judged,
    OperatorStopped,
    Reauthorized,
    Recovered,
    Reopened,
    StopDecided,
    Tick,
    Usage,
)
from inbounds.kernel.state import Phase, State

BOTH = ("ana", "bo")
OPENED = Reopened(ok=True, reasons=())
DEAD = Recovered(0, 0, 0)


def over(*history: Event, accepted: Event = CONDUCTED, ref: str = "h1") -> State:
    """A run that ended by a fault after this history."""
    return drive([accepted, *TO_WORKING[1:], *history, Failed("host", "x"), *an_end(ref=ref)])[0]


def amended(state: State, **limits: int) -> Amended:
    return Amended(state.version + 1, "ana", replace(state.limits, **limits))


# -- a stop is left by re-authorization alone


@pytest.mark.req("E14", "N7")
@given(event=events, at=st.integers(0, 3 * 10**12))
def test_nothing_but_peoples_word_leaves_a_stop(event: Event, at: int) -> None:
    state = over()
    if isinstance(event, Reauthorized):
        event = replace(event, operators=("ana",))
    after, effects = decide(state, event, at)
    assert (after.phase, effects) == (Phase.FINISHED, ())
    assert decide(state, Reauthorized("h1", BOTH), at)[0].phase is Phase.REOPENING  # the positive control


@pytest.mark.parametrize(
    ("stop_hash", "operators"),
    [
        ("", BOTH),
        ("h2", BOTH),
        ("h1", ()),
        ("h1", ("ana",)),
        ("h1", ("ana", "ana")),
        ("h1", ("ana", "eve")),
        ("h1", ("eve", "mallory")),
    ],
)
@pytest.mark.req("E14", "N7")
def test_a_word_about_another_stop_or_of_too_few_opens_nothing(stop_hash: str, operators: tuple[str, ...]) -> None:
    state = over()
    assert decide(state, Reauthorized(stop_hash, operators), START_MS) == (state, ())


@pytest.mark.req("E14")
def test_the_word_about_an_earlier_stop_is_spent() -> None:
    again = [Reauthorized("h1", BOTH), OPENED, IterationStarted(2), Failed("host", "y"), *an_end(ref="h2")]
    state, effects = drive(again, over())
    assert (state.phase, state.stop_hash) == (Phase.FINISHED, "h2")
    assert sum(isinstance(effect, fx.RecordStop) for effect in effects) == 1
    assert decide(state, Reauthorized("h1", BOTH), START_MS) == (state, ())
    assert decide(state, Reauthorized("h2", BOTH), START_MS)[0].phase is Phase.REOPENING


def test_a_stop_without_its_record_cannot_be_re_authorized() -> None:
    """Where nothing could be written there is no hash to be bound to: an empty one is nobody's word."""
    for end in ((an_end()[1],), an_end(ref="")):
        state, _ = drive([*conducted(Phase.WORKING), Failed("host", "x"), *end])
        assert state.phase is Phase.FINISHED
        assert decide(state, Reauthorized("", BOTH), START_MS) == (state, ())


def test_any_operator_will_do_where_policy_names_nobody() -> None:
    state = over(accepted=ACCEPTED)
    assert decide(state, Reauthorized("h1", ()), START_MS) == (state, ())
    assert decide(state, Reauthorized("h1", ("eve",)), START_MS)[0].phase is Phase.REOPENING


def test_an_incident_takes_its_own_number_and_quarantines() -> None:
    stop = OperatorStopped("ana", "it spreads", incident=True)
    state, effects = drive([*conducted(Phase.WORKING), stop, *an_end(StopCode.STOP_OPERATOR)])
    assert fx.Dispose(Disposal.QUARANTINE, "") in effects
    assert decide(state, Reauthorized("h1", BOTH), START_MS) == (state, ())
    leg, _ = decide(state, Reauthorized("h1", (*BOTH, "cy")), START_MS)
    assert (leg.phase, leg.incident) == (Phase.REOPENING, False)
    # the positive control: the same stop without an incident
    state, effects = drive([*conducted(Phase.WORKING), replace(stop, incident=False), *an_end(StopCode.STOP_OPERATOR)])
    assert fx.Dispose(Disposal.REVERT, "") in effects
    assert decide(state, Reauthorized("h1", BOTH), START_MS)[0].phase is Phase.REOPENING


def test_what_is_done_is_never_re_authorized() -> None:
    done = [*TO_JUDGING[1:], *PASSED, finished(), CommitMade(1, "c"), *an_end(StopCode.DONE)]
    state, _ = drive([CONDUCTED, *done])
    assert (state.phase, state.stop_code) == (Phase.FINISHED, StopCode.DONE)
    assert decide(state, Reauthorized("h1", ("ana", "bo", "cy")), START_MS) == (state, ())


def test_a_leg_begins_from_the_checkpoint_with_the_next_iteration() -> None:
    safe = drive([CONDUCTED, *TO_WORKING[1:2], *a_round(1, progress=True), IterationStarted(2)])[0]
    state, _ = drive([*[Denial("name", "x", sensitive=False)] * 2, *failed_over()], safe)
    leg, effects = decide(state, Reauthorized("h1", BOTH), START_MS)
    assert effects == (fx.Reopen("tree1", restore=True),)
    assert (leg.denials, leg.without_progress, leg.stop_code, leg.stop_hash) == (0, 0, "", "")
    assert (leg.spent_micro_usd, leg.tokens, leg.n) == (state.spent_micro_usd, state.tokens, 3)
    opened, effects = decide(leg, OPENED, START_MS)
    assert (opened.phase, effects) == (Phase.STARTING, (fx.StartIteration(3),))
    refused, effects = decide(leg, Reopened(ok=False, reasons=("no Landlock",)), START_MS)
    assert code_of(effects) is StopCode.STOP_HOST_FAILED
    assert "no Landlock" in str(effects)
    assert refused.phase is Phase.STOPPING


def test_a_leg_whose_supervisor_dies_at_its_opening_still_begins_at_the_checkpoint() -> None:
    leg, _ = decide(over(), Reauthorized("h1", BOTH), START_MS)
    for _ in range(2):
        leg, effects = decide(leg, DEAD, START_MS)
        assert effects == (fx.Reopen("", restore=True),)
    leg, _ = decide(leg, OPENED, START_MS)
    # once it stands, what the agent leaves is judged as it stands
    assert drive([IterationStarted(2), DEAD], replace(leg, recoveries=0))[1] == [fx.Reopen("", restore=False)]


def test_a_run_that_never_came_past_its_preflight_begins_there_again() -> None:
    state, _ = drive([CONDUCTED, Failed("preflight", "x"), *an_end(StopCode.STOP_PREFLIGHT_FAILED)])
    leg, effects = decide(state, Reauthorized("h1", BOTH), START_MS)
    assert (leg.phase, leg.n, effects) == (Phase.PREFLIGHT, 0, (fx.RunPreflight(),))
    assert drive([TO_WORKING[1]], leg)[1] == [fx.StartIteration(1)]


SPENT: dict[str, tuple[list[Event], StopCode]] = {
    "budget_usd": ([usage(spent=SMALL.budget_micro_usd)], StopCode.STOP_BUDGET_EXCEEDED),
    "tokens": ([usage(tokens=SMALL.tokens)], StopCode.STOP_BUDGET_EXCEEDED),
    "tool_calls": ([usage(calls=SMALL.tool_calls + 1)], StopCode.STOP_TOOL_CALLS_EXCEEDED),
    "restarts": ([DEAD] * (SMALL.restarts + 1), StopCode.STOP_HOST_FAILED),
}


@pytest.mark.parametrize("key", SPENT)
@pytest.mark.req("E9")
def test_a_signature_alone_raises_no_limit(key: str) -> None:
    spending, code = SPENT[key]
    state, _ = drive([*conducted(Phase.WORKING), *spending, *an_end(code)])
    assert exhausted(state, START_MS) == (key,)
    leg, _ = decide(state, Reauthorized("h1", BOTH), START_MS)
    _, effects = decide(leg, OPENED, START_MS)
    assert code_of(effects) is code
    # the positive control: with more of it the same leg begins an iteration
    more = amended(state, budget_micro_usd=10**8, tokens=10**8, tool_calls=10**4, restarts=100)
    leg, effects_of = drive([more, Reauthorized("h1", BOTH), OPENED], state)
    assert exhausted(leg, START_MS) == ()
    assert leg.phase is Phase.STARTING
    assert code_of(effects_of) is None


def test_a_run_that_died_too_often_before_its_preflight_does_not_pass_it_unamended() -> None:
    history = [CONDUCTED, *[DEAD] * (SMALL.restarts + 1), *an_end(StopCode.STOP_HOST_FAILED), Reauthorized("h1", BOTH)]
    state, effects = drive(history)
    assert (state.phase, effects[-1]) == (Phase.PREFLIGHT, fx.RunPreflight())
    assert code_of(drive([TO_WORKING[1]], state)[1]) is StopCode.STOP_HOST_FAILED
    # the positive control: with more of them the same preflight leads to an iteration
    more = amended(state, restarts=100)
    assert drive([more, TO_WORKING[1]], state)[1][-1] == fx.StartIteration(1)


def test_a_leg_within_the_last_iteration_needs_more_of_them() -> None:
    rounds = [event for n in range(1, 5) for event in a_round(n, progress=True)]
    state, _ = drive([CONDUCTED, TO_WORKING[1], *rounds, *an_end(StopCode.STOP_ITERATIONS_EXCEEDED)])
    assert exhausted(state, START_MS) == ("iterations",)
    assert code_of(drive([Reauthorized("h1", BOTH), OPENED], state)[1]) is StopCode.STOP_ITERATIONS_EXCEEDED
    assert drive([amended(state, iterations=5), Reauthorized("h1", BOTH), OPENED], state)[1][-1] == fx.StartIteration(5)


# -- amendments


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.NEW])
@given(version=st.integers(-1, 9))
def test_only_the_next_version_of_the_limits_holds(phase: Phase, version: int) -> None:
    state, _ = drive(WAYS[phase])
    new = replace(SMALL, budget_micro_usd=9_000_000)
    after, effects = decide(state, Amended(version, "ana", new), START_MS + 20)
    assert (after.limits == new) == (after.version == 2) == (version == 2)
    wanted = (fx.ApplyLimits(new, unpause=False),) if version == 2 and phase in LIVE else ()
    assert effects == wanted
    again, none = decide(after, Amended(version, "eve", SMALL), START_MS + 20)  # replayed
    assert (again, none) == (after, ())


def test_an_amendment_before_the_contract_is_none() -> None:
    assert decide(State(), Amended(2, "ana", SMALL), START_MS) == (State(), ())


def test_a_raised_limit_holds_from_now_on() -> None:
    state, _ = drive([*TO_WORKING, usage(spent=SMALL.budget_micro_usd - 1)])
    state, _ = drive([amended(state, budget_micro_usd=2 * SMALL.budget_micro_usd)], state)
    assert drive([usage(spent=SMALL.budget_micro_usd)], state)[0].phase is Phase.WORKING
    assert code_of(drive([usage(spent=2 * SMALL.budget_micro_usd)], state)[1]) is StopCode.STOP_BUDGET_EXCEEDED


LOWERED: list[tuple[dict[str, int], StopCode]] = [
    ({"budget_micro_usd": 1_000}, StopCode.STOP_BUDGET_EXCEEDED),
    ({"tokens": 50}, StopCode.STOP_BUDGET_EXCEEDED),
    ({"tool_calls": 4}, StopCode.STOP_TOOL_CALLS_EXCEEDED),
    ({"denials": 1}, StopCode.STOP_UNAUTHORIZED_ACCESS),
    ({"iterations": 1}, StopCode.STOP_ITERATIONS_EXCEEDED),
    ({"wall_clock_ms": 1}, StopCode.STOP_RUNTIME_EXCEEDED),
]


@pytest.mark.parametrize(("limits", "code"), LOWERED, ids=lambda value: next(iter(value), "") if value else "")
@pytest.mark.req("E9")
def test_a_limit_lowered_below_what_is_used_stops_at_once(limits: dict[str, int], code: StopCode) -> None:
    """An agent that asks its model nothing would otherwise go on beyond what its owner wants (E9)."""
    used: list[Event] = [usage(1_000, 50, 5), *[Denial("name", "x", sensitive=False)] * 2]
    state, _ = drive([ACCEPTED, TO_WORKING[1], *a_round(1, progress=True), IterationStarted(2), *used])
    assert state.phase is Phase.WORKING
    after, effects = decide(state, amended(state, **limits), START_MS + 60)
    assert after.phase is Phase.STOPPING
    assert code_of(effects) is code
    assert tuple(type(effect) for effect in effects) == SEQUENCE
    # the positive control: a little more than is used, and the agent works on
    room = {key: value + 2_000 for key, value in limits.items()}
    assert decide(state, amended(state, **room), START_MS + 60)[0].phase is Phase.WORKING


def test_no_progress_is_looked_at_where_an_iteration_ends() -> None:
    state, _ = drive([ACCEPTED, TO_WORKING[1], *a_round(1, progress=False), IterationStarted(2)])
    state, effects = drive([amended(state, no_progress=1)], state)
    assert code_of(effects) is None
    rest = a_round(2, progress=False)[1:]
    assert code_of(drive(rest, state)[1]) is StopCode.STOP_NO_PROGRESS


# -- recovery


@pytest.mark.parametrize("phase", list(GOES_ON))
@pytest.mark.parametrize("loops", [1, 2])
def test_a_run_goes_on_where_its_supervisor_died(phase: Phase, loops: int) -> None:
    state, _ = drive(WAYS[phase])
    for n in range(1, loops + 1):  # it may die again while it takes the run up
        state, effects = decide(state, DEAD, START_MS + 20)
        assert (state.phase, state.recoveries) == (Phase.REOPENING, n)
        assert effects == (fx.Reopen("", restore=False),)
    after, effects = decide(state, OPENED, START_MS + 20)
    assert after.phase is GOES_ON[phase]
    wanted = {
        Phase.STARTING: fx.StartIteration(1),
        Phase.SNAPSHOT: fx.TakeSnapshot(1),
        Phase.COMMITTING: fx.Commit(1, "tree1"),
    }
    assert effects == (wanted[after.phase],)


def test_a_death_in_the_preflight_repeats_it() -> None:
    state, _ = drive(WAYS[Phase.PREFLIGHT])
    after, effects = decide(state, DEAD, START_MS)
    assert (after.phase, after.recoveries, effects) == (Phase.PREFLIGHT, 1, (fx.RunPreflight(),))


@pytest.mark.parametrize("phase", [Phase.NEW, Phase.STOPPING, Phase.FINISHED])
def test_there_is_nothing_to_recover_before_and_after_a_run(phase: Phase) -> None:
    state, _ = drive(WAYS[phase])
    assert decide(state, DEAD, START_MS) == (state, ())


@given(st.tuples(*[st.integers(0, 50)] * 3), st.tuples(*[st.integers(0, 50)] * 3))
def test_what_was_spent_meanwhile_counts(known: tuple[int, int, int], ledger: tuple[int, int, int]) -> None:
    limits = replace(SMALL, tool_calls=100)
    state, _ = drive([replace(ACCEPTED, limits=limits), *TO_WORKING[1:], Usage(known[0], known[1], 0, known[2])])
    after, _ = decide(state, Recovered(*ledger), START_MS)
    assert (after.spent_micro_usd, after.tokens, after.tool_calls) == tuple(map(max, known, ledger))


@pytest.mark.parametrize("phase", list(GOES_ON))
@pytest.mark.parametrize(
    ("ledger", "code"),
    [
        (Recovered(SMALL.budget_micro_usd, 0, 0), StopCode.STOP_BUDGET_EXCEEDED),
        (Recovered(0, SMALL.tokens, 0), StopCode.STOP_BUDGET_EXCEEDED),
        (Recovered(0, 0, SMALL.tool_calls + 1), StopCode.STOP_TOOL_CALLS_EXCEEDED),
    ],
)
def test_what_was_spent_meanwhile_may_end_the_run(phase: Phase, ledger: Recovered, code: StopCode) -> None:
    _, effects = drive([*WAYS[phase], ledger])
    assert code_of(effects) is code


@pytest.mark.parametrize("phase", [Phase.PREFLIGHT, *GOES_ON, Phase.REOPENING])
def test_restarts_are_capped_and_policy_may_want_none(phase: Phase) -> None:
    state, effects = drive([*WAYS[phase], *[DEAD] * SMALL.restarts])
    capped = state.phase is Phase.STOPPING
    assert capped == (phase is Phase.REOPENING)  # the way there has one already
    if not capped:
        _, effects = drive([DEAD], state)
    assert code_of(effects) is StopCode.STOP_HOST_FAILED
    never = replace(ACCEPTED, conduct=replace(conduct.DEFAULT, recovery="stop"))
    way = conducted(phase, never) if phase is not Phase.REOPENING else conducted(Phase.WORKING, never)
    _, effects = drive([*way, DEAD])
    assert code_of(effects) is StopCode.STOP_HOST_FAILED


def test_a_recovered_agent_that_left_nothing_has_not_failed_by_itself() -> None:
    nothing: list[Event] = [DEAD, OPENED, snapshot(), *judged(tests="FAIL"), finished(changed=False, failing=1)]
    state, effects = drive([*TO_WORKING, *nothing])
    assert (state.phase, code_of(effects)) == (Phase.STARTING, None)
    # the positive control: the same without a death
    _, effects = drive([*TO_WORKING, JailExited("coder", "exited", 1), *nothing[2:]])
    assert code_of(effects) is StopCode.STOP_AGENT_FAILED


@pytest.mark.parametrize("away_ms", [SMALL.wall_clock_ms - 100, SMALL.wall_clock_ms, 40 * 24 * 3_600_000])
def test_the_clock_excludes_nothing(away_ms: int) -> None:
    """Neither a reboot nor the time between a stop and its re-authorization (E16)."""
    late = away_ms >= SMALL.wall_clock_ms
    for state, event in (
        (drive(WAYS[Phase.WORKING])[0], DEAD),
        (drive([Reauthorized("h1", BOTH)], over())[0], Tick()),
        (drive([Reauthorized("h1", BOTH)], over())[0], OPENED),
    ):
        after, effects = decide(state, event, state.started_ms + away_ms)
        assert (code_of(effects) is StopCode.STOP_RUNTIME_EXCEEDED) == late
        assert (after.phase is Phase.STOPPING) == late
    assert exhausted(over(), START_MS + away_ms) == (("wall_clock",) if late else ())


# -- what a stop goes back to, and what becomes of the workspace


@pytest.mark.parametrize(
    ("tests", "regressions", "scope", "safe"),
    [
        ("PASS", 0, "PASS", True),
        ("FAIL", 0, "PASS", True),  # the goal is still open, but nothing broke
        ("FAIL", 1, "PASS", False),
        ("INCONCLUSIVE", 0, "PASS", False),
        ("PASS", 0, "INCONCLUSIVE", False),
        ("PASS", 0, "FAIL", False),
    ],
)
def test_the_checkpoint_is_the_last_committed_tree_without_objection(
    tests: str, regressions: int, scope: str, safe: bool
) -> None:
    end: list[Event] = [finished(failing=1, regressions=regressions)]
    state, _ = drive([*TO_JUDGING, *judged(scope, tests), *end])
    assert state.checkpoint == ""  # judged, and not committed yet
    _, effects = drive([Failed("host", "x")], state)
    assert fx.Dispose(Disposal.QUARANTINE, "") in effects
    state, _ = drive([CommitMade(1, "c")], state)
    stops: list[Event] = [OperatorStopped("ana", "lunch", incident=False)]
    state, effects = drive(stops, state)
    wanted = "tree1" if safe else ""
    assert [e.checkpoint for e in effects if isinstance(e, fx.RecordStop | fx.Dispose)] == [wanted] * 2
    assert state.checkpoint == wanted


def test_a_worse_iteration_does_not_move_the_checkpoint() -> None:
    state, _ = drive([ACCEPTED, TO_WORKING[1], *a_round(1, progress=True), *a_round(2, progress=True, regressions=1)])
    assert (state.n, state.checkpoint) == (3, "tree1")


@pytest.mark.parametrize("code", list(StopCode))
def test_policy_turns_a_revert_into_a_quarantine_and_loosens_nothing(code: StopCode) -> None:
    strict = replace(CONDUCT, quarantine=tuple(StopCode))
    stated = MEANING[code][0]
    assert CONDUCT.disposal(code) is stated
    assert strict.disposal(code) is (Disposal.KEEP if stated is Disposal.KEEP else Disposal.QUARANTINE)


def test_the_quarantine_that_policy_wants_is_in_the_stop() -> None:
    strict = replace(CONDUCTED, conduct=replace(CONDUCT, quarantine=("STOP_BUDGET_EXCEEDED",)))
    for accepted, wanted in ((CONDUCTED, Disposal.REVERT), (strict, Disposal.QUARANTINE)):
        _, effects = drive([*conducted(Phase.WORKING, accepted), usage(spent=SMALL.budget_micro_usd)])
        assert fx.Dispose(wanted, "") in effects


# -- slow before stop, and asking a person


PRESSED: dict[str, Event] = {
    "money": usage(spent=SMALL.budget_micro_usd // 2),
    "tokens": usage(tokens=SMALL.tokens // 2),
    "tool calls": usage(calls=SMALL.tool_calls // 2),
}
SLOW = fx.SlowDown(CONDUCT.slow_interval_ms, CONDUCT.slow_cpu_percent)


@pytest.mark.parametrize("what", PRESSED)
def test_a_run_is_slowed_once_before_a_limit(what: str) -> None:
    state, effects = drive([*conducted(Phase.WORKING), PRESSED[what], usage(), usage()])
    assert effects.count(SLOW) == 1
    assert state.phase is Phase.WORKING
    assert SLOW not in drive([*TO_WORKING, PRESSED[what]])[1]  # policy that wants none gets none


def test_denials_slow_a_run_too() -> None:
    denials = [Denial("name", "x", sensitive=False)] * 2
    _, effects = drive([*conducted(Phase.WORKING), *denials])
    assert effects[-1] == SLOW
    assert code_of(effects) is None


def _slowed() -> State:
    state, effects = drive([*conducted(Phase.WORKING), PRESSED["money"]])
    assert effects[-1] == SLOW
    return state


def test_an_amendment_with_room_lifts_the_slow_down_and_one_without_does_not() -> None:
    state = _slowed()
    roomy = amended(state, budget_micro_usd=3 * SMALL.budget_micro_usd)
    assert drive([roomy], state)[1] == [fx.ApplyLimits(roomy.limits, unpause=False), fx.SlowDown(0, 100)]
    tight = amended(state, budget_micro_usd=SMALL.budget_micro_usd - 1)
    after, effects = drive([tight], state)
    assert effects == [fx.ApplyLimits(tight.limits, unpause=False)]
    assert drive([usage(spent=after.spent_micro_usd)], after)[1] == [SLOW]  # once per version


def test_a_new_gateway_is_slowed_again() -> None:
    state, effects = drive([DEAD, OPENED], _slowed())
    assert effects == [fx.Reopen("", restore=False), SLOW, fx.TakeSnapshot(1)]
    assert state.slowed


NEARLY = usage(spent=SMALL.budget_micro_usd * 9 // 10)
ASKED_AT = START_MS + len(TO_WORKING)
UNTIL = ASKED_AT + CONDUCT.escalate_wait_ms


def _asked() -> State:
    before, _ = drive(conducted(Phase.WORKING))
    state, effects = decide(before, NEARLY, ASKED_AT)
    assert [effect for effect in effects if isinstance(effect, fx.Escalate)] == [
        fx.Escalate("4500000 of 5000000 micro-dollars are spent", UNTIL)
    ]
    assert state.phase is Phase.WORKING
    return state


def test_a_person_is_asked_once_and_silence_ends_the_run() -> None:
    state = _asked()
    again, effects = decide(state, NEARLY, ASKED_AT + 1)
    assert effects == ()
    assert decide(again, Tick(), UNTIL - 1) == (again, ())
    after, effects = decide(again, Tick(), UNTIL)
    assert code_of(effects) is StopCode.STOP_ESCALATION_UNANSWERED
    assert after.phase is Phase.STOPPING


def test_nobody_is_asked_below_the_share_or_where_policy_wants_none() -> None:
    before, _ = drive(conducted(Phase.WORKING))
    below = usage(spent=NEARLY.spent_micro_usd - 1)
    assert not any(isinstance(effect, fx.Escalate) for effect in decide(before, below, ASKED_AT)[1])
    assert not any(isinstance(effect, fx.Escalate) for effect in drive([*TO_WORKING, NEARLY])[1])


@pytest.mark.parametrize("money", [SMALL.budget_micro_usd, 2 * SMALL.budget_micro_usd])
def test_an_amendment_answers(money: int) -> None:
    state = _asked()
    answer = Amended(2, "ana", replace(SMALL, budget_micro_usd=money, tokens=SMALL.tokens - 1))
    after, effects = decide(state, answer, ASKED_AT + 5)
    assert effects[0] == fx.ApplyLimits(answer.limits, unpause=True)
    assert decide(after, Tick(), UNTIL + 5) == (after, ())
    # another version is another question, if there is cause for it
    asked = any(isinstance(effect, fx.Escalate) for effect in decide(after, NEARLY, UNTIL + 6)[1])
    assert asked == (money == SMALL.budget_micro_usd)


def test_a_question_outlives_the_supervisor() -> None:
    state, effects = decide(_asked(), DEAD, ASKED_AT + 5)
    assert state.escalated_until_ms == UNTIL
    assert code_of(effects) is None
    state, effects = decide(state, OPENED, ASKED_AT + 6)
    assert not any(isinstance(effect, fx.Escalate) for effect in effects)
    assert code_of(decide(state, Tick(), UNTIL)[1]) is StopCode.STOP_ESCALATION_UNANSWERED


def test_what_the_ledger_knows_may_ask_once_the_gateway_stands() -> None:
    before, _ = drive(conducted(Phase.WORKING))
    state, effects = decide(before, Recovered(NEARLY.spent_micro_usd, 0, 0), ASKED_AT)
    assert effects == (fx.Reopen("", restore=False),)
    _, effects = decide(state, OPENED, ASKED_AT)
    assert [type(effect) for effect in effects] == [fx.Escalate, fx.SlowDown, fx.TakeSnapshot]


def test_a_leg_asks_no_more_about_what_was_signed_unless_limits_change() -> None:
    state, _ = drive(
        [StopDecided("STOP_OPERATOR", "h1")], drive([OperatorStopped("a", "b", incident=False)], _asked())[0]
    )
    state, _ = drive([an_end()[1], Reauthorized("h1", BOTH)], state)
    _, effects = decide(state, OPENED, ASKED_AT + 9)
    assert [type(effect) for effect in effects] == [fx.SlowDown, fx.StartIteration]


@pytest.mark.parametrize(
    ("rule", "code"), [("secrets.key", StopCode.STOP_SECRET_EXPOSURE), ("scope.x", StopCode.STOP_SCOPE_EXCEEDED)]
)
def test_a_grave_finding_in_a_later_leg_stops_like_in_the_first(rule: str, code: StopCode) -> None:
    again: list[Event] = [Reauthorized("h1", BOTH), OPENED, IterationStarted(2), JailExited("coder", "exited", 2)]
    _, effects = drive([*again, snapshot(2), Judged("scope", "FAIL", "", (rule,))], over())
    assert code_of(effects) is code


@pytest.mark.req("O4", "N7")
def test_an_incident_that_comes_second_still_takes_its_approvals() -> None:
    wanting = replace(ACCEPTED, conduct=replace(CONDUCT, resume_by=(), resume_approvals=1, incident_approvals=2))
    history = [wanting, *TO_WORKING[1:], Failed("gateway", "x")]
    stopped = [StopDecided("STOP_GATEWAY_FAILED", "a" * 64)]
    for incident, enough in ((False, 1), (True, 2)):
        state, _ = drive([*history, OperatorStopped("ana", "now", incident), *stopped, Finished("x")])
        for count in (1, 2):
            opened, _ = drive([Reauthorized("a" * 64, BOTH[:count])], state)
            assert (opened.phase is Phase.REOPENING) == (count >= enough), (incident, count)
