"""A drill of this host under one thread's policy: what decides its jails, and its evidence.

Composes the drill (drill/) with documents, state directory and signing key. Judges nothing itself.
"""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inbounds.contracts import limits as numbers
from inbounds.contracts.errors import HostError, OperatorError
from inbounds.contracts.ids import run_id
from inbounds.contracts.narrow import narrow_anomalies
from inbounds.drill import record, report
from inbounds.drill.case import Case, built_in, load
from inbounds.drill.ground import Ground
from inbounds.drill.mode import Mode, choose
from inbounds.drill.runner import Drill, Result
from inbounds.journal.signing import open_signer
from inbounds.judges import globs
from inbounds.judges.anomalies import judge as anomalies
from inbounds.run import bind, documents, layer, levels
from inbounds.run.base import find_base, place
from inbounds.run.documents import POLICY
from inbounds.run.home import Home
from inbounds.run.mounts import layer_binds
from inbounds.sandbox.spec import JailLimits


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which cases, in which mode, how many at once; `file` is a case from outside the product."""

    mode: str = "rootless"
    klass: str = ""
    file: Path | None = None
    jobs: int = 1

    def cases(self) -> list[Case]:
        """The cases that are meant; OperatorError for a class that has none or a file that is no case."""
        if self.file is not None:
            if self.klass:
                raise OperatorError("both --case and --class", expected="one of them")
            return [load(self.file, external=True)]
        return built_in(self.klass)

    @property
    def complete(self) -> bool:
        """Whether this is the whole suite: what a policy that asks for a drill means."""
        return not self.klass and self.file is None


def drill(home: Home, directory: Path, wanted: Wanted, tell: Callable[[Result], None]) -> dict[str, Any]:
    """Run the cases in jails as this thread's runs get them; the facts, which then are evidence below `home` too.

    HostError where this host can make no such jails; OperatorError for a directory whose contracts do not hold.
    """
    cases = wanted.cases()
    started_at, began = time.time(), time.monotonic()
    drill_id = run_id(time.strftime("%Y%m%d-%H%M%S", time.gmtime(started_at)), secrets.token_hex(3))
    found = _host(wanted.mode)
    chosen = choose(wanted.mode, drill_id)
    decided = ground(home, directory)
    head = {
        "mode": chosen.name,
        "level": found.level,
        "drill_id": drill_id,
        "ground": decided.described,
        "complete": wanted.complete,
        "enforcement": dict(found.enforcement),
        **record.host_facts(),
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started_at)),
    }
    with record.DrillJournal(home.path, drill_id, open_signer(home.keys)) as journal:
        journal.started(head)

        def told(result: Result) -> None:
            journal.case(result.as_record())
            tell(result)

        results = _run(decided, chosen, cases, wanted.jobs, told)
        counts = report.summary(results)
        ms = int((time.monotonic() - began) * 1000)
        journal.finished({**counts, "cases": len(results), "complete": wanted.complete, "ms": ms})
    return {**head, "ms": ms, "cases": [result.as_record() for result in results], **counts}


def _run(
    decided: Ground, chosen: Mode, cases: Sequence[Case], jobs: int, tell: Callable[[Result], None]
) -> list[Result]:
    with Drill(decided, chosen) as running:
        return running.run(cases, jobs=jobs, tell=tell)


def _host(mode: str) -> levels.Found:
    found = levels.host().modes[mode]
    if found.problem:
        raise HostError(found.problem, expected=f"a host that has {mode} jails", fix=found.fix or "inbounds doctor")
    return found


def ground(home: Home, directory: Path) -> Ground:
    """What the policy of this directory's thread decides; the default where it lies in no repository with a policy.

    A policy that is there but does not hold is an error: a drill of other bounds than the run's would say nothing.
    """
    if not directory.is_dir():
        raise OperatorError(f"{directory} is no directory", expected="a thread's directory, or any other")
    try:
        top, thread = place(directory)
    except OperatorError:
        return Ground(described="no repository: the default policy")
    if not (top / POLICY).exists():
        return Ground(described=f"{top} has no policy: the default")
    found = documents.read(top, thread)
    base = find_base(top, found, home)
    limits, _ = bind.narrow(found, bind.no_work(found), bind.Wish())
    needed = layer.need(base.store, base.tree, thread)
    built = layer.built(home, needed.key) is not None
    return Ground(
        thread=thread,
        limits=_limits(limits),
        layer=layer_binds(home.layers / needed.key / layer.ENV) if built else (),
        pythonpath=(*found.config.tests.pythonpath, *base.layer_pythonpath),
        terms=_terms(found),
        described=f"{top}, thread {thread}" + ("" if built else " (its dependency layer is not built)"),
    )


def _limits(limits: numbers.Limits) -> JailLimits:
    plain = JailLimits()
    return JailLimits(
        processes=limits.processes,
        memory_bytes=limits.memory_bytes,
        file_bytes=min(limits.disk_bytes, plain.file_bytes),
    )


def _terms(found: documents.Documents) -> anomalies.Terms:
    bounds = narrow_anomalies(found.policy.anomalies, POLICY, found.config.anomalies, found.path("config.yaml"))
    return anomalies.Terms(bounds.actions, bounds.numbers, globs.parse_all(bounds.paths))
