"""Was the stop a stop? The order that sections E10-E14 prescribe, read back from the records.

Pure. The rules: doors closed, frozen, stop event, persisted, killed, disposed of, in that order and each once; no
iteration and no jail but a judge's starts after the stop event; no tool call or model request *begins* after the doors
closed. What was in flight then may still be settled and is recorded later: a record's own `ms` tells when it began.
"""

from inbounds.journal.chain import Record

STEPS = ("lease_closed", "frozen", "persisted", "killed", "disposed")
DISPOSED = {"keep": "kept", "revert": "reverted", "quarantine": "quarantined"}
# Without a cgroup of its own a rootless run has no freezer: the kill is the freeze.
REQUIRED = frozenset({"lease_closed", "persisted", "killed", "disposed"})
# Judges look at a committed tree in jails of their own; the gate may ask them after the stop.
JUDGES = frozenset({"tester", "reviewer", "security"})


def stop_faults(records: list[Record]) -> list[str]:
    """What does not hold, in words; [] for a stop in order, and for a journal that has no stop event yet."""
    stop = next((r for r in records if r.kind == "stop.decided"), None)
    if stop is None:
        return []
    return [*_order(records, stop), *_later(records, stop)]


def _order(records: list[Record], stop: Record) -> list[str]:
    faults: list[str] = []
    at: dict[str, int] = {}
    for record in (r for r in records if r.kind == "stop.step"):
        step = str(record.data.get("step"))
        name = "disposed" if step in DISPOSED.values() else step
        if name not in STEPS or name in at:
            faults.append(f"record {record.seq}: {'second' if name in at else 'unknown'} stop step {step}")
            continue
        at[name] = record.seq
        if record.data.get("ok") is not True:
            faults.append(f"record {record.seq}: stop step {step} failed: {record.data.get('detail', '')}"[:200])
        if name == "disposed" and DISPOSED.get(str(stop.data.get("disposal"))) != step:
            faults.append(f"record {record.seq}: {step}, where {stop.data.get('disposal')} was decided")
    faults += [f"stop step {name} is missing" for name in STEPS if name in REQUIRED and name not in at]
    order = [at[name] for name in STEPS if name in at]
    if order != sorted(order):
        faults.append("the stop's steps are not in order")
    faults += [
        f"{name} before the stop event"
        for name in ("persisted", "killed", "disposed")
        if at.get(name, stop.seq + 1) < stop.seq
    ]
    return faults


def _later(records: list[Record], stop: Record) -> list[str]:
    faults: list[str] = []
    closed = next((r for r in records if r.kind == "stop.step" and r.data.get("step") == "lease_closed"), None)
    for record in records:
        after_stop = record.seq > stop.seq
        if after_stop and record.kind in ("iteration.started", "gateway.started", "broker.started"):
            faults.append(f"record {record.seq}: {record.kind} after the stop")
        if after_stop and record.kind == "jail.started" and record.data.get("role") not in JUDGES:
            faults.append(f"record {record.seq}: a jail of role {record.data.get('role')} after the stop")
        if record.kind in ("tool.called", "model.usage") and closed is not None and record.seq > closed.seq:
            took = record.data.get("ms")
            if record.kind == "tool.called" and record.data.get("outcome") == "refused":
                continue
            if type(took) is not int or record.at_ms - took > closed.at_ms:
                faults.append(f"record {record.seq}: {record.kind} began after the doors were closed")
    return faults
