"""The gate's rules as a pure function: evidence in, reasons to refuse out; an empty answer opens it (D7, K3).

Deterministic, and nothing of git: whether trees and commits fit together is landing's to say.
"""

from inbounds.contracts.reasons import StopCode
from inbounds.contracts.verdict import Outcome
from inbounds.promote.request import Request

# What this judge objects to is unusual, not wrong: an operator's signature over the exact tree answers it (H16-H20).
FOR_A_PERSON = "anomalies"


def objections(request: Request) -> tuple[str, ...]:
    """Why this request may not pass, in words for a person; never empty for anything but a full set of PASS."""
    if request.op == "rollback":
        return () if request.target == "development" else (f"{request.target} is not rolled back by this gate",)
    found = []
    if request.target != "development":
        found.append(f"{request.target} needs a signed approval of the exact tree, which this gate cannot check yet")
    if request.evidence.stop_code != StopCode.DONE:
        found.append(f"the run ended with {request.evidence.stop_code!r}, not DONE")
    if not request.required_judges:
        found.append("no judge is required: a gate without judges opens for nobody")
    judged = {judge for judge, _ in request.evidence.verdicts}
    found += [f"judge {judge} has not judged" for judge in request.required_judges if judge not in judged]
    # Every verdict counts, required or not: an objection is not outvoted, and doubt never opens a gate.
    found += [
        _objects(judge, outcome, request)
        for judge, outcome in request.evidence.verdicts
        if (outcome is Outcome.FAIL or (outcome is not Outcome.PASS and judge in request.required_judges))
        and not (_for_a_person(judge, outcome) and request.evidence.signatures)
    ]
    return tuple(found)


def _for_a_person(judge: str, outcome: Outcome) -> bool:
    return judge == FOR_A_PERSON and outcome is Outcome.FAIL


def _objects(judge: str, outcome: Outcome, request: Request) -> str:
    said = f"judge {judge} says {outcome.value}"
    if _for_a_person(judge, outcome):
        said += f"; a person who has looked may sign for this tree: inbounds approve {request.evidence.run_id}"
    return said
