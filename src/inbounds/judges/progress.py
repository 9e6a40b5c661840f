"""Progress: did an iteration get nearer to the run's tests (M6)? From test outcomes alone.

Pure. Compares with the best standing so far, so that breaking and mending the same test never counts. Does not look at
diffs, messages or claims, and does not decide to stop (M7 is the kernel's).
"""

from dataclasses import dataclass

from inbounds.contracts.verdict import Outcome, Verdict

JUDGE = "progress"
IDS_MAX = 500  # ids listed in facts; counts are exact


@dataclass(frozen=True, slots=True)
class Standing:
    """Test ids after one iteration: `failing` holds failing, erroneous and missing ones; `accepted` acceptance ids."""

    failing: frozenset[str]
    accepted: frozenset[str] = frozenset()


def judge(start: Standing, best: Standing, after: Standing | None, acceptance: frozenset[str]) -> Verdict:
    """PASS is progress, FAIL is none, INCONCLUSIVE where the iteration's tests gave no usable answer (`after` None).

    Progress: fewer failing tests than the best so far, or an acceptance test satisfied that never was. `start` is the
    baseline. facts: progress, score (0 to 100, percent of the baseline's open tests satisfied, less what broke),
    newly_passing, newly_accepted, failing_best, failing_after.
    """
    if after is None:
        facts = {"progress": False, "score": 0, "newly_passing": [], "newly_accepted": []}
        return Verdict(JUDGE, Outcome.INCONCLUSIVE, "the tests gave no answer: no progress can be shown", (), facts)
    newly_accepted = sorted(after.accepted & acceptance - best.accepted)
    newly_passing = sorted((best.failing - after.failing) | set(newly_accepted))
    fewer = len(after.failing) < len(best.failing)
    moved = fewer or bool(newly_accepted)
    facts = {
        "progress": moved,
        "score": score(start, after, acceptance),
        "newly_passing": newly_passing[:IDS_MAX],
        "newly_accepted": newly_accepted[:IDS_MAX],
        "failing_best": len(best.failing),
        "failing_after": len(after.failing),
    }
    summary = f"failing tests {len(best.failing)} -> {len(after.failing)}, {len(newly_accepted)} newly accepted"
    return Verdict(JUDGE, Outcome.PASS if moved else Outcome.FAIL, summary, (), facts)


def score(start: Standing, after: Standing, acceptance: frozenset[str]) -> int:
    """Percent, 0 to 100, of the tests that were open at the start and now hold; each newly broken one costs one."""
    targets = (start.failing | acceptance) - start.accepted
    if not targets:
        return 0
    still_open = {t for t in targets if t in after.failing or (t in acceptance and t not in after.accepted)}
    broken = after.failing - start.failing - targets
    return max(0, 100 * (len(targets) - len(still_open) - len(broken)) // len(targets))


def best(one: Standing, other: Standing) -> Standing:
    """The standing to measure the next iteration against: fewest failing, every acceptance test ever satisfied."""
    fewest = other.failing if len(other.failing) < len(one.failing) else one.failing
    return Standing(fewest, one.accepted | other.accepted)
