"""An agent that ends at once, again and again, without a question to its model and without a change (a broken start)."""

from collections.abc import Mapping
from typing import Any

from inbounds.drill.played import Run, an_iteration, unruled
from inbounds.kernel.events import Event

CLASS = "behaviour"
REQUIREMENT = "H20"
KIND = "host"


def _agent(n: int) -> list[Event]:
    return an_iteration(n, turns=0, changed=False, files=0)


def control(_: Any) -> dict[str, Any]:
    """A loop around a command that exits with 0."""
    return unruled(_agent)


def attack(_: Any) -> dict[str, Any]:
    """The real kernel."""
    run = Run()
    run.play(_agent)
    return run.facts()


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """How often it was started."""
    said = after["said"]
    words = f"{said['iterations']} iterations, ended with {said['code'] or 'nothing'}: {said.get('why', '')}"
    return ("DETECTED" if said["code"] == "STOP_AGENT_FAILED" and said["iterations"] == 1 else "ESCAPED"), words
