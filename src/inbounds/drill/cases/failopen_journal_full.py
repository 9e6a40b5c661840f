"""A disk that takes no more of the journal: what is not written did not happen, for whoever goes on all the same (E11)."""

import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inbounds.contracts.errors import HostError
from inbounds.drill import kept
from inbounds.journal.signing import open_signer
from inbounds.journal.writer import Journal

CLASS = "failopen"
REQUIREMENT = "H14"
KIND = "host"
RECORDS, TEXT, ROOM = 40, "x" * 2_000, 24 << 10


def _little_room() -> None:
    """From here on no file of this process grows beyond so many bytes; the signal for it is ignored by the interpreter."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))


def control(arena: Any) -> dict[str, Any]:
    """A log whose errors are nobody's business."""
    _little_room()
    path = Path(arena.scratch) / "log"
    for n in range(RECORDS):
        try:
            with path.open("ab", buffering=0) as file:
                file.write(f"{n} {TEXT}\n".encode())
        except OSError:
            continue
    kept_lines = sum(line.endswith(TEXT) for line in path.read_text().splitlines())
    return {"went_on": RECORDS, "kept": kept_lines, "faults": []}


def attack(arena: Any) -> dict[str, Any]:
    """The real journal."""
    run = Path(arena.scratch) / "runs" / kept.RUN_ID
    signer = open_signer(Path(arena.scratch) / "keys")
    went_on = 0
    journal = Journal.open(run / kept.JOURNAL, at_ms=kept.AT_MS, signer=signer)
    journal.append("run.accepted", {"run_id": kept.RUN_ID, "journal_key": str(signer.key)}, kept.AT_MS)
    _little_room()
    try:
        for n in range(RECORDS):
            journal.append("agent.said", {"n": n, "text": TEXT}, kept.AT_MS + n)
            went_on += 1
    except HostError:
        pass
    finally:
        journal.close(in_order=False)
    told = [record for record in kept.records(run) if record["kind"] == "agent.said"]
    chain = [fault for fault in kept.faults(run) if fault.startswith("chain")]
    return {"went_on": went_on, "kept": len(told), "faults": chain}


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Whether anything went on that is not on record; some must have been written, and then no more."""
    said = after["said"]
    if not said["kept"]:
        raise ValueError("nothing was written before the disk was full")
    good = said["went_on"] == said["kept"] < RECORDS and not said["faults"]
    words = f"{said['went_on']} of {RECORDS} steps went on, {said['kept']} on record, {said['faults'] or 'chain whole'}"
    return ("BLOCKED" if good else "ESCAPED"), words
