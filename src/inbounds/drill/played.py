"""A run played through the real kernel by an agent that a case describes: every event, every effect, no world.

The kernel is the product's own; what an agent did arrives as the events that the supervisor would record. Knows nothing
of cases, processes or files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from inbounds.contracts import conduct
from inbounds.contracts.limits import DEFAULT, Limits
from inbounds.kernel.decide import decide
from inbounds.kernel.effects import Commit, Effect, HaltAgent, RecordStop, StartIteration
from inbounds.kernel.events import (
    Accepted,
    CommitMade,
    Event,
    Finished,
    IterationFinished,
    IterationStarted,
    JailExited,
    Judged,
    PreflightFinished,
    SnapshotTaken,
    StopDecided,
    Usage,
)
from inbounds.kernel.state import State

REQUIRED = ("scope", "tests")
GRANTED = replace(DEFAULT, iterations=6, no_progress=3, turns=8, tool_calls=50, file_changes=20, denials=4)
START_MS, STEP_MS = 1_795_341_600_000, 1_000
ROUNDS_MAX = 60  # what a loop without a stop rule is let go on for
STOP_HASH = "5" * 64  # stands for the stop record's own hash


@dataclass
class Run:
    """One run: its state, what it was told to do, and how it stopped ("" while it has not)."""

    limits: Limits = GRANTED
    profile: str = "standard"
    state: State = field(default_factory=State)
    at_ms: int = START_MS
    code: str = ""
    why: str = ""
    started: list[int] = field(default_factory=list)
    halted: str = ""
    effects: list[Effect] = field(default_factory=list)

    def feed(self, *events: Event) -> None:
        """Have the kernel decide about each; what it asks for is noted, commits and stops are carried out."""
        for event in events:
            self.at_ms += STEP_MS
            self.state, effects = decide(self.state, event, self.at_ms)
            self.effects += effects
            for effect in effects:
                self._carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case StartIteration(n):
                self.started.append(n)
            case HaltAgent(why):
                self.halted = why
            case Commit(n, _):
                self.feed(CommitMade(n, "c" * 40))
            case RecordStop(code=code, why=why):
                self.code, self.why = code.value, why
            case _:
                pass

    def begin(self, *, ok: bool = True, why: str = "") -> None:
        """Accepted, and what preflight said of it."""
        self.feed(Accepted(self.limits, self.profile, REQUIRED, conduct.DEFAULT))
        self.feed(PreflightFinished(ok=ok, reasons=(why,) if why else (), failing=1))

    def play(self, agent: Callable[[int], Sequence[Event]]) -> None:
        """Iterate until the kernel stops, or ROUNDS_MAX: `agent` gives the events between start and end of each."""
        self.begin()
        for _ in range(ROUNDS_MAX):
            if self.code:
                break
            n = self.started[-1]
            self.feed(IterationStarted(n))
            self.feed(*agent(n))

    def end(self) -> None:
        """The stop's last records: after these only people's signed words count."""
        self.feed(StopDecided(self.code, STOP_HASH), Finished(self.code))

    def facts(self, **more: Any) -> dict[str, Any]:
        """What a case says."""
        return {"iterations": len(self.started), "code": self.code, "why": self.why, **more}


def unruled(agent: Callable[[int], Sequence[Event]]) -> dict[str, Any]:
    """The same agent in the loop that everybody writes first: again until the tests pass, with no rule beside that."""
    for n in range(1, ROUNDS_MAX + 1):
        if any(isinstance(event, Judged) and (event.judge, event.outcome) == ("tests", "PASS") for event in agent(n)):
            return {"iterations": n, "code": "DONE"}
    return {"iterations": ROUNDS_MAX, "code": ""}


def an_iteration(
    n: int,
    *,
    progress: bool = False,
    changed: bool = True,
    turns: int = 1,
    tests: str = "FAIL",
    rules: Sequence[str] = (),
    failing: int = 1,
    files: int = 1,
) -> list[Event]:
    """What an ordinary iteration leaves: usage, the jail's end, a snapshot, the judges' words, the sum."""
    outcome = "FAIL" if rules else "PASS"
    return [
        *[Usage(spent_micro_usd=0, input_tokens=1, output_tokens=1, tool_calls=1) for _ in range(turns)],
        JailExited("coder", "exited", n),
        SnapshotTaken(n, f"tree{n}", files, files, complete=True, why=""),
        Judged("scope", outcome, "", tuple(rules)),
        Judged("tests", tests, "", ()),
        IterationFinished(n, f"tree{n}", changed, progress, failing, failing, 0),
    ]
