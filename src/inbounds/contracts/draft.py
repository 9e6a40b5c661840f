"""Drafting a requirement and a plan from flags, deterministically: the same flags give the same bytes and hashes.

No model is asked. The draft says what it knows (goal, acceptance tests, limits) and leaves the rest to policy.
"""

from collections.abc import Sequence

from inbounds.contracts.canonical import digest
from inbounds.contracts.documents import Acceptance, LimitsText, Plan, Requirement, RequirementRef
from inbounds.contracts.paths import joined


def draft(
    *,
    goal: str,
    accept: Sequence[tuple[str, str]],
    owner: str,
    thread: str,
    targets: Sequence[str],
    limits: LimitsText,
    agent: str,
    model: str,
) -> tuple[Requirement, Plan]:
    """A requirement and a plan; `accept` holds (test id, sha256 of its file), `limits` the flags' values."""
    acceptance = tuple(Acceptance(criterion=f"{test} passes", test=test, sha256=sha256) for test, sha256 in accept)
    seed = digest(
        {"goal": goal, "accept": [list(pair) for pair in accept], "thread": thread, "targets": list(targets)}
    )[:8]
    requirement = Requirement(
        id=f"FR-{seed}",
        owner=owner,
        objective=goal,
        acceptance=acceptance,
        outputs=tuple(targets),
        cost_ceiling_usd=limits.budget_usd,
        runtime_ceiling=limits.wall_clock,
    )
    plan = Plan(
        version=1,
        plan_id=f"PLAN-{seed}",
        requirements=(RequirementRef(id=requirement.id),),
        targets=tuple(targets) or (joined(thread, "**"),),
        expected_changes=(goal,),
        risk="medium",
        limits=limits,
        agent=agent,
        model=model or None,
    )
    return requirement, plan
