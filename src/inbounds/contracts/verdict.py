"""What a judge says: PASS, FAIL or INCONCLUSIVE, with its evidence (ARCHITECTURE, step 7).

INCONCLUSIVE never opens a gate. Standard library only: kernel and journal carry these as plain data.
"""

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """A judge's answer."""

    PASS = "PASS"  # noqa: S105 - a verdict, no password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


class Severity(StrEnum):
    """How bad one finding is; CRITICAL and HIGH stop a run at once."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One observation: `rule` is a stable id such as "scope.undeclared", `path` is repository-relative or ""."""

    rule: str
    severity: Severity
    path: str
    message: str
    line: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's answer about one tree; `facts` is JSON-able evidence (tool version, counts, what was skipped)."""

    judge: str
    outcome: Outcome
    summary: str
    findings: tuple[Finding, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain data for the journal."""
        return asdict(self)
