"""Hypothesis strategies for events and states, and the ways that lead a run to each phase. Knows no expectation."""

from collections.abc import Iterable
from dataclasses import replace

from hypothesis import strategies as st

from inbounds.contracts.limits import DEFAULT
from inbounds.kernel.decide import decide
from inbounds.kernel.effects import Effect
from inbounds.kernel.events import (
    EVENTS,
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

START_MS = 1_700_000_000_000
SMALL = replace(DEFAULT, iterations=4, no_progress=3, turns=5, tool_calls=20, file_changes=10, denials=3, tokens=10_000)

words = st.sampled_from(["", "x", "scope.undeclared", "secrets.key", "\ud800\x1b[2J"])
counts = st.integers(-1, 40)
rules = st.lists(
    st.sampled_from(["scope.undeclared", "scope.acceptance_test", "tests.missing", "secrets.key", "bandit.B602"]),
    max_size=2,
).map(tuple)
judges = st.sampled_from(["scope", "tests", "security", "unknown"])
outcomes = st.sampled_from(["PASS", "FAIL", "INCONCLUSIVE", "nonsense"])

ACCEPTED = Accepted(SMALL, "standard", ("scope", "tests"))

_BY_TYPE: dict[type[Event], st.SearchStrategy[Event]] = {
    Accepted: st.builds(Accepted, st.just(SMALL), st.sampled_from(["standard", "strict"]), st.just(("scope", "tests"))),
    PreflightFinished: st.builds(PreflightFinished, st.booleans(), st.lists(words, max_size=2).map(tuple), counts),
    IterationStarted: st.builds(IterationStarted, counts),
    Usage: st.builds(Usage, st.integers(0, 6_000_000), st.integers(0, 4_000), counts, counts),
    ModelRefused: st.builds(
        ModelRefused, words, st.sampled_from(["", "run", "month", "turns", "lease", "tool_calls", "request", "busy"])
    ),
    Denial: st.builds(Denial, st.sampled_from(["decoy", "name", "tool", "egress"]), words, st.booleans()),
    JailExited: st.builds(
        JailExited,
        st.sampled_from(["coder", "tester"]),
        st.sampled_from(["exited", "killed", "deadline", "memory", "failed"]),
    ),
    SnapshotTaken: st.builds(SnapshotTaken, counts, words, counts, st.booleans(), words),
    Judged: st.builds(Judged, judges, outcomes, words, rules),
    IterationFinished: st.builds(IterationFinished, counts, words, st.booleans(), st.booleans(), counts, counts),
    CommitMade: st.builds(CommitMade, counts, words),
    Tick: st.just(Tick()),
    Polled: st.builds(Polled, st.integers(0, 2 * SMALL.disk_bytes), st.integers(0, 2 * SMALL.inodes)),
    Failed: st.builds(Failed, st.sampled_from(["gateway", "host", "agent", "contract", "preflight", "?"]), words),
    OperatorStopped: st.builds(OperatorStopped, words, words),
    StopStep: st.builds(StopStep, words, st.booleans()),
    Finished: st.builds(Finished, words),
}
assert set(_BY_TYPE) == set(EVENTS)  # a new event must be drawn, too

events = st.one_of(*_BY_TYPE.values())
# Without those that end a run at once, so that a random walk gets anywhere.
mild = st.one_of(
    *(strategy for event, strategy in _BY_TYPE.items() if event not in (Failed, OperatorStopped, Polled, Denial))
)


def of(event: type[Event]) -> st.SearchStrategy[Event]:
    """Draw one kind of event."""
    return _BY_TYPE[event]


def drive(sequence: Iterable[Event], state: State | None = None, step_ms: int = 1) -> tuple[State, list[Effect]]:
    """Every event in order, `step_ms` apart; the last state and all effects."""
    state, effects = state or State(), []
    for at, event in enumerate(sequence):
        state, made = decide(state, event, START_MS + at * step_ms)
        effects += made
    return state, effects


TO_WORKING: tuple[Event, ...] = (ACCEPTED, PreflightFinished(ok=True, reasons=(), failing=1), IterationStarted(1))
TO_JUDGING: tuple[Event, ...] = (
    *TO_WORKING,
    JailExited("coder", "exited"),
    SnapshotTaken(1, "tree1", 2, complete=True, why=""),
)
PASSED: tuple[Event, ...] = (Judged("scope", "PASS", "", ()), Judged("tests", "PASS", "", ()))
# One short honest history that leads to each phase.
WAYS: dict[Phase, tuple[Event, ...]] = {
    Phase.NEW: (),
    Phase.PREFLIGHT: TO_WORKING[:1],
    Phase.STARTING: TO_WORKING[:2],
    Phase.WORKING: TO_WORKING,
    Phase.SNAPSHOT: TO_JUDGING[:4],
    Phase.JUDGING: TO_JUDGING,
    Phase.COMMITTING: (*TO_JUDGING, *PASSED, IterationFinished(1, "tree1", True, True, 0, 0)),
    Phase.STOPPING: (*TO_WORKING, Failed("host", "x")),
    Phase.FINISHED: (*TO_WORKING, Failed("host", "x"), Finished("STOP_HOST_FAILED")),
}
