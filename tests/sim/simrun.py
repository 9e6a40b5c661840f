"""One seeded run from its start to its last end: lives of a supervisor, deaths between them, and what people do.

`simulate(seed)` is the whole of it; a Violation says which invariant does not hold.
"""

import contextlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from simdisk import Disk, Syscalls
from simfaults import Faults, Killed, PowerLoss
from siminvariants import Violation, every_run_ends
from simjails import KINDS
from simlife import Life
from simpeople import Agreed, People, signed_by
from simtime import Endless, Schedule, TrueTime
from simtrees import Trees
from simwitness import Witness
from simworld import Witnessed, World

from inbounds.contracts.conduct import Conduct
from inbounds.contracts.errors import InboundsError, RefusedError
from inbounds.contracts.limits import DEFAULT, Limits
from inbounds.contracts.reasons import StopCode
from inbounds.journal import writer
from inbounds.journal.signing import Signer
from inbounds.journal.writer import Journal
from inbounds.kernel.state import Phase, State
from inbounds.run import authorize

EPOCH_MS = 1_700_000_000_000
LIVES_MAX = 40  # faults end before, so that a run which needs more goes round in circles
CALM_AFTER = 12
SIGNED = 0.25  # a signature takes longer than everything else that a record takes
SIGNER = Signer(bytes(range(32)))
LIMITS_MS = (20_000, 600_000, 3_600_000, 86_400_000, 4_838_400_000)


@dataclass(slots=True)
class Tally:
    """What happened in a run, or in many."""

    steps: int = 0
    lives: int = 0
    records: int = 0
    resumes: int = 0
    refused: int = 0
    recoveries: int = 0
    stops: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)  # phase and event
    points: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Tally") -> None:
        """Sum up."""
        for name in self.__slots__:
            mine, its = getattr(self, name), getattr(other, name)
            if isinstance(mine, Counter):
                mine.update(its)
            else:
                setattr(self, name, mine + its)


class Sim:
    """One run."""

    def __init__(self, seed: int, place: Path, trace: Callable[[str], None] | None = None) -> None:
        self.seed, self.place, self._trace = seed, place, trace
        rng = self.rng = Random(seed)
        self.tally = Tally()
        self.time = TrueTime(EPOCH_MS + rng.randrange(2 * 365 * 86_400_000))
        self.schedule = Schedule(self.time)
        self.limits = _limits(rng)
        self.agreed = Agreed(_conduct(rng, self.limits))
        self.people = People(rng, self.agreed)
        self.profile = rng.choice(("standard", "standard", "strict"))
        self.unit_ms = max(2, self.limits.wall_clock_ms // rng.choice((100, 1_000, 5_000)))
        self.promote_auto = rng.random() < 0.5
        self.preflight_p = rng.choice((0.0, 0.0, 0.15))
        self._kinds = [rng.choice(KINDS) for _ in range(5)] if rng.random() < 0.7 else ["honest"]
        crash = rng.choice((0.0, 0.002, 0.01, 0.03))
        noise = rng.choice((0.0, 0.0, 0.004, 0.02))
        self.faults = Faults(rng, crash, 0.35, noise, rng.choice((0.0, 0.0, 0.01, 0.04)), rng.randint(1, 8))
        self.busy = rng.random() < 0.6  # whether people and clocks do anything at all
        self.theme = rng.choice(("", "", "", "", "", "", "", "clocks", "legs", "disks"))
        self._themed(rng)
        self._down_ms, self._clock_set = 0, False
        self.disk = Disk(rng, place, self.faults.point, self._synced)
        self.signer = SIGNER if rng.random() < SIGNED else None
        self.witness = Witness(self)
        heard = Witnessed(self.witness.executes, self.witness.admitted, self.witness.landed)
        self.world = World(rng, self.time, self.schedule, Trees(rng.randint(1, 4)), heard)
        self.life: Life | None = None

    def _themed(self, rng: Random) -> None:
        """Some runs keep to one kind of trouble, for what takes two faults in a row."""
        if not self.theme:
            return
        self.faults.raise_p = self.faults.event_p = self.preflight_p = 0.0
        self.faults.crash_p, self.faults.crashes_left = rng.choice((0.01, 0.03)), 6
        self.agreed = self.people.agreed = Agreed(replace(self.agreed.conduct, recovery="continue"))
        self.busy = True
        match self.theme:
            case "clocks":
                self._kinds = ["hanging", "stuck"]
            case "legs":
                self._kinds = ["honest", "noisy", "honest"]
                quarantine = tuple(code.value for code in StopCode if code is not StopCode.DONE)
                conduct = replace(self.agreed.conduct, resume_by=(), resume_approvals=1, quarantine=quarantine)
                self.agreed = self.people.agreed = Agreed(conduct)
            case _:
                self._kinds = ["honest", "hanging"]

    def note(self, line: str) -> None:
        """For whoever follows."""
        if self._trace:
            self._trace(f"{self.time.ms - EPOCH_MS:>14} {line}")

    @property
    def hidden_ms(self) -> int:
        """Time in which nothing of the run lived, and of which nobody can know once the clock was set."""
        return self._down_ms if self._clock_set else 0

    def _synced(self) -> None:
        self.witness.at_sync()

    def saw(self, phase: Phase, kind: str, after: State) -> None:
        """A record became durable."""
        self.tally.records += 1
        self.tally.met[f"{phase} {kind}"] += 1
        if kind == "stop.decided":
            self.tally.stops[after.stop_code] += 1

    def kind(self, n: int) -> str:
        """What the agent of an iteration is like."""
        return self._kinds[n % len(self._kinds)]

    # -- what happens to a life from outside

    def script(self, over: bool) -> list[tuple[int, Callable[[], None]]]:
        """What people, clocks and disks will do while a supervisor lives."""
        rng, span = self.rng, max(10, self.unit_ms * self.rng.choice((4, 20, 60)))
        if not self.busy or (over and rng.random() < 0.7):
            return []
        if self.theme == "clocks":
            return []
        if self.theme == "disks":
            return [(1 + rng.randrange(self.unit_ms * 8), self._fill_disk)]
        acts = (
            self._ask_stop, self._ask_stop, self._amend, self._amend, self._amend, self._signal, self._tamper, self._suspend,
            self._set_clock, self._set_clock, self._fill_disk, self._fill_disk, self._fill_workspace, self._gateway_dies,
            self._sync_fails, self._overshoot, self._amend, self._amend, self._amend,
        )  # fmt: skip
        return [(1 + rng.randrange(span), rng.choice(acts)) for _ in range(rng.randint(0, 6))]

    def _did(self, what: str) -> None:
        self.tally.faults[what] += 1
        self.note(what)

    def _ask_stop(self) -> None:
        self._did("person stops")
        self.world.requests.stop = {"who": "ana", "why": "enough", "incident": self.rng.random() < 0.3}
        self._wake()

    def _signal(self) -> None:
        self._did("signal")
        self.world.requests.signal = "SIGTERM"
        self._wake()

    def _amend(self) -> None:
        self._did("person amends")
        state = self.witness.state
        self.world.requests.amend = self.people.amendment(state.limits, state.version)
        self._wake()

    def _tamper(self) -> None:
        self._did("contract tampered with")
        self.world.requests.tampered = True
        self._wake()

    def _suspend(self) -> None:
        self._did("suspended")
        self.schedule.suspend(self.rng.choice((60_000, 86_400_000, 35 * 86_400_000, self.limits.wall_clock_ms // 3)))

    def _set_clock(self) -> None:
        self._did("clock set")
        self._clock_set = True
        by = self.rng.choice((3_600_000, 86_400_000, 31 * 86_400_000))
        self.time.wall_off_ms += by if self.rng.random() < 0.25 else -by

    def _fill_disk(self) -> None:
        self._did("disk full")
        self.disk.room = self.rng.choice((0, 10, 3_000))
        if self.rng.random() < 0.4:  # a host in trouble has more than one
            self.faults.crash_p = max(self.faults.crash_p, 0.05)
            self.faults.crashes_left += 1
        if self.rng.random() < 0.5:
            self.schedule.after(1 + self.rng.randrange(self.unit_ms * 20), self._free)

    def _free(self) -> None:
        self.disk.room = None

    def _fill_workspace(self) -> None:
        self._did("workspace full")
        self.world.workspace_full = True
        self.schedule.after(1 + self.rng.randrange(self.unit_ms * 10), self._empty_workspace)

    def _empty_workspace(self) -> None:
        self.world.workspace_full = False

    def _gateway_dies(self) -> None:
        self._did("gateway dies")
        if self.rng.random() < 0.5:
            self.world.gateway_dies()
        else:
            self.world.tell("part.failed", {"part": "broker", "detail": "it ended by itself"})

    def _overshoot(self) -> None:
        self._did("provider billed more")
        self.world.tell("part.failed", {"part": "gateway", "detail": "a provider billed more than its bound"})

    def _sync_fails(self) -> None:
        self._did("sync fails")
        self.disk.sync_fails = self.rng.randint(1, 3)

    def _wake(self) -> None:
        if self.world.look:
            self.world.look()

    # -- lives

    def run(self) -> Tally:
        """To its last end."""
        mode = "start"
        for count in range(LIVES_MAX):
            if count >= CALM_AFTER:
                self.calm()
            mode = self._next(self._live(mode), mode)
            if mode == "over":
                break
        else:
            every_run_ends(f"{LIVES_MAX} lives were not enough: the run is {self.witness.state.phase}")
        self.tally.steps = self.schedule.steps
        self.tally.points, self.tally.faults = self.faults.points, self.tally.faults + self.faults.dealt
        return self.tally

    def calm(self) -> None:
        """No further fault: from now on the run must come to its end."""
        self.faults.armed = self.busy = False
        self._free()
        self._empty_workspace()
        self.disk.sync_fails = 0

    def _live(self, mode: str) -> str:
        """One life; how it ended: "ended", "died", "refused" or "failed"."""
        self.tally.lives += 1
        self.note(f"a supervisor begins: {mode}")
        life = None
        try:
            if self.theme == "legs":  # most of what matters is over within a few records
                self.faults.crash_p = 0.08 if mode == "resume" else 0.002
            life = self.life = Life(self)
            code = life.enter(mode)
            self.note(f"it ended with {code}")
            self.witness.ended(code)
        except Killed as death:
            self.note(f"it died: {death!r}")
            self._die(life, power=isinstance(death, PowerLoss))
            return "died"
        except RefusedError as error:
            self.note(f"refused: {error}")
            self.tally.refused += 1
            self._die(life, power=False)
            return "refused"
        except InboundsError as error:
            self.note(f"it failed: {error}")
            self._die(life, power=False)
            return "failed"
        except (Endless, AssertionError, LookupError, TypeError, ValueError) as error:
            raise every_run_ends_fault(error) from error
        self._die(life, power=False)
        return "ended"

    def _die(self, life: Life | None, *, power: bool) -> None:
        """Whatever is left of a process and its children goes; then time passes in which nothing of the run lives."""
        if life is not None:
            life.dies(at_once=power)
        else:
            self.disk.release()
            self.world.supervisor_dies(at_once=True)
        self.life = None
        before = min(self.time.ms, max(self.witness.last_ms, self.witness.born_ms) or self.time.ms)
        if power:
            if not self.disk.lose_power():
                self.witness.forget()
            self.time.booted_ms = self.time.ms
        self.schedule.pass_to(self.time.ms + 100)
        if self.busy and self.rng.random() < (1.0 if self.theme == "clocks" else 0.4):
            self._set_clock()
        down = self.rng.choice((100, 5_000, 3_600_000, self.limits.wall_clock_ms // 2))
        self.schedule.pass_to(self.time.ms + down)
        self._down_ms += self.time.ms - before

    def _next(self, ended: str, mode: str) -> str:
        """What people do then."""
        rng = self.rng
        if ended == "died":
            self.tally.recoveries += 1
            return "finish" if rng.random() < 0.25 else "recover"
        if ended == "failed":
            self._free()
            self._empty_workspace()
            self.disk.sync_fails = 0
            return "finish"
        if ended == "refused" and mode == "resume":
            return "over"
        if not self._finished():
            self._free()
            return "finish"
        if self._wants_more():
            return "resume"
        return "over"

    def _finished(self) -> bool:
        return self.witness.state.phase is Phase.FINISHED and not self.witness.faulty()

    def _wants_more(self) -> bool:
        """Whether somebody tries to take the stopped run up again; what they sign is kept in the journal first."""
        if (
            self.tally.resumes >= 3
            or self.rng.random() > (0.9 if self.theme == "legs" else 0.35)
            or not self.faults.armed
        ):
            return False
        self.tally.resumes += 1
        self._free()
        self.world.requests.tampered = False
        stops = [record.hash for record in self.witness.records if record.kind == "stop.decided"]
        if not stops:
            return False
        armed, self.faults.armed = self.faults.armed, False
        try:
            with Journal.open(self.place / "journal.jsonl", signer=self.signer) as journal:
                self.witness.rebuild()
                self.people.resume(stops, lambda data: journal.append("operator.decision", data, sync=True) and None)
                if self.rng.random() < 0.5:
                    self._amend_the_ended(journal)
        finally:
            self.faults.armed = armed
            self.disk.release()
        return True

    def _amend_the_ended(self, journal: Journal) -> None:
        from inbounds.run import amending

        state = self.witness.state
        asked = self.people.amendment(state.limits, state.version)
        kind, data = amending.read(asked, self.agreed.contract(), state.version)
        if kind == amending.AMENDED:
            journal.append(kind, data, sync=True)


def every_run_ends_fault(error: BaseException) -> Violation:
    """What must not happen to a supervisor: it goes round in circles, or dies of its own fault."""
    return Violation("every_run_ends", f"{type(error).__name__}: {error}")


def _limits(rng: Random) -> Limits:
    wall = rng.choice(LIMITS_MS)
    return replace(
        DEFAULT, wall_clock_ms=wall, iterations=rng.randint(1, 6), no_progress=rng.randint(1, 4), turns=rng.randint(2, 9),
        tool_calls=rng.randint(5, 60), file_changes=rng.randint(5, 40), iteration_file_changes=rng.randint(4, 25),
        restarts=rng.randint(1, 4), budget_micro_usd=rng.choice((500, 2_000, 20_000)),
        request_micro_usd=rng.choice((300, 1_000)), tokens=rng.choice((600, 3_000, 50_000)), denials=rng.randint(1, 6),
        disk_bytes=100_000, inodes=10_000,
    )  # fmt: skip


def _conduct(rng: Random, limits: Limits) -> Conduct:
    return Conduct(
        slow_at_percent=rng.choice((0, 50, 80)), slow_interval_ms=1_000, slow_cpu_percent=50,
        escalate_at_percent=rng.choice((0, 0, 50, 90)), escalate_wait_ms=max(1, limits.wall_clock_ms // rng.choice((4, 40))),
        quarantine=rng.choice(((), ("STOP_OPERATOR", "STOP_BUDGET_EXCEEDED"))),
        resume_by=rng.choice(((), ("ana",), ("ana", "ben"))), resume_approvals=rng.choice((1, 1, 2)),
        incident_approvals=rng.choice((1, 2)), recovery=rng.choice(("continue", "continue", "continue", "stop")),
    )  # fmt: skip


SYSCALLS = Syscalls()
_SIMULATED = ((writer, "os"), (writer, "time"), (authorize, "signed_by"))


@contextlib.contextmanager
def simulated_host() -> Iterator[None]:
    """The writer's disk and clock, and the check of signatures, are simulated within this."""
    before = [(module, name, getattr(module, name)) for module, name in _SIMULATED]
    setattr(writer, "os", SYSCALLS)  # noqa: B010 - a module's own import is no part of its interface
    authorize.signed_by = signed_by
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


class _Time:
    """The module `time` as the writer sees it."""

    def __init__(self, time: TrueTime) -> None:
        self.time_ns = time.wall_ns


def simulate(seed: int, base: Path, trace: Callable[[str], None] | None = None) -> Tally:
    """One run in a directory below `base`; Violation where an invariant does not hold."""
    place = base / f"{seed}" / "runs" / "sim"
    sim = Sim(seed, place, trace)
    SYSCALLS.mount(sim.disk)
    setattr(writer, "time", _Time(sim.time))  # noqa: B010 - as above: the one function of `time` that it calls
    try:
        return sim.run()
    finally:
        sim.disk.release()
        sim.witness.close()
        shutil.rmtree(base / f"{seed}", ignore_errors=True)
