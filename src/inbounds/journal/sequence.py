"""Legs, stops and ends: was each stop a stop, and did nothing go on that no person let go on? (E10-E14, ADR 9)

Pure; takes the records one by one and remembers only the current leg. The rules of a stop: doors closed, frozen, stop
event, persisted, killed, disposed of, in that order and each once; no iteration and no jail but a judge's starts after
the stop event; no tool call or model request *begins* after the doors closed. What was in flight then may still be
settled and is recorded later: its `began_at_ms` tells when it began, or its `ms` where there is none.
"""

from collections.abc import Callable
from itertools import pairwise

from inbounds.journal.chain import Record
from inbounds.journal.damage import Damage, Fault

STEPS = ("lease_closed", "frozen", "persisted", "killed", "disposed")
PLACES = frozenset({*STEPS, "stop.decided"})
# The event may stand before or behind the first two steps: doors are closed at once, the disk comes after.
BEFORE = (*pairwise(STEPS), ("stop.decided", "persisted"), ("stop.decided", "killed"), ("stop.decided", "disposed"))
# The verifier's own word for what the supervisor has in contracts/reasons.py: it reads, and shares nothing that acts.
DISPOSED = {"keep": "kept", "revert": "reverted", "quarantine": "quarantined"}
# Without a cgroup of its own a rootless run has no freezer: the kill is the freeze.
REQUIRED = frozenset({"lease_closed", "persisted", "killed", "disposed"})
# Judges look at a committed tree in jails of their own; the gate may ask them after the stop.
JUDGES = frozenset({"tester", "reviewer", "security"})
STARTS = frozenset({"iteration.started", "broker.started", "gateway.started"})
CALLS = frozenset({"tool.called", "model.usage"})
# After run.finished only people and the gate still speak; nothing of the run does until people let it go on.
AFTERWARDS = frozenset(
    {
        "promotion.decided",
        "operator.decision",
        "contract.amended",
        "amendment.refused",
        "incident.recorded",
        "notice.sent",
        "verdict",
        "jail.started",
        "jail.exited",
        "work.discarded",
        "journal.recovered",
        "journal.migrated",
        "journal.clock_set_back",
        "journal.checkpoint",
    }
)
FAULTS_MAX = 1_000  # of a journal that is wrong throughout: what is beyond says nothing new

# Whether a record may open the next leg, given the stop event that it must be bound to: [] if it may.
Allows = Callable[[Record, Record | None], list[Fault]]


class Legs:
    """Take every record of `KINDS`, and while `watching` is true every record; then ask `finish`."""

    KINDS = frozenset(
        {"run.accepted", "run.finished", "run.reauthorized", "run.recovered", "journal.recovered", "jail.started"}
        | {"stop.decided", "stop.step"}
        | STARTS
    )

    def __init__(self, allows: Allows) -> None:
        """`allows` judges what people signed."""
        self._allows = allows
        self.count, self.accepted = 1, 0
        self.stop_faults: list[Fault] = []
        self.end_faults: list[Fault] = []
        self.leg_faults: list[Fault] = []
        self.code, self.ended_at = "", -1
        self._begin()

    def _begin(self) -> None:
        self._stop: Record | None = None
        self._end: Record | None = None
        self._closed_at_ms: int | None = None
        self._last: dict[str, int] = {}  # the places of the last pass through the stop that had any
        self._pass: dict[str, int] = {}
        self._taken_over = False

    @property
    def watching(self) -> bool:
        """Whether records of every kind matter now: the doors are closed."""
        return self._closed_at_ms is not None or self._end is not None

    def take(self, record: Record) -> None:
        """One record."""
        kind = record.kind
        if kind == "run.accepted":
            self.accepted += 1
            if self.accepted > 1:
                self._fault(self.end_faults, Damage.TWO_RUNS, record, "a second run.accepted")
        if kind == "run.reauthorized":
            self._reauthorized(record)
            return
        if kind == "run.recovered":
            self._recovered(record)
        if self._end is not None and kind not in AFTERWARDS:
            self._fault(self.leg_faults, Damage.NOT_LET_ON, record, f"{kind} after the end")
        if kind == "run.finished":
            self._finished(record)
        elif kind == "journal.recovered":
            self._pass_over()
        elif kind in ("stop.step", "stop.decided"):
            self._step(record)
        elif self._stop is not None and kind in STARTS:
            self._fault(self.stop_faults, Damage.AFTER_STOP, record, f"{kind} after the stop")
        elif self._stop is not None and kind == "jail.started" and record.data.get("role") not in JUDGES:
            words = f"a jail of role {record.data.get('role')} after the stop"
            self._fault(self.stop_faults, Damage.AFTER_STOP, record, words)
        elif self._closed_at_ms is not None and kind in CALLS:
            self._called(record, self._closed_at_ms)
        if not kind.startswith("journal."):
            self._taken_over = False
        elif kind == "journal.recovered":
            self._taken_over = True

    def finish(self) -> None:
        """The journal ends here."""
        if self.accepted == 0:
            self.end_faults.append(Fault(Damage.NO_END, "0 records run.accepted"))
        if self._end is None:
            self._leave(None)
            self.end_faults.append(Fault(Damage.NO_END, f"0 records run.finished in leg {self.count}"))

    def _reauthorized(self, record: Record) -> None:
        if self._end is None:
            self._fault(self.leg_faults, Damage.NOT_LET_ON, record, "run.reauthorized where nothing had ended")
            return
        faults = self._allows(record, self._stop)
        if faults:
            self.leg_faults += faults
            return
        self.count += 1
        self._begin()

    def _recovered(self, record: Record) -> None:
        if not self._taken_over:
            self._fault(self.leg_faults, Damage.NOT_LET_ON, record, "run.recovered where no writer had died")
        elif self._stop is not None:
            self._fault(self.stop_faults, Damage.AFTER_STOP, record, "run.recovered after the stop")

    def _finished(self, record: Record) -> None:
        if self._end is not None:
            self._fault(self.end_faults, Damage.TWO_RUNS, record, "a second run.finished in one leg")
            return
        self._leave(record)
        self._end, self.code, self.ended_at = record, str(record.data.get("code")), record.seq
        stopped = self._stop.data.get("code") if self._stop else None
        if self._stop is not None and stopped != record.data.get("code"):
            words = f"stopped with {stopped}, finished with {record.data.get('code')}"
            self._fault(self.end_faults, Damage.OTHER_END, record, words)

    def _leave(self, end: Record | None) -> None:
        """The leg is over: its last pass through the stop must have been a whole one."""
        if self._stop is None:
            self.end_faults.append(Fault(Damage.NO_END, f"0 records stop.decided in leg {self.count}"))
            return
        self._pass_over()
        missing = REQUIRED - self._last.keys()
        where = f" before record {end.seq}" if end else ""
        self.stop_faults += [
            Fault(Damage.STOP_INCOMPLETE, f"stop step {name} is missing{where}") for name in STEPS if name in missing
        ]

    def _step(self, record: Record) -> None:
        step = str(record.data.get("step"))
        name = "stop.decided" if record.kind == "stop.decided" else "disposed" if step in DISPOSED.values() else step
        if name not in PLACES or name in self._pass:
            words = f"{'second' if name in self._pass else 'unknown'} stop step {name}"
            self._fault(self.stop_faults, Damage.STOP_ORDER, record, words)
            return
        self._pass[name] = record.seq
        if name == "stop.decided":
            self._decided(record)
            return
        if name == "lease_closed" and self._closed_at_ms is None:
            self._closed_at_ms = record.at_ms
        if record.data.get("ok") is not True:
            words = f"stop step {step} failed: {record.data.get('detail', '')}"[:200]
            self._fault(self.stop_faults, Damage.STOP_INCOMPLETE, record, words)
        decided = self._stop.data.get("disposal") if self._stop else None
        if name == "disposed" and DISPOSED.get(str(decided)) != step:
            self._fault(self.stop_faults, Damage.STOP_ORDER, record, f"{step}, where {decided} was decided")

    def _decided(self, record: Record) -> None:
        if self._stop is None:
            self._stop = record
        elif any(record.data.get(key) != self._stop.data.get(key) for key in ("code", "disposal")):
            words = f"another stop than record {self._stop.seq} decided"
            self._fault(self.stop_faults, Damage.STOP_ORDER, record, words)

    def _pass_over(self) -> None:
        """Another writer took over, or the leg is over: judge the order of this pass, begin the next.

        A supervisor that died within the stop is followed by one that goes through the whole of it again.
        """
        found, self._pass = self._pass, {}
        for early, late in BEFORE:
            if early in found and late in found and found[early] > found[late]:
                words = f"the stop is not in order: {late} before {early}"
                self.stop_faults.append(Fault(Damage.STOP_ORDER, words))
        self._last = found or self._last

    def _called(self, record: Record, closed_at_ms: int) -> None:
        took = record.data.get("ms")
        if record.kind == "tool.called" and record.data.get("outcome") == "refused":
            return
        began = record.data.get("began_at_ms", record.at_ms - took if type(took) is int else None)
        if type(began) is not int or began > closed_at_ms:
            words = f"{record.kind} began after the doors were closed"
            self._fault(self.stop_faults, Damage.AFTER_STOP, record, words)

    @staticmethod
    def _fault(into: list[Fault], kind: Damage, record: Record, words: str) -> None:
        if len(into) < FAULTS_MAX:
            into.append(Fault(kind, f"record {record.seq}: {words}"))
