"""What the kernel asks the world to do. Data only: `run/` carries them out, in the order given.

Standard library only. The stop sequence (E10-E14) is `STOP_SEQUENCE`, the same for every cause.
"""

from dataclasses import dataclass
from typing import TypeAlias

from inbounds.contracts.limits import Limits
from inbounds.contracts.reasons import Disposal, StopCode


@dataclass(frozen=True, slots=True)
class RunPreflight:
    """Probe the host, run the baseline suite, check the budget."""


@dataclass(frozen=True, slots=True)
class StartIteration:
    """Put the agent in a fresh jail and let it go."""

    n: int


@dataclass(frozen=True, slots=True)
class HaltAgent:
    """End the agent's jail; the iteration is judged on what stands."""

    why: str


@dataclass(frozen=True, slots=True)
class TakeSnapshot:
    """Turn the workspace into a tree."""

    n: int


@dataclass(frozen=True, slots=True)
class Judge:
    """Have every judge look at the tree."""

    n: int
    tree: str


@dataclass(frozen=True, slots=True)
class Commit:
    """Put the tree on the agent branch, with plan id and iteration in the message (K6)."""

    n: int
    tree: str


@dataclass(frozen=True, slots=True)
class SlowDown:
    """Slow before stop (E9): requests keep an interval, the agent's processes get a share of a processor."""

    interval_ms: int
    cpu_percent: int


@dataclass(frozen=True, slots=True)
class Escalate:
    """Pause the lease and ask a person; without an answer by then the run ends (G8)."""

    why: str
    until_ms: int


@dataclass(frozen=True, slots=True)
class ApplyLimits:
    """The amended limits hold from now on, at the gateway too; `unpause`: an escalation is answered."""

    limits: Limits
    unpause: bool


@dataclass(frozen=True, slots=True)
class Reopen:
    """Make workspace, judges, gateway and broker stand again; `restore`: begin from the last safe checkpoint."""

    checkpoint: str
    restore: bool


@dataclass(frozen=True, slots=True)
class CloseDoors:
    """Stop, step 1: gateway lease and tool broker admit nothing any more (E10)."""


@dataclass(frozen=True, slots=True)
class Freeze:
    """Stop every process of the run; without a delegated cgroup this is the kill."""


@dataclass(frozen=True, slots=True)
class RecordStop:
    """Stop, step 2: append the stop event (E11)."""

    code: StopCode
    why: str
    disposal: Disposal
    checkpoint: str


@dataclass(frozen=True, slots=True)
class Persist:
    """Stop, step 3: snapshot, diff and logs to disk (E12)."""


@dataclass(frozen=True, slots=True)
class Kill:
    """Nothing of the run is alive after this."""


@dataclass(frozen=True, slots=True)
class Dispose:
    """Stop, step 4: keep, revert to the last safe checkpoint ("": the base), or quarantine (E13)."""

    disposal: Disposal
    checkpoint: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Stop, step 5: promotion where policy allows, manifest, report; nothing resumes by itself (E14)."""

    code: StopCode


StopEffect: TypeAlias = CloseDoors | Freeze | RecordStop | Persist | Kill | Dispose | Finish

Effect: TypeAlias = (
    RunPreflight
    | StartIteration
    | HaltAgent
    | TakeSnapshot
    | Judge
    | Commit
    | SlowDown
    | Escalate
    | ApplyLimits
    | Reopen
    | StopEffect
)


def stop_sequence(code: StopCode, why: str, disposal: Disposal, checkpoint: str) -> tuple[StopEffect, ...]:
    """The one way in which every run ends; `checkpoint` is the last tree to which no judge objected, "" the base."""
    return (
        CloseDoors(),
        Freeze(),
        RecordStop(code, why, disposal, checkpoint),
        Persist(),
        Kill(),
        Dispose(disposal, checkpoint),
        Finish(code),
    )
