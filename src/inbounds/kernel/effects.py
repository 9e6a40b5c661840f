"""What the kernel asks the world to do. Data only: `run/` carries them out, in the order given.

Standard library only. The stop sequence (E10-E14) is `STOP_SEQUENCE`, the same for every cause.
"""

from dataclasses import dataclass
from typing import TypeAlias

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


@dataclass(frozen=True, slots=True)
class Persist:
    """Stop, step 3: snapshot, diff and logs to disk (E12)."""


@dataclass(frozen=True, slots=True)
class Kill:
    """Nothing of the run is alive after this."""


@dataclass(frozen=True, slots=True)
class Dispose:
    """Stop, step 4: keep, revert to the last checkpoint, or quarantine (E13)."""

    disposal: Disposal


@dataclass(frozen=True, slots=True)
class Finish:
    """Stop, step 5: promotion where policy allows, manifest, report; nothing resumes by itself (E14)."""

    code: StopCode


Effect: TypeAlias = (
    RunPreflight
    | StartIteration
    | HaltAgent
    | TakeSnapshot
    | Judge
    | Commit
    | CloseDoors
    | Freeze
    | RecordStop
    | Persist
    | Kill
    | Dispose
    | Finish
)


def stop_sequence(code: StopCode, why: str, disposal: Disposal) -> tuple[Effect, ...]:
    """The one way in which every run ends."""
    return (
        CloseDoors(),
        Freeze(),
        RecordStop(code, why, disposal),
        Persist(),
        Kill(),
        Dispose(disposal),
        Finish(code),
    )
