"""An incident (O4): every run on the host frozen at once, journals sealed, work set apart, and all of it written down.

First what stops execution, from this process alone and with as little loaded as that takes; then the supervisors' own
stop sequences, waited for together; then those runs whose supervisor is dead. Decides no stop: each run's kernel does.
"""

import os
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inbounds.contracts.errors import HostError, InboundsError
from inbounds.contracts.ids import RUN_ID
from inbounds.run import living, requests
from inbounds.run.home import Home
from inbounds.run.living import Living

if TYPE_CHECKING:
    from inbounds.journal.chain import Record
    from inbounds.journal.signing import Signer
    from inbounds.run.incident_facts import Tail

RECORD = "incident.json"
ANSWER_S = 10.0  # from the request to a sealed stop event; measured for 20 runs on two processors: below a second
END_S = 120.0  # the rest of 20 stops at once, snapshots of large trees among them
LOOK_S = 0.005  # between two looks at journals that grow
# How long a supervisor at most holds the slow part of its stop back, until all are sealed and on record: what a seal
# takes two processors, with room to spare. run/stopping.py waits for no more than a second.
HOLD_MS_RUN = 45
REFREEZE_S = 0.1  # between two looks for what a supervisor started before it heard of the stop
LANDED_RUNS_MAX = 1_000  # of a state directory, newest first, looked at for what landed lately
WORDS_MAX = 2_000


@dataclass(slots=True)
class Case:
    """One run of the incident: whose state directory it is in, what is alive of it, how far its stop has come."""

    home: Home
    run_id: str
    phase: str
    living: Living | None
    tail: "Tail"
    agreed: dict[str, Any] = field(default_factory=dict)
    how: str = "no jail"
    frozen_at_ms: int | None = None
    answered: bool = True
    problem: str = ""

    @property
    def run_dir(self) -> Path:
        """Its directory."""
        return self.home.run(self.run_id)


@dataclass(slots=True)
class Incident:
    """What is known so far; `others` are those of other users."""

    home: Home
    incident: str
    who: str
    why: str
    times: dict[str, int | None]
    cases: list[Case] = field(default_factory=list)
    others: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    skipped: int = 0
    signer: "Signer | None" = None

    @property
    def place(self) -> Path:
        """Where its record lies."""
        return incidents(self.home) / self.incident

    @property
    def ok(self) -> bool:
        """Whether every run is over."""
        return not self.problems and all(case.answered and not case.problem for case in self.cases)


def incidents(home: Home) -> Path:
    """Where a state directory keeps its incidents."""
    return home.path / "incidents"


def declare(
    home: Home, *, who: str, why: str, found: Sequence[Living], answer_s: float = ANSWER_S,
    sealed: Callable[[Incident], None] = lambda _: None,
) -> Incident:  # fmt: skip
    """Stop `found` (see `living.supervisors`) and whatever else of this state directory is not over, as an incident.

    `sealed` is called once nothing executes, every journal that can is sealed and the record is on disk; what is left
    of the stops is then waited for. Returns the incident; its record is `incident_record.read(made.place)`.
    """
    now = _now_ms()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now / 1000))
    times = {"asked_at_ms": now, **dict.fromkeys(("frozen_at_ms", "sealed_at_ms", "recorded_at_ms", "ended_at_ms"))}
    made = Incident(home, f"{stamp}-{secrets.token_hex(3)}", who[:WORDS_MAX], why[:WORDS_MAX], times)
    mine = [one for one in found if one.uid == os.geteuid()]
    frozen = _freeze(made, mine)
    _terminate(made, [one for one in found if one.uid != os.geteuid()])
    # from here on the supervisors are at work: what is slow to load is loaded meanwhile
    _gather(made, mine, frozen)
    if not made.cases and not made.others:
        return made  # nothing runs: there is nothing to put on record
    made.times["frozen_at_ms"] = max((case.frozen_at_ms or 0 for case in made.cases), default=0) or None
    _await_seals(made, answer_s)
    made.times["sealed_at_ms"] = _latest(made, "sealed_at_ms")
    _write(made, "sealed", first=True)
    sealed(made)
    _end_orphans(made)
    _await_ends(made)
    made.times["ended_at_ms"] = _latest(made, "ended_at_ms")
    digest = _write(made, "ended" if made.ok else "incomplete")
    _tell_journals(made, digest)
    return made


def _latest(made: Incident, name: str) -> int | None:
    return max((case.tail.times.get(name, 0) for case in made.cases), default=0) or None


def _freeze(made: Incident, mine: Sequence[Living]) -> dict[Path, tuple[str, int]]:
    """Leave every request, halt what the jails execute, and only then wake the supervisors; how and when, by run."""
    hold = (_now_ms() + HOLD_MS_RUN * len(mine), str(made.place / RECORD))
    for one in mine:
        try:
            requests.ask_stop(
                one.run_dir, who=made.who, why=made.why, incident=True, incident_id=made.incident, hold=hold,
                at_once=False,
            )  # fmt: skip
        except HostError as fault:  # a full disk: its jails are stopped, and it is asked as a service is
            made.problems.append(fault.one_line())
            living.terminate(one)
    how = living.freeze(mine)
    now = _now_ms()
    for one in mine:
        requests.wake(one.run_dir)
    return {place: (way, now) for place, way in how.items()}


def _terminate(made: Incident, others: Sequence[Living]) -> None:
    for one in others:
        if os.geteuid() != 0:
            outcome = "not asked: it belongs to another user; type this as root"
        else:
            outcome = "asked to stop in order" if living.terminate(one) else "it was gone"
        made.others.append({"uid": one.uid, "pid": one.process.pid, "run_dir": str(one.run_dir), "outcome": outcome})


def _gather(made: Incident, mine: Sequence[Living], frozen: dict[Path, tuple[str, int]]) -> None:
    """Every run that is not over: those with a living supervisor, and those of this state directory without one."""
    from inbounds.journal.signing import open_signer
    from inbounds.run import recovery
    from inbounds.run.incident_facts import Tail

    made.signer = open_signer(made.home.keys)
    _load()
    known = {one.run_dir: one for one in mine}
    own = {made.home.run(run_id) for run_id in made.home.runs()}
    for run_dir in sorted(own | {place for place in known if place.parent.name == "runs"}):
        home = made.home if run_dir in own else Home(run_dir.parent.parent)
        case = Case(home, run_dir.name, "running", known.get(run_dir), Tail(run_dir))
        if case.living is None:
            case.phase = recovery.phase(home, run_dir.name)
            if case.phase == "finished" or (case.phase == "orphaned" and not (run_dir / "journal.jsonl").exists()):
                made.skipped += 1  # over, or never begun
                continue
            if case.phase != "orphaned":  # its supervisor is just starting, or somebody else writes its journal
                with suppress(HostError):
                    requests.ask_stop(run_dir, who=made.who, why=made.why, incident=True, incident_id=made.incident)
        case.how, case.frozen_at_ms = frozen.get(run_dir, ("no jail", _now_ms()))
        case.agreed = _agreed(run_dir)
        made.cases.append(case)


def _load() -> None:
    """What the record needs, imported while the supervisors work and not once they have been waited for."""
    import inbounds.gateway.ledger
    import inbounds.run.incident_record  # noqa: F401 - for later


def _await_seals(made: Incident, seconds: float) -> None:
    """Until every living run's stop event is signed; what does not answer has its jails ended and is named."""
    deadline, again = time.monotonic() + seconds, 0.0
    waiting = [case for case in made.cases if case.phase != "orphaned"]
    while waiting:
        for case in waiting:
            _look(case)
        waiting = [case for case in waiting if not (case.tail.sealed or _died(case))]
        if time.monotonic() > deadline:
            break
        if waiting and time.monotonic() > again:
            living.freeze([case.living for case in waiting if case.living], 0)
            again = time.monotonic() + REFREEZE_S
        time.sleep(LOOK_S if waiting else 0)
    for case in waiting:
        case.answered = False
        case.problem = f"its supervisor did not answer within {seconds:.0f} s"
        if case.living:
            ended = living.kill([case.living])
            case.how = f"killed ({ended} jails), its supervisor lives"
        made.problems.append(f"{case.run_id}: {case.problem}")


def _look(case: Case) -> None:
    from inbounds.journal.chain import ChainError

    try:
        case.tail.look()
    except (OSError, ChainError) as error:
        case.problem = f"its journal cannot be read: {error}"


def _died(case: Case) -> bool:
    """Whether its supervisor ended without sealing: recovery does it then."""
    from inbounds.run import recovery

    if case.problem or (case.living is not None and case.living.alive):
        return bool(case.problem)
    if case.living is None and recovery.phase(case.home, case.run_id) in ("starting", "running"):
        return False
    _look(case)  # it may have written its last words between the two looks
    if not case.tail.sealed:
        case.phase = "orphaned"
    return True


def _end_orphans(made: Incident) -> None:
    """Bring runs to their end whose supervisor is dead: nothing of them executes, and nobody else would."""
    from inbounds.run import recovery

    for case in made.cases:
        if not case.answered or recovery.phase(case.home, case.run_id) != "orphaned":
            continue
        said = {"who": made.who, "why": made.why, "incident": True, "incident_id": made.incident}
        try:
            recovery.recover(case.home, case.run_id, said)
            case.problem = ""
        except (InboundsError, OSError) as fault:
            case.problem = fault.one_line() if isinstance(fault, InboundsError) else str(fault)
        _look(case)


def _await_ends(made: Incident) -> None:
    from inbounds.run import recovery

    deadline = time.monotonic() + END_S
    waiting = [case for case in made.cases if case.answered and not case.problem]
    while waiting and time.monotonic() < deadline:
        for case in waiting:
            _look(case)
        if any(recovery.phase(case.home, case.run_id) == "orphaned" for case in waiting):
            _end_orphans(made)  # it died during its stop
        waiting = [case for case in waiting if not (case.tail.over and not recovery.locked(case.run_dir))
                   and not case.problem]  # fmt: skip
        time.sleep(LOOK_S * 4 if waiting else 0)
    for case in waiting:
        case.problem = f"its stop was not over within {END_S:.0f} s"
    while any(one["outcome"].startswith("asked") and _runs(one) for one in made.others):
        if time.monotonic() > deadline:
            break
        time.sleep(LOOK_S * 4)
    for one in made.others:
        if one["outcome"].startswith("asked"):
            one["outcome"] = "asked to stop in order; " + ("it still runs" if _runs(one) else "it has ended")
            if _runs(one):
                made.problems.append(f"process {one['pid']} of uid {one['uid']} did not end within {END_S:.0f} s")
    made.problems += [f"{case.run_id}: {case.problem}" for case in made.cases if case.problem and case.answered]


def _runs(one: dict[str, Any]) -> bool:
    return any(found.process.pid == one["pid"] for found in living.supervisors() if found.uid == one["uid"])


def _write(made: Incident, status: str, *, first: bool = False) -> str:
    """Make the record of what is known now, sign it, and put it in its place; its hash."""
    from inbounds.run import incident_facts, incident_record

    signer = made.signer
    assert signer is not None
    money = {home: incident_facts.money(home.ledger) for home in {case.home for case in made.cases}}
    read = {case.run_id: _records(case) for case in made.cases}
    runs = [
        {**_facts(case, read[case.run_id], over=not first), **_spent(money[case.home], case.run_id)}
        for case in made.cases
    ]
    others = (made.home.run(run_id) for run_id in list(made.home.runs())[:LANDED_RUNS_MAX])
    landed = incident_facts.landed_since(others, (made.times["asked_at_ms"] or 0) - incident_record.DAY_MS)
    if first:
        made.times["recorded_at_ms"] = _now_ms()
    record: dict[str, Any] = {
        "format": incident_record.FORMAT,
        "incident": made.incident,
        "status": status,
        "who": made.who,
        "why": made.why,
        "host": os.uname().nodename,
        "state_directory": str(made.home.path),
        "journal_key": str(signer.key),
        "times": made.times,
        "runs": runs,
        "others": made.others,
        "runs_over_before": made.skipped,
        "timeline": incident_record.timeline({run_id: records for run_id, (records, _) in read.items()}),
        "scopes": incident_record.scopes(runs, landed),
        "problems": made.problems,
    }
    record["next_steps"] = incident_record.next_steps(record)
    return incident_record.write(made.place, record, signer)


def _records(case: Case) -> "tuple[list[Record], bool]":
    from inbounds.journal.chain import ChainError
    from inbounds.run import incident_facts

    try:
        return incident_facts.ends(case.run_dir)
    except (OSError, ChainError) as error:
        case.problem = case.problem or f"its journal cannot be read: {error}"
        return [], True


UNKNOWN: dict[str, Any] = {
    "thread": "", "repository": "", "store": "", "branch": "", "targets": [], "agent": {"name": "", "version": ""},
    "model": "", "operator": "", "contract_sha256": "", "approvals": {"wanted": 1, "by": []},
}  # fmt: skip


def _agreed(run_dir: Path) -> dict[str, Any]:
    from inbounds.run import incident_facts

    try:
        return {**UNKNOWN, **incident_facts.of_contract(run_dir)}
    except InboundsError as fault:
        return {**UNKNOWN, "problem": fault.one_line()}


def _facts(case: Case, read: "tuple[list[Record], bool]", *, over: bool) -> dict[str, Any]:
    """One run as the record states it."""
    from inbounds.run import incident_facts as facts

    agreed = dict(case.agreed)
    seen = facts.of_records(read[0])
    problem = case.problem or str(agreed.pop("problem", ""))
    accepted = seen.pop("accepted_sha256")
    if accepted and agreed["contract_sha256"] != accepted:
        problem = problem or "its contract is not what was accepted"
    stop, times = case.tail.stop, case.tail.times
    return {
        "run_id": case.run_id,
        "state_directory": str(case.home.path),
        "phase": case.phase,
        "pid": case.living.process.pid if case.living else None,
        "answered": case.answered,
        **agreed,
        **seen,
        "read_in_part": read[1],
        "providers": facts.providers(case.run_dir),
        "frozen": {"how": case.how, "at_ms": case.frozen_at_ms},
        "doors_closed_at_ms": times.get("lease_closed_at_ms"),
        "sealed_at_ms": times.get("sealed_at_ms"),
        "ended_at_ms": times.get("ended_at_ms"),
        "stop": {
            "code": str(stop.data["code"]),
            "why": str(stop.data["why"]),
            "disposal": str(stop.data["disposal"]),
            "hash": stop.hash,
            "seq": stop.seq,
        } if stop else None,
        "quarantine": _quarantine(case) if over else "",
        "evidence_commit": _evidence(case, str(agreed["store"])) if over else "",
        "problem": problem,
    }  # fmt: skip


def _spent(money: dict[str, tuple[int, int]], run_id: str) -> dict[str, int | None]:
    spent, reserved = money.get(run_id, (None, None))
    return {"spent_micro_usd": spent, "reserved_micro_usd": reserved}


def _quarantine(case: Case) -> str:
    from inbounds.run import stopping

    places = stopping.quarantines(case.run_dir) if "quarantined" in case.tail.steps else []
    return str(places[-1]) if places else ""


def _evidence(case: Case, store: str) -> str:
    from inbounds.store.store import Store

    try:
        return Store.open(store).ref(f"refs/inbounds/evidence/{case.run_id}") or "" if store else ""
    except InboundsError:
        return ""  # the run's own stop.step says what became of the evidence


def _tell_journals(made: Incident, digest: str) -> None:
    """The record's hash behind each run's end, so that a record that was changed or lost is missed."""
    from inbounds.run import decision

    for case in made.cases:
        if not case.tail.over:
            continue
        try:
            decision.append(case.home, case.run_id, "incident.recorded", {"incident": made.incident, "sha256": digest})
        except (InboundsError, OSError) as fault:
            said = fault.one_line() if isinstance(fault, InboundsError) else str(fault)
            made.problems.append(f"{case.run_id}: the incident is not in its journal: {said}")


def elsewhere(home: Home, one: Living) -> bool:
    """Whether a supervisor is of another state directory than this."""
    return one.run_dir.parent != home.path / "runs" or not RUN_ID.fullmatch(one.run_dir.name)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
