"""Which maturity level this host, the threads of a repository and recent runs have, and what would raise it (P4).

Measures the host by real attempts, in each mode; reads documents and journals for the rest. Changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from inbounds.contracts.errors import HostError, InboundsError, OperatorError
from inbounds.run import documents, launch, replay
from inbounds.run.base import place
from inbounds.run.home import Home
from inbounds.sandbox import hardened, maturity, trial
from inbounds.sandbox.probe import HostFacts, probe
from inbounds.sandbox.spec import ENFORCED, HARDENED, MECHANISMS, REQUIRED

RUNS_MAX = 10  # recent ones; each costs reading its journal
THREADS_MAX = 50  # a screen
INSIDE = "a jail was started, and its PID 1 measured it from inside"
MEASURED = ("preflight.finished", "run.reopened")


@dataclass(frozen=True, slots=True)
class Found:
    """A mode on this host: its level, every mechanism (name -> state), and why it can't be had ("" where it can)."""

    level: int
    lacking: tuple[str, ...]
    enforcement: Mapping[str, str]
    how: str
    problem: str = ""
    fix: str = ""

    def as_json(self) -> dict[str, Any]:
        """For --json."""
        return {"usable": not self.problem, "level": self.level, "problem": self.problem, "fix": self.fix,
                "how": self.how, "lacking": list(self.lacking)}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Host:
    """Both modes as they were found, and the host's own facts."""

    facts: HostFacts
    modes: Mapping[str, Found]

    @property
    def levels(self) -> dict[str, int]:
        """Mode -> level; a mode that can't be had is 0."""
        return {name: found.level for name, found in self.modes.items()}

    @property
    def level(self) -> int:
        """The highest that a run can have here."""
        return max(self.levels.values())

    @property
    def next(self) -> maturity.Step:
        """What would raise it."""
        return self.step(self.level)

    def step(self, level: int) -> maturity.Step:
        """What stands between `level` on this host and the next one."""
        if self.facts.problem:
            return maturity.Step(self.facts.problem, self.facts.fix)
        inside, service = self.modes["rootless"], self.modes["hardened"]
        if level < maturity.LEVEL_ROOTLESS_MAX:
            return maturity.next_step(level, _why(inside), fix=self.facts.fix)
        if service.problem:
            return maturity.next_step(level, {"hardened mode": service.problem}, hardened_fix=service.fix)
        return maturity.next_step(level, _why(service), hardened_fix=maturity.INSTALL)

    def mechanisms(self) -> list[dict[str, Any]]:
        """Each mechanism with its state in the best mode that can be had here, and how that was found."""
        inside, service = self.modes["rootless"], self.modes["hardened"]
        rows = []
        for name in {**MECHANISMS, **HARDENED}:
            of = service if name in HARDENED and (name not in MECHANISMS or not service.problem) else inside
            what = (HARDENED if of is service else MECHANISMS)[name]
            state = of.enforcement.get(name, "not observed")
            rows.append({"name": name, "state": state, "enforced": state == ENFORCED, "required": name in REQUIRED,
                         "what": what, "how": of.how,
                         "mode": "hardened" if name not in MECHANISMS else "both"})  # fmt: skip
        return rows


def _why(found: Found) -> dict[str, str]:
    return {name: found.enforcement.get(name, "not observed") for name in found.lacking}


def host() -> Host:
    """Try both modes."""
    facts = probe()
    tried = INSIDE if not facts.problem else "tried, and no jail could be made"
    level = min(facts.level, maturity.LEVEL_ROOTLESS_MAX)
    rootless = Found(level, facts.lacking, facts.enforcement, tried, facts.problem, facts.fix)
    return Host(facts, {"rootless": rootless, "hardened": _hardened(facts)})


def _hardened(facts: HostFacts) -> Found:
    service = hardened.reach()
    problem, fix = (facts.problem, facts.fix) if facts.problem else (service.problem, service.fix)
    if problem:
        return Found(0, (), service.enforcement, "tried, and the host service did not answer", problem, fix)
    try:
        tried = trial.attempt()
    except HostError as fault:
        absent = dict.fromkeys(HARDENED, f"absent: {fault.found}")
        return Found(0, (), absent, "tried, and no slot could be had", fault.found, fault.fix)
    return Found(tried.level, tried.lacking, tried.enforcement, trial.HOW, tried.problem, tried.fix)


def threads(directory: Path, found: Host) -> list[dict[str, Any]]:
    """The threads of the repository around `directory`, each with the level that a run of it gets here now.

    [] where there is no repository. A thread whose contracts do not hold has level 0: no run of it can start.
    """
    try:
        top, _ = place(directory)
    except (OperatorError, HostError):
        return []  # doctor is asked from anywhere
    return [_thread(top, name, found) for name in islice(documents.threads(top), THREADS_MAX)]


def _thread(top: Path, name: str, found: Host) -> dict[str, Any]:
    try:
        asked = documents.read(top, name).policy.enforcement
    except InboundsError as fault:
        return {"thread": name, "level": 0, "mode": "", "asked": 0, "missing": fault.one_line(),
                "raise_it": fault.fix or "inbounds check"}  # fmt: skip
    level, held = maturity.thread_level(found.levels, asked.mode)
    step = maturity.Step(held, f"write mode: auto in {documents.POLICY}") if held else found.step(level)
    if asked.mode == "hardened" and found.modes["hardened"].problem:
        step = maturity.Step(found.modes["hardened"].problem, found.modes["hardened"].fix)
    if level < asked.level:
        step = maturity.Step(
            f"its policy asks for level {asked.level}: its runs are refused; {step.missing}", step.command
        )
    return {"thread": name, "level": level, "mode": asked.mode, "asked": asked.level, "missing": step.missing,
            "raise_it": step.command}  # fmt: skip


def runs(home: Home) -> list[dict[str, Any]]:
    """The newest runs, each with the level that its preflight measured: of its last leg, where it had several."""
    return [_run(home, run_id) for run_id in islice(home.runs(), RUNS_MAX)]


def _run(home: Home, run_id: str) -> dict[str, Any]:
    """One run; what is missing is what its own jails lacked, whatever this host has by now."""
    told: dict[str, Any] = {"run_id": run_id, "mode": "", "level": 0, "asked": 0, "missing": "", "raise_it": ""}
    enforcement: dict[str, str] = {}
    try:
        for record in replay.records(home.run(run_id)):
            if record.kind == "run.accepted":
                told["mode"] = str(record.data.get("mode", ""))
            elif record.kind in MEASURED:
                told["level"], enforcement = int(record.data.get("level", 0)), dict(record.data.get("enforcement", {}))
        told["asked"] = launch.read_contract(home.run(run_id)).level
    except (InboundsError, OSError, ValueError, TypeError) as fault:
        told["missing"] = fault.one_line() if isinstance(fault, InboundsError) else str(fault)
        return {**told, "raise_it": f"inbounds verify {run_id}"}
    if told["level"] >= maturity.LEVEL_ROOTLESS_MAX and told["mode"] == "rootless":
        told["missing"], told["raise_it"] = maturity.HELD, maturity.INSTALL
    elif told["level"] < maturity.LEVEL_MAX:
        names = maturity.reached(enforcement).lacking
        told["missing"] = "; ".join(f"{name}: {enforcement.get(name, 'not observed')}" for name in names)
        told["raise_it"] = "inbounds doctor"
    return told
