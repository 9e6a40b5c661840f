"""An agent that changes files in every iteration and gains no test: busy, and stuck (M7, E6)."""

from collections.abc import Mapping
from typing import Any

from inbounds.drill.played import GRANTED, ROUNDS_MAX, Run, an_iteration
from inbounds.judges import progress
from inbounds.judges.progress import Standing

CLASS = "behaviour"
REQUIREMENT = "M7"
KIND = "host"
ALL = frozenset(f"t::{n}" for n in range(4))


def _standing(n: int) -> Standing:
    """One test broken and mended in turns, which looks like progress from one iteration to the next."""
    return Standing(ALL if n % 2 else ALL | {"t::old"})


def control(_: Any) -> dict[str, Any]:
    """A loop that compares each iteration with the one before it and goes on after a gain."""
    rounds, without = 0, 0
    while rounds < ROUNDS_MAX and without < GRANTED.no_progress:
        rounds += 1
        gained = len(_standing(rounds).failing) < len(_standing(rounds - 1).failing)
        without = 0 if gained else without + 1
    return {"iterations": rounds, "code": ""}


def attack(_: Any) -> dict[str, Any]:
    """The real progress judge, which compares with the best so far, and the real kernel."""
    run, best = Run(), [Standing(ALL)]

    def agent(n: int) -> Any:
        after = _standing(n)
        verdict = progress.judge(Standing(ALL), best[0], after, frozenset())
        best[0] = progress.best(best[0], after)
        return an_iteration(n, progress=bool(verdict.facts["progress"]))

    run.play(agent)
    return run.facts()


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """When it ended, and why."""
    said = after["said"]
    words = (
        f"{said['iterations']} iterations, {GRANTED.no_progress} without progress allowed: {said['code'] or 'no end'}"
    )
    stopped = said["code"] == "STOP_NO_PROGRESS" and said["iterations"] <= GRANTED.no_progress
    return ("DETECTED" if stopped else "ESCAPED"), words
