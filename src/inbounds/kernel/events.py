"""What can happen to a run: the journal's records as typed events, and the parsing between the two.

Each event is one record kind; fields are what a stop rule needs, the rest of a record's data stays in the journal.
Standard library only; no clock: `at_ms` (Unix milliseconds) arrives with every event. A field named `ref` is the
record's own hash: what a later record is bound to.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias, get_args

from inbounds.contracts import conduct, limits
from inbounds.contracts.conduct import Conduct
from inbounds.contracts.limits import Limits


@dataclass(frozen=True, slots=True)
class Accepted:
    """The contract is bound and journalled: the run exists."""

    KIND = "run.accepted"
    limits: Limits
    profile: str
    required_judges: tuple[str, ...]
    conduct: Conduct


@dataclass(frozen=True, slots=True)
class PreflightFinished:
    """The host was probed and the baseline suite ran."""

    KIND = "preflight.finished"
    ok: bool
    reasons: tuple[str, ...]
    failing: int


@dataclass(frozen=True, slots=True)
class IterationStarted:
    """An agent was told to go."""

    KIND = "iteration.started"
    n: int


@dataclass(frozen=True, slots=True)
class Usage:
    """The gateway settled one request; `spent_micro_usd` is the run's total with it."""

    KIND = "model.usage"
    spent_micro_usd: int
    input_tokens: int
    output_tokens: int
    tool_calls: int


@dataclass(frozen=True, slots=True)
class ModelRefused:
    """The gateway refused a request; `cap` names a spent cap, or is empty for other reasons."""

    KIND = "model.refused"
    reason: str
    cap: str


@dataclass(frozen=True, slots=True)
class Denial:
    """The agent reached for something and was refused, or opened a decoy (`sensitive`)."""

    KIND = "denial"
    what: str
    detail: str
    sensitive: bool


@dataclass(frozen=True, slots=True)
class JailExited:
    """A jail ended; only the coder's of this very iteration moves the run on."""

    KIND = "jail.exited"
    role: str
    reason: str
    n: int


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    """The workspace was turned into a tree of the trusted store."""

    KIND = "snapshot.taken"
    n: int
    tree: str
    changed: int
    iteration_changed: int
    complete: bool
    why: str


@dataclass(frozen=True, slots=True)
class Judged:
    """One judge's verdict; `rules` are the ids of its critical and high findings."""

    KIND = "verdict"
    judge: str
    outcome: str
    summary: str
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IterationFinished:
    """All judges spoke about one iteration's tree; `regressions` are tests that passed at the base and do not now."""

    KIND = "iteration.finished"
    n: int
    tree: str
    changed: bool
    progress: bool
    acceptance_failing: int
    failing_after: int
    regressions: int


@dataclass(frozen=True, slots=True)
class CommitMade:
    """The iteration's tree stands on the agent branch."""

    KIND = "commit.made"
    n: int
    commit: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed; journalled only when it decides something."""

    KIND = "clock.tick"


@dataclass(frozen=True, slots=True)
class Polled:
    """What the workspace holds now (rootless has no quota: polled, so an overshoot is possible and stated)."""

    KIND = "volume.polled"
    bytes: int
    inodes: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Something failed its bounds or its work; `part`: gateway, broker, host, agent, contract, supervisor, or gpu."""

    KIND = "part.failed"
    part: str
    detail: str


@dataclass(frozen=True, slots=True)
class OperatorStopped:
    """A person asked for a stop; for an incident, which quarantines and takes its own number of approvals to go on."""

    KIND = "operator.stopped"
    who: str
    why: str
    incident: bool


@dataclass(frozen=True, slots=True)
class Recovered:
    """The supervisor had died and another one takes the run up; the numbers are the ledger's, which outlived it."""

    KIND = "run.recovered"
    spent_micro_usd: int
    tokens: int
    tool_calls: int


@dataclass(frozen=True, slots=True)
class Reopened:
    """Workspace, judges, gateway and broker stand again, or `reasons` say why not."""

    KIND = "run.reopened"
    ok: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Amended:
    """The owner signed a new version of the limits: the only way that one changes mid-run (E8, M8)."""

    KIND = "contract.amended"
    version: int
    operator: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class StopDecided:
    """The stop event itself (E11); what re-authorizes the run names its hash."""

    KIND = "stop.decided"
    code: str
    ref: str


@dataclass(frozen=True, slots=True)
class Reauthorized:
    """People whom policy names have looked at the stop with this hash and let the run go on (E14, N7)."""

    KIND = "run.reauthorized"
    stop_hash: str
    operators: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StopStep:
    """One step of the stop sequence was carried out."""

    KIND = "stop.step"
    step: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Finished:
    """The run's last record."""

    KIND = "run.finished"
    code: str


Event: TypeAlias = (
    Accepted
    | PreflightFinished
    | IterationStarted
    | Usage
    | ModelRefused
    | Denial
    | JailExited
    | SnapshotTaken
    | Judged
    | IterationFinished
    | CommitMade
    | Tick
    | Polled
    | Failed
    | OperatorStopped
    | Recovered
    | Reopened
    | Amended
    | StopDecided
    | Reauthorized
    | StopStep
    | Finished
)

EVENTS: tuple[type[Event], ...] = get_args(Event)
BY_KIND: dict[str, type[Event]] = {event.KIND: event for event in EVENTS}


# How a field is read: by its type where JSON has it, by a parser of its own where it is a frozen value.
_PARSED: dict[Any, Callable[[Any], Any]] = {Limits: limits.from_json, Conduct: conduct.from_json}
_SHAPES: dict[type[Event], tuple[tuple[str, Any], ...]] = {
    event: tuple((f.name, f.type if f.type in (int, str, bool, Limits, Conduct) else tuple) for f in fields(event))
    for event in EVENTS
}


def parse(kind: str, data: Mapping[str, Any], ref: str = "") -> Event | None:
    """The event in a record with hash `ref`, or None for kinds that no rule reads.

    KeyError or TypeError for a malformed record.
    """
    event = BY_KIND.get(kind)
    if event is None:
        return None
    make: Callable[..., Event] = event
    return make(*[ref if name == "ref" else _typed(kind, name, data[name], shape) for name, shape in _SHAPES[event]])


def read(kind: str, data: Mapping[str, Any], ref: str = "") -> Event | None:
    """As `parse`; a record that no rule can read is a failure, when it is written and at every replay alike."""
    try:
        return parse(kind, data, ref)
    except (KeyError, TypeError, ValueError) as error:
        return Failed("host", f"a malformed record {kind}: {type(error).__name__}: {error}")


def _typed(kind: str, name: str, value: Any, shape: Any) -> Any:
    """The value if it is an int, str or bool as declared, or a tuple of str; a bool is no int here."""
    if shape in _PARSED:
        return _PARSED[shape](value)
    if shape is tuple:
        if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
            return tuple(value)
    elif isinstance(value, shape) and (shape is not int or not isinstance(value, bool)):
        return value
    raise TypeError(f"{kind}: {name} is {type(value).__name__}")
