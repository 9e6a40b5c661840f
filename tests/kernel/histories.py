"""Hypothesis strategies for events and states, and the ways that lead a run to each phase. Knows no expectation."""

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

from hypothesis import strategies as st

from inbounds.contracts import conduct
from inbounds.contracts.limits import DEFAULT, Limits
from inbounds.contracts.reasons import StopCode
from inbounds.kernel import effects as fx
from inbounds.kernel.decide import decide
from inbounds.kernel.effects import Effect
from inbounds.kernel.events import (
    EVENTS,
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

START_MS = 1_700_000_000_000
SEQUENCE = (fx.CloseDoors, fx.Freeze, fx.RecordStop, fx.Persist, fx.Kill, fx.Dispose, fx.Finish)
OVER = (Phase.STOPPING, Phase.FINISHED)
SMALL = replace(
    DEFAULT, iterations=4, no_progress=3, turns=5, tool_calls=20, file_changes=10, iteration_file_changes=7, denials=3,
    tokens=10_000, restarts=2,
)  # fmt: skip
# Slows from half of a limit on, asks from nine tenths of the money on and waits a minute; two of three people open a leg.
CONDUCT = replace(
    conduct.DEFAULT, slow_at_percent=50, slow_interval_ms=2_000, slow_cpu_percent=25, escalate_at_percent=90,
    escalate_wait_ms=60_000, resume_by=("ana", "bo", "cy"), resume_approvals=2, incident_approvals=3,
)  # fmt: skip
REQUIRED = ("scope", "tests")
ACCEPTED = Accepted(SMALL, "standard", REQUIRED, conduct.DEFAULT)
CONDUCTED = replace(ACCEPTED, conduct=CONDUCT)


def usage(spent: int = 0, tokens: int = 1, calls: int = 0) -> Usage:
    """One settled request; `spent` is the run's total with it."""
    return Usage(spent_micro_usd=spent, input_tokens=tokens, output_tokens=0, tool_calls=calls)


def snapshot(n: int = 1, changed: int = 1, iteration_changed: int = 1, tree: str = "") -> SnapshotTaken:
    """A whole snapshot of iteration n."""
    return SnapshotTaken(n, tree or f"tree{n}", changed, iteration_changed, complete=True, why="")


def finished(
    n: int = 1, *, changed: bool = True, progress: bool = True, failing: int = 0, regressions: int = 0
) -> IterationFinished:
    """The judges' last word about iteration n."""
    return IterationFinished(n, f"tree{n}", changed, progress, failing, failing, regressions)


def judged(scope: str = "PASS", tests: str = "PASS") -> tuple[Event, ...]:
    """Both required judges speak."""
    return Judged("scope", scope, "", ()), Judged("tests", tests, "", ())


def a_round(n: int, *, progress: bool, passing: bool = False, regressions: int = 0) -> list[Event]:
    """One honest iteration after its start was asked for."""
    failing = 0 if passing else 1
    return [
        IterationStarted(n),
        usage(),
        JailExited("coder", "exited", n),
        snapshot(n),
        *judged(tests="PASS" if passing else "FAIL"),
        finished(n, progress=progress, failing=failing, regressions=regressions),
        CommitMade(n, "c"),
    ]


def an_end(code: StopCode = StopCode.STOP_HOST_FAILED, ref: str = "h1") -> tuple[Event, ...]:
    """What follows a stop's effects: the stop event with its hash, and the leg's last record."""
    return StopDecided(code, ref), Finished(code)


def failed_over() -> tuple[Event, ...]:
    """A host's fault, to the end of the leg."""
    return Failed("host", "x"), *an_end()


def code_of(effects: Iterable[Effect]) -> StopCode | None:
    """The stop among the effects, if there is one."""
    return next((effect.code for effect in effects if isinstance(effect, fx.RecordStop)), None)


def drive(
    sequence: Iterable[Event], state: State | None = None, step_ms: int = 1, at_ms: int = START_MS
) -> tuple[State, list[Effect]]:
    """Every event in order, `step_ms` apart; the last state and all effects."""
    state = state or State()
    effects: list[Effect] = []
    for place, event in enumerate(sequence):
        state, made = decide(state, event, at_ms + place * step_ms)
        effects += made
    return state, effects


def as_record(event: Event) -> tuple[str, dict[str, Any], str]:
    """An event as a journal would hand it back: kind, data through JSON, hash."""
    data = json.loads(json.dumps(asdict(event)))
    return event.KIND, data, str(data.pop("ref", ""))


TO_WORKING: tuple[Event, ...] = (ACCEPTED, PreflightFinished(ok=True, reasons=(), failing=1), IterationStarted(1))
TO_JUDGING: tuple[Event, ...] = (*TO_WORKING, JailExited("coder", "exited", 1), snapshot(1, changed=2))
PASSED: tuple[Event, ...] = judged()
# One short honest history that leads to each phase.
WAYS: dict[Phase, tuple[Event, ...]] = {
    Phase.NEW: (),
    Phase.PREFLIGHT: TO_WORKING[:1],
    Phase.STARTING: TO_WORKING[:2],
    Phase.WORKING: TO_WORKING,
    Phase.SNAPSHOT: TO_JUDGING[:4],
    Phase.JUDGING: TO_JUDGING,
    Phase.COMMITTING: (*TO_JUDGING, *PASSED, finished()),
    Phase.REOPENING: (*TO_WORKING, Recovered(0, 0, 0)),
    Phase.STOPPING: (*TO_WORKING, Failed("host", "x"), StopDecided("STOP_HOST_FAILED", "h1")),
    Phase.FINISHED: (*TO_WORKING, *failed_over()),
}
LIVE = [phase for phase in Phase if phase not in OVER]


def conducted(phase: Phase, accepted: Accepted = CONDUCTED) -> tuple[Event, ...]:
    """The way to a phase under another contract."""
    return tuple(accepted if isinstance(event, Accepted) else event for event in WAYS[phase])


# -- what is drawn

words = st.sampled_from(["", "x", "scope.undeclared", "secrets.key", "\ud800\x1b[2J"])
counts = st.integers(-1, 40)
rules = st.lists(
    st.sampled_from(
        ["scope.undeclared", "scope.acceptance_test", "tests.missing", "secrets.key", "anomaly.binary", "bandit.B602"]
    ),
    max_size=2,
).map(tuple)
hashes = st.sampled_from(["", "h1", "h2"])
people = st.lists(st.sampled_from(["ana", "bo", "cy", "eve"]), max_size=4).map(tuple)
conducts = st.sampled_from([
    conduct.DEFAULT,
    CONDUCT,
    replace(CONDUCT, resume_by=(), resume_approvals=1, recovery="stop"),
    replace(CONDUCT, quarantine=("STOP_BUDGET_EXCEEDED", "STOP_HOST_FAILED", "STOP_SCOPE_EXCEEDED", "DONE")),
])  # fmt: skip
some_limits: st.SearchStrategy[Limits] = st.builds(
    lambda money, calls, rounds, denials: replace(
        SMALL, budget_micro_usd=money, tool_calls=calls, iterations=rounds, denials=denials
    ),
    st.sampled_from([1, 2_000_000, SMALL.budget_micro_usd, 9_000_000]),
    st.sampled_from([1, SMALL.tool_calls, 80]),
    st.integers(1, 8),
    st.integers(1, 6),
)
codes = st.sampled_from([*map(str, StopCode)])

_BY_TYPE: dict[type[Event], st.SearchStrategy[Event]] = {
    Accepted: st.builds(Accepted, st.just(SMALL), st.sampled_from(["standard", "strict"]), st.just(REQUIRED), conducts),
    PreflightFinished: st.builds(PreflightFinished, st.booleans(), st.lists(words, max_size=2).map(tuple), counts),
    IterationStarted: st.builds(IterationStarted, counts),
    Usage: st.builds(Usage, st.integers(0, 6_000_000), st.integers(0, 4_000), st.integers(0, 400), st.integers(0, 12)),
    ModelRefused: st.builds(
        ModelRefused,
        st.sampled_from(["", "paused", "paced", "spent"]),
        st.sampled_from(["", "run", "month", "turns", "lease", "tool_calls", "request", "busy"]),
    ),
    Denial: st.builds(Denial, st.sampled_from(["decoy", "name", "tool", "egress"]), words, st.booleans()),
    JailExited: st.builds(
        JailExited,
        st.sampled_from(["coder", "tester"]),
        st.sampled_from(["exited", "killed", "deadline", "memory", "failed"]),
        counts,
    ),
    SnapshotTaken: st.builds(SnapshotTaken, counts, words, st.integers(0, 12), st.integers(0, 9), st.booleans(), words),
    Judged: st.builds(
        Judged,
        st.sampled_from(["scope", "tests", "security", "unknown"]),
        st.sampled_from(["PASS", "FAIL", "INCONCLUSIVE", "nonsense"]),
        words,
        rules,
    ),
    IterationFinished: st.builds(
        IterationFinished, counts, words, st.booleans(), st.booleans(), counts, counts, st.integers(0, 1)
    ),
    CommitMade: st.builds(CommitMade, counts, words),
    Tick: st.just(Tick()),
    Polled: st.builds(Polled, st.integers(0, 2 * SMALL.disk_bytes), st.integers(0, 2 * SMALL.inodes)),
    Failed: st.builds(Failed, st.sampled_from(["gateway", "host", "agent", "contract", "preflight", "?"]), words),
    OperatorStopped: st.builds(OperatorStopped, words, words, st.booleans()),
    Recovered: st.builds(Recovered, st.integers(0, 6_000_000), st.integers(0, 4_000), st.integers(0, 25)),
    Reopened: st.builds(Reopened, st.booleans(), st.lists(words, max_size=2).map(tuple)),
    Amended: st.builds(Amended, st.integers(0, 5), words, some_limits),
    StopDecided: st.builds(StopDecided, codes, hashes),
    Reauthorized: st.builds(Reauthorized, hashes, people),
    StopStep: st.builds(StopStep, words, st.booleans()),
    Finished: st.builds(Finished, words),
}
assert set(_BY_TYPE) == set(EVENTS)  # a new event must be drawn, too

events = st.one_of(*_BY_TYPE.values())
# Without those that end a run at once, so that a random walk gets anywhere.
mild = st.one_of(
    *(
        strategy
        for event, strategy in _BY_TYPE.items()
        if event not in (Failed, OperatorStopped, Polled, Denial, StopDecided, Finished)
    )
)


def _apt(state: State) -> st.SearchStrategy[Event]:
    """What may well come next: it leads on, or presses."""
    n, nearly = state.n, state.limits.budget_micro_usd * 92 // 100
    amended: st.SearchStrategy[Event] = st.builds(Amended, st.just(state.version + 1), st.just("ana"), some_limits)
    match state.phase:
        case Phase.NEW:
            return st.just(ACCEPTED)
        case Phase.PREFLIGHT:
            return st.just(PreflightFinished(ok=True, reasons=(), failing=1))
        case Phase.STARTING:
            return st.just(IterationStarted(n))
        case Phase.WORKING:
            pressing = [usage(calls=5), ModelRefused("spent", "turns"), Recovered(0, 0, 0)]
            ended = JailExited("coder", "exited", n)
            return st.one_of(st.just(ended), st.just(usage(spent=nearly)), st.sampled_from(pressing), amended)
        case Phase.SNAPSHOT:
            return st.just(snapshot(n))
        case Phase.JUDGING:
            if len(state.verdicts) < len(REQUIRED):
                return st.sampled_from([*judged(), *judged(tests="FAIL")])
            return st.builds(finished, st.just(n), progress=st.booleans(), failing=st.integers(0, 1))
        case Phase.COMMITTING:
            return st.just(CommitMade(n, "c"))
        case Phase.REOPENING:
            return st.just(Reopened(ok=True, reasons=()))
        case Phase.STOPPING:
            code = StopCode.STOP_OPERATOR
            return (
                st.just(Finished(state.stop_code)) if state.stop_code else st.builds(StopDecided, st.just(code), hashes)
            )
        case Phase.FINISHED:
            return st.one_of(st.just(Reauthorized(state.stop_hash, ("ana", "bo", "cy"))), amended)


@st.composite
def _walk(draw: st.DrawFn) -> list[Event]:
    """From somewhere real, then apt events with anything between them: pure noise would rarely leave a phase."""
    accepted = draw(
        st.builds(Accepted, st.just(SMALL), st.sampled_from(["standard", "strict"]), st.just(REQUIRED), conducts)
    )
    history = [*conducted(draw(st.sampled_from(list(WAYS))), accepted)]
    state, _ = drive(history)
    for _ in range(draw(st.integers(0, 30))):
        event = draw(draw(st.sampled_from([_apt(state), _apt(state), _apt(state), mild, events])))
        history.append(event)
        state, _ = decide(state, event, START_MS + len(history))
    return history


histories: st.SearchStrategy[list[Event]] = _walk()


def of(event: type[Event]) -> st.SearchStrategy[Event]:
    """Draw one kind of event."""
    return _BY_TYPE[event]
