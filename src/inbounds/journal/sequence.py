"""Was the stop a stop? The order that sections E10-E14 prescribe, read back from the records.

Pure. The rules: doors closed, frozen, stop event, persisted, killed, disposed of, in that order and each once; no
iteration and no jail but a judge's starts after the stop event; no tool call or model request *begins* after the doors
closed. What was in flight then may still be settled and is recorded later: its `began_at_ms` tells when it began, or
its `ms` where there is none.
"""

from itertools import pairwise

from inbounds.journal.chain import Record

STEPS = ("lease_closed", "frozen", "persisted", "killed", "disposed")
PLACES = frozenset({*STEPS, "stop.decided"})
# The event may stand before or behind the first two steps: doors are closed at once, the disk comes after.
BEFORE = (*pairwise(STEPS), ("stop.decided", "persisted"), ("stop.decided", "killed"), ("stop.decided", "disposed"))
DISPOSED = {"keep": "kept", "revert": "reverted", "quarantine": "quarantined"}
# Without a cgroup of its own a rootless run has no freezer: the kill is the freeze.
REQUIRED = frozenset({"lease_closed", "persisted", "killed", "disposed"})
# Judges look at a committed tree in jails of their own; the gate may ask them after the stop.
JUDGES = frozenset({"tester", "reviewer", "security"})


def stop_faults(records: list[Record]) -> list[str]:
    """What does not hold, in words; [] for a stop in order, and for a journal that has no stop event yet.

    A supervisor that died within the stop is followed by one that goes through the whole sequence again: repeats are
    in order only behind a `journal.recovered`, and the last pass must be complete.
    """
    stop = next((r for r in records if r.kind == "stop.decided"), None)
    if stop is None:
        return []
    passes = [found for found in _passes(records) if found]
    faults = [fault for found in passes for fault in _order(found, stop)]
    missing = REQUIRED - {_name(record) for record in passes[-1]}
    faults += [f"stop step {name} is missing" for name in STEPS if name in missing]
    return [*faults, *_later(records, stop)]


def _passes(records: list[Record]) -> list[list[Record]]:
    """The records of the stop, split where another writer took the journal over."""
    passes: list[list[Record]] = [[]]
    for record in records:
        if record.kind == "journal.recovered":
            passes.append([])
        elif record.kind in ("stop.step", "stop.decided"):
            passes[-1].append(record)
    return passes


def _name(record: Record) -> str:
    if record.kind == "stop.decided":
        return record.kind
    step = str(record.data.get("step"))
    return "disposed" if step in DISPOSED.values() else step


def _order(found: list[Record], stop: Record) -> list[str]:
    faults: list[str] = []
    at: dict[str, int] = {}
    for record in found:
        name, step = _name(record), str(record.data.get("step"))
        if name not in PLACES or name in at:
            faults.append(f"record {record.seq}: {'second' if name in at else 'unknown'} stop step {name}")
            continue
        at[name] = record.seq
        if name == "stop.decided":
            if any(record.data.get(key) != stop.data.get(key) for key in ("code", "disposal")):
                faults.append(f"record {record.seq}: another stop than record {stop.seq} decided")
            continue
        if record.data.get("ok") is not True:
            faults.append(f"record {record.seq}: stop step {step} failed: {record.data.get('detail', '')}"[:200])
        if name == "disposed" and DISPOSED.get(str(stop.data.get("disposal"))) != step:
            faults.append(f"record {record.seq}: {step}, where {stop.data.get('disposal')} was decided")
    for early, late in BEFORE:
        if early in at and late in at and at[early] > at[late]:
            faults.append(f"the stop is not in order: {late} before {early}")
    return faults


def _later(records: list[Record], stop: Record) -> list[str]:
    faults: list[str] = []
    closed = next((r for r in records if r.kind == "stop.step" and r.data.get("step") == "lease_closed"), None)
    for record in records:
        after_stop = record.seq > stop.seq
        if after_stop and record.kind in ("iteration.started", "broker.started", "gateway.started"):
            faults.append(f"record {record.seq}: {record.kind} after the stop")
        if after_stop and record.kind == "jail.started" and record.data.get("role") not in JUDGES:
            faults.append(f"record {record.seq}: a jail of role {record.data.get('role')} after the stop")
        if record.kind in ("tool.called", "model.usage") and closed is not None and record.seq > closed.seq:
            took = record.data.get("ms")
            if record.kind == "tool.called" and record.data.get("outcome") == "refused":
                continue
            began = record.data.get("began_at_ms", record.at_ms - took if type(took) is int else None)
            if type(began) is not int or began > closed.at_ms:
                faults.append(f"record {record.seq}: {record.kind} began after the doors were closed")
    return faults
