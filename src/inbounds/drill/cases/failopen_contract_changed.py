"""A frozen contract that is changed while the run goes on: the budget in it doubled, the judge taken out (E8, J13)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inbounds.contracts.canonical import canonical
from inbounds.drill import kept
from inbounds.drill.played import Run
from inbounds.kernel.events import Failed

CLASS = "failopen"
REQUIREMENT = "E8"
KIND = "host"
CONTRACT = {"version": 1, "run_id": kept.RUN_ID, "limits": {"budget_micro_usd": 5_000_000}, "required": ["tests"]}


def _change(run: Path) -> None:
    found = json.loads((run / kept.CONTRACT).read_bytes())
    found["limits"]["budget_micro_usd"] *= 2
    found["required"] = []
    (run / kept.CONTRACT).write_bytes(canonical(found))


def control(arena: Any) -> dict[str, Any]:
    """Whoever reads the file again when it needs a limit."""
    run = kept.write(arena.scratch, contract=CONTRACT)
    _change(run)
    return {"in_force": json.loads((run / kept.CONTRACT).read_bytes())["limits"]["budget_micro_usd"], "found": []}


def attack(arena: Any) -> dict[str, Any]:
    """The journal has its hash, and the kernel the limits: a contract that is another one stops the run."""
    run = kept.write(arena.scratch, contract=CONTRACT)
    if before := kept.faults(run, ("contract",)):
        raise ValueError(f"the untouched contract does not hold: {before}")
    _change(run)
    played = Run()
    played.begin()
    budget = played.state.limits.budget_micro_usd
    found = kept.faults(run, ("contract",))
    played.feed(*[Failed("contract", words) for words in found])
    return {"in_force": played.state.limits.budget_micro_usd - budget, "found": found, "code": played.code}


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Whether it was found, and what the run ends with."""
    said = after["said"]
    good = said["found"] and said["code"] == "STOP_TAMPERING" and said["in_force"] == 0
    words = f"{said['found'][0]}; {said['code']}" if good else f"a budget of {said['in_force']} is in force"
    return ("DETECTED" if good else "ESCAPED"), words
