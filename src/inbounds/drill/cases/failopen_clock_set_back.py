"""The clock set back by an hour in the middle of a run: records that are younger than what they follow from, and a wall
clock with an hour more on it (E1, H14).
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from inbounds.drill import kept
from inbounds.drill.played import GRANTED, Run
from inbounds.journal.signing import open_signer
from inbounds.journal.writer import Journal
from inbounds.kernel.events import IterationStarted, Tick

CLASS = "failopen"
REQUIREMENT = "H14"
KIND = "host"
HOUR = 3_600_000


def control(arena: Any) -> dict[str, Any]:
    """A log that writes down what the clock says."""
    log = Path(arena.scratch) / "log"
    log.write_text(f"{kept.AT_MS} start\n{kept.AT_MS + 1_000 - HOUR} denial\n")
    times = [int(line.split()[0]) for line in log.read_text().splitlines()]
    return {"backwards": sum(b < a for a, b in pairwise(times)), "told": False}


def attack(arena: Any) -> dict[str, Any]:
    """The real journal, and the kernel on the times that it records."""
    run = Path(arena.scratch) / "runs" / kept.RUN_ID
    with Journal.open(
        run / kept.JOURNAL, at_ms=kept.AT_MS, signer=open_signer(Path(arena.scratch) / "keys")
    ) as journal:
        journal.append("iteration.started", {"n": 1}, kept.AT_MS + 5_000)
        at_ms = journal.append("denial", {"what": "name"}, kept.AT_MS + 6_000 - HOUR).at_ms
    records = kept.records(run)
    times = [record["at_ms"] for record in records]
    played = Run(limits=replace(GRANTED, wall_clock_ms=60_000))
    played.begin()
    played.feed(IterationStarted(1))
    played.at_ms += 60_000 + at_ms - (kept.AT_MS + 5_000)  # a minute later on the recorded clock, which stood still
    played.feed(Tick())
    return {
        "backwards": sum(b < a for a, b in pairwise(times)),
        "told": any(record["kind"] == "journal.clock_set_back" and record["data"]["ms"] > 0 for record in records),
        "code": played.code,
    }


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Whether time goes backwards in the record, and whether that it was set back is told."""
    said = after["said"]
    good = not said["backwards"] and said["told"] and said["code"] == "STOP_RUNTIME_EXCEEDED"
    words = f"{said['backwards']} records go back in time, told: {said['told']}, {said.get('code', 'no stop')}"
    return ("DETECTED" if good else "ESCAPED"), words
