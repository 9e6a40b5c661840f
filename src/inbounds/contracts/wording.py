"""Vague wording in a requirement, with its line (A8, A9): what nobody could test is said before anything starts.

It reports, and refuses only what has no executable acceptance criterion at all; taste stays with people.
"""

import re
from dataclasses import dataclass

from inbounds.contracts.documents import Requirement

VAGUE = re.compile(
    r"\b(improve|better|nicer|clean ?up|as needed|as appropriate|if possible|etc|and so on|user[- ]friendly|robust|"
    r"fast(er)?|efficient|optimi[sz]e|handle properly|should work|make it work|some|various|several|flexible)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Remark:
    """One remark about a requirement: which part of SMART it misses, and why."""

    requirement: str
    field: str
    word: str
    why: str


def remarks(requirement: Requirement) -> tuple[Remark, ...]:
    """What is not specific, measurable, achievable, relevant or time-bound."""
    found: list[Remark] = []
    texts = [("objective", requirement.objective), *(("acceptance", a.criterion) for a in requirement.acceptance)]
    for field, text in texts:
        found += [
            Remark(requirement.id, field, match[0], f"{match[0]!r} names no outcome that a test could check")
            for match in VAGUE.finditer(text)
        ]
    if not requirement.acceptance:
        found.append(
            Remark(requirement.id, "acceptance", "", "no acceptance criterion: nothing could ever end this run")
        )
    if requirement.runtime_ceiling is None:
        found.append(Remark(requirement.id, "runtime_ceiling", "", "not time-bound: the thread's limit applies"))
    return tuple(found)
