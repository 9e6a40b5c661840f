"""What the kernel remembers of a run; everything in it follows from the journal. Standard library only."""

from dataclasses import dataclass, field
from enum import StrEnum

from inbounds.contracts import conduct
from inbounds.contracts.conduct import Conduct
from inbounds.contracts.limits import DEFAULT, Limits


class Phase(StrEnum):
    """Where a run is; the arrows are in decide.py."""

    NEW = "new"
    PREFLIGHT = "preflight"
    STARTING = "starting"
    WORKING = "working"
    SNAPSHOT = "snapshot"
    JUDGING = "judging"
    COMMITTING = "committing"
    REOPENING = "reopening"
    STOPPING = "stopping"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class State:
    """One run's state; counters are totals unless their name says iteration.

    `checkpoint` is the last committed tree to which no judge objected ("": the base), `version` that of the limits,
    `resume_at` where a reopened run goes on and `restore` whether from the checkpoint, `escalated_version` the limits'
    version in which was escalated (0: never).
    """

    phase: Phase = Phase.NEW
    limits: Limits = DEFAULT
    profile: str = "standard"
    required_judges: tuple[str, ...] = ()
    conduct: Conduct = conduct.DEFAULT
    version: int = 1
    started_ms: int = 0
    n: int = 0
    iteration_turns: int = 0
    spent_micro_usd: int = 0
    tokens: int = 0
    tool_calls: int = 0
    denials: int = 0
    without_progress: int = 0
    tree: str = ""
    checkpoint: str = ""
    safe: bool = False
    recoveries: int = 0
    resume_at: Phase = Phase.NEW
    restore: bool = False
    slowed: bool = False
    escalated_version: int = 0
    escalated_until_ms: int = 0
    stop_code: str = ""
    stop_hash: str = ""
    incident: bool = False
    halted: bool = False
    verdicts: dict[str, str] = field(default_factory=dict)
    acceptance_failing: int = -1
    done: bool = False
