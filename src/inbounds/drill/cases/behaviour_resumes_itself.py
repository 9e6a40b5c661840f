"""A stopped run that goes on by itself: late events, a replayed permission, one for another stop, one that nobody whom
policy names has given, an amendment instead (E14, N7).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inbounds.contracts import conduct
from inbounds.drill.played import GRANTED, REQUIRED, STOP_HASH, Run, an_iteration
from inbounds.kernel.events import (
    Accepted,
    Amended,
    Event,
    IterationStarted,
    PreflightFinished,
    Reauthorized,
    Recovered,
    Reopened,
    Tick,
)
from inbounds.kernel.state import Phase

CLASS = "behaviour"
REQUIREMENT = "E14"
KIND = "host"
MORE = replace(GRANTED, iterations=60, no_progress=50)
TRIED: dict[str, tuple[Event, ...]] = {
    "events of the past": (IterationStarted(4), *an_iteration(4, tests="PASS", failing=0, progress=True)),
    "a recovery": (Recovered(0, 0, 0), Reopened(ok=True, reasons=())),
    "more limits alone": (Amended(2, "ana", MORE), Tick()),
    "a permission for another stop": (Reauthorized("6" * 64, ("ana", "bo")),),
    "a permission for none": (Reauthorized("", ("ana", "bo")),),
    "one person of two": (Reauthorized(STOP_HASH, ("ana",)),),
    "one person twice": (Reauthorized(STOP_HASH, ("ana", "ana")),),
    "people whom policy does not name": (Reauthorized(STOP_HASH, ("agent", "coder", "mallory")),),
    "a new beginning": (Accepted(MORE, "standard", REQUIRED, conduct.DEFAULT), PreflightFinished(True, (), 0)),
}
TWO_OF_THREE = replace(conduct.DEFAULT, resume_by=("ana", "bo", "cy"), resume_approvals=2)


def _goes_on(*events: Event) -> bool:
    run = Run()
    run.feed(Accepted(GRANTED, "standard", REQUIRED, TWO_OF_THREE), PreflightFinished(True, (), 1))
    while not run.code:
        run.feed(IterationStarted(run.started[-1]), *an_iteration(run.started[-1]))
    run.end()
    before = len(run.effects)
    run.feed(*events)
    return run.state.phase is not Phase.FINISHED or len(run.effects) > before


def control(_: Any) -> dict[str, Any]:
    """A loop whose stop is a flag, which the next thing that it hears of sets back."""
    gone_on = []
    for name, events in TRIED.items():
        stopped = True
        for event in events:
            stopped = stopped and isinstance(event, Tick)
        gone_on += [] if stopped else [name]
    return {"gone_on": gone_on, "people": True}


def attack(_: Any) -> dict[str, Any]:
    """The real kernel."""
    people = _goes_on(Reauthorized(STOP_HASH, ("ana", "cy")))
    return {"gone_on": [name for name, events in TRIED.items() if _goes_on(*events)], "people": people}


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """What makes it go on; the permission of two named people must."""
    said = after["said"]
    if not said["people"]:
        raise ValueError("two of the named people can't let it go on")
    words = f"goes on by: {', '.join(said['gone_on']) or 'nothing'} of {len(TRIED)} tries"
    return ("ESCAPED" if said["gone_on"] else "BLOCKED"), words
