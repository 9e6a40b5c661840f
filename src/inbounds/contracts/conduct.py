"""How policy wants a run conducted: slow-down, escalation, snapshots, recovery, disposal, who may re-authorize.

Frozen with the contract and stated in run.accepted, so that a replay decides alike. Standard library only: the kernel
uses it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from inbounds.contracts.reasons import MEANING, Disposal, StopCode

APPROVALS_MAX = 10  # more people than ever look at one stop


@dataclass(frozen=True, slots=True)
class Conduct:
    """Times in milliseconds; a percentage of 0 means never.

    `slow_*`: from this share of money, tokens, tool calls or denials on, requests keep an interval and the agent gets
    this share of a processor. `escalate_*`: from this share of the money on, the lease pauses until an operator has
    answered, and the run ends when nobody does. `quarantine`: stop codes that quarantine where the table says revert.
    """

    slow_at_percent: int = 0
    slow_interval_ms: int = 0
    slow_cpu_percent: int = 100
    escalate_at_percent: int = 0
    escalate_wait_ms: int = 0
    quarantine: tuple[str, ...] = ()
    resume_by: tuple[str, ...] = ()
    resume_approvals: int = 1
    incident_approvals: int = 1
    recovery: str = "continue"
    snapshot_every_ms: int = 600_000
    snapshots_kept: int = 12
    timestamp_url: str = ""
    timestamp_ca: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain data, for contract and journal."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def disposal(self, code: StopCode) -> Disposal:
        """What becomes of the workspace: the table's word, or quarantine where policy wants it."""
        stated = MEANING[code][0]
        return Disposal.QUARANTINE if stated is Disposal.REVERT and code.value in self.quarantine else stated


def from_json(data: Mapping[str, Any]) -> Conduct:
    """Read back what `as_json` wrote; TypeError for anything else."""
    if not isinstance(data, Mapping) or set(data) != {f.name for f in fields(Conduct)}:
        raise TypeError("a conduct that is not this program's")
    for f in fields(Conduct):
        value, wanted = data[f.name], type(getattr(DEFAULT, f.name))
        if wanted is tuple:
            if not isinstance(value, (list, tuple)) or not all(type(item) is str for item in value):
                raise TypeError(f"conduct: {f.name} is no list of names")
        elif type(value) is not wanted:
            raise TypeError(f"conduct: {f.name} is {type(value).__name__}")
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items()}
    return Conduct(**values)


DEFAULT = Conduct()
