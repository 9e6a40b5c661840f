"""Before anything starts: host, agent, signature, baseline, budget; each finding with what to type (F10, M1, A8).

Fills a Found; the kernel decides on it. What is refused here has cost nothing.
"""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inbounds.agents.registry import profile
from inbounds.contracts.bound import Contract
from inbounds.contracts.canonical import digest
from inbounds.contracts.documents import Enforcement, Mode
from inbounds.contracts.errors import HostError, RefusedError
from inbounds.contracts.paths import below
from inbounds.contracts.verdict import Outcome
from inbounds.drill import record
from inbounds.gateway.ledger import spend
from inbounds.journal.signing import public_key
from inbounds.judges import toolbox
from inbounds.judges.tests import Suite
from inbounds.run import authorize, replay
from inbounds.run.building import inside, jail_limits
from inbounds.run.crew import Crew
from inbounds.run.documents import POLICY
from inbounds.run.home import Home
from inbounds.run.housing import JOBS, WORKSPACE
from inbounds.run.judging import Bench
from inbounds.run.launch import settings_sha256
from inbounds.run.workbench import Workbench
from inbounds.sandbox import hardened, maturity
from inbounds.sandbox.gpu import Device
from inbounds.sandbox.host import jail_python
from inbounds.sandbox.identity import Identity
from inbounds.sandbox.probe import probe
from inbounds.sandbox.spec import ENFORCED, HARDENED, Bind
from inbounds.sandbox.volume import Volume
from inbounds.store.store import Store


@dataclass(slots=True)
class Found:
    """What preflight found; any reason means: do not start."""

    reasons: list[str] = field(default_factory=list)
    enforcement: dict[str, str] = field(default_factory=dict)
    level: int = 0
    baseline: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether the run may start."""
        return not self.reasons

    def as_record(self) -> dict[str, Any]:
        """preflight.finished."""
        return {
            "ok": self.ok,
            "reasons": self.reasons,
            "failing": len(self.baseline.get("failing", ())),
            "baseline": self.baseline,
            "enforcement": self.enforcement,
            "level": self.level,
        }


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON object that this program wrote."""
    try:
        loaded = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise HostError(f"cannot be read: {error}", where=str(path)) from error
    assert isinstance(loaded, dict)
    return loaded


def host(contract: Contract, found: Found, slot: hardened.Slot | None = None) -> None:
    """Probe by real attempts, in the run's own slot where it has one; policy's level and mechanisms must hold."""
    facts = probe(slot)
    most = maturity.LEVEL_MAX if slot else maturity.LEVEL_ROOTLESS_MAX
    found.enforcement, found.level = dict(facts.enforcement), min(facts.level, most)
    if facts.problem:
        found.reasons.append(f"{facts.problem}; type: {facts.fix}" if facts.fix else facts.problem)
    elif found.level < contract.level:
        missing = ", ".join(f"{n}: {s}" for n, s in found.enforcement.items() if s != "enforced")
        found.reasons.append(f"level {contract.level} is asked for, this host gives {found.level} ({missing})")
    for name in contract.require:
        state = found.enforcement.get(name, "absent: unknown mechanism")
        if state != "enforced":
            found.reasons.append(f"policy requires {name}, here it is {state}; see inbounds doctor")


def settle_host(asked: Enforcement) -> Mode:
    """Before a person is asked to sign: the mode that the run will have, by what policy asks for and this host gives.

    HostError where no jail can be made, RefusedError where policy asks for more: nothing is weakened silently. The
    supervisor looks again (`host`), in the run's own slot where there is one: its word stands in the journal.
    """
    facts = probe()
    if facts.problem:
        raise HostError(facts.problem, expected="a host that can make jails", fix=facts.fix or "inbounds doctor")
    service = hardened.reach() if asked.mode != "rootless" else hardened.UNASKED
    mode: Mode = "hardened" if service.usable or asked.mode == "hardened" else "rootless"
    found = {**facts.enforcement, **service.enforcement}
    got = maturity.reached(found, maturity.LEVEL_MAX if mode == "hardened" else maturity.LEVEL_ROOTLESS_MAX)
    names = [name for name in asked.require if found.get(name) != ENFORCED]
    names += [name for name in got.lacking if got.level < asked.level and name not in names]
    lacking = [f"{name} is {found.get(name, 'unknown')}" for name in names]
    if mode == "hardened" and not service.usable:
        lacking.insert(0, f"the hardened mode is absent: {service.problem}")
    if lacking:
        raise RefusedError(
            f"policy asks for more than this host enforces: {'; '.join(lacking)}",
            where=f"{POLICY}: enforcement",
            expected=f"level {asked.level}, found level {got.level}",
            fix=_to_type(asked, service, names),
        )
    return mode


def undrilled(home: Home, mode: str, days: int) -> str:
    """What is wrong with this host's drills, where policy asks for one; "" where nothing is, or nothing is asked."""
    if not days:
        return ""
    try:
        found = record.lacking(home.path, public_key(home.keys), mode, days)
    except HostError:  # no key: nothing was ever signed here
        found = "there was none"
    return found and f"policy asks for a clean drill of the {mode} mode younger than {days} days: {found}"


def refuse_undrilled(home: Home, mode: str, days: int) -> None:
    """Before a person is asked to sign: RefusedError where the drill that policy asks for is missing or too old."""
    if wrong := undrilled(home, mode, days):
        raise RefusedError(
            wrong,
            where=f"{POLICY}: enforcement.drill_max_age_days",
            expected="one of this host, its kernel and this version of inbounds",
            fix=f"inbounds drill --mode {mode}",
        )


def drilled(home: Home, contract: Contract, found: Found) -> None:
    """The supervisor's own look at the same (`refuse_undrilled`): its word stands in the journal."""
    if wrong := undrilled(home, contract.mode, contract.drill_max_age_days):
        found.reasons.append(wrong)


def _to_type(asked: Enforcement, service: hardened.Reach, lacking: list[str]) -> str:
    """What would let the run start: the hardened mode, where what is lacking is that or comes with it."""
    comes_with_it = asked.mode == "hardened" or any(name in HARDENED for name in lacking)
    if not comes_with_it or service.usable:
        return "inbounds doctor"
    return f"write mode: auto in {POLICY}; then inbounds doctor" if asked.mode == "rootless" else service.fix


def agent(contract: Contract, settings: dict[str, Any], found: Found) -> None:
    """The settings are those that were bound (they say where the keys go), the agent on disk the one signed for."""
    if settings_sha256(settings) != contract.settings_sha256:
        found.reasons.append("settings.json is not what the contract was bound with")
        return
    path = Path(settings["agent"]["path"])
    if not path.exists():
        found.reasons.append(f"the agent {contract.agent} is not at {path} any more")
    elif (
        settings["agent"]["sha256"] != contract.agent_sha256
        or profile(contract.agent).digest(path) != contract.agent_sha256
    ):
        found.reasons.append(f"the agent {contract.agent} at {path} is not the one that was signed for")


def signature(contract: Contract, found: Found) -> None:
    """The start statement is signed by an operator, and is about this contract."""
    name = authorize.signed_by(
        dict(contract.statement), contract.signature, contract.operator_keys, authorize.START_NAMESPACE
    )
    if not name or name != contract.operator:
        found.reasons.append(f"no operator signed the statement {digest(dict(contract.statement))[:12]}")
    if dict(contract.statement) != contract.restated():
        found.reasons.append("the contract is not the one that its signed statement is about")


def baseline(bench: Bench, found: Found) -> None:
    """The base tree's tests in the tester's jail: nothing unknown fails, and there is something to reach (M1, M11)."""
    verdict = bench.measure()
    found.baseline = {"outcome": verdict.outcome.value, **verdict.facts}
    if verdict.outcome is not Outcome.PASS:
        found.reasons.append(verdict.summary)


def budget(home: Home, contract: Contract, found: Found) -> None:
    """Something is left this month; the gateway holds every request to it later anyway (G3)."""
    month = time.strftime("%Y-%m", time.gmtime())
    if not contract.month_micro_usd:
        return
    for totals in spend(home.ledger, kind="organisation", month=month):
        if totals.spent_micro_usd >= contract.month_micro_usd:
            found.reasons.append(
                f"the month's budget is spent ({totals.spent_micro_usd} micro-dollars); see inbounds budget"
            )


def volume(store: Store, contract: Contract, place: Path, who: Identity) -> Volume:
    """The run's workspace below `place`, with acceptance tests and contracts read-only."""
    return Volume.prepare(
        store,
        contract.base_tree,
        contract.thread,
        contract.interfaces,
        str(place / WORKSPACE),
        uid=who.uid if who.dropped else None,
        gid=who.gid if who.dropped else None,
        protected=[path for path in contract.protected if below(path, contract.thread)],
    )


def layer_path(home: Home, contract: Contract) -> Path | None:
    """The dependency layer on disk; HostError if it is not built."""
    if not contract.layer:
        return None
    path = home.layers / contract.layer / "env"
    if not path.is_dir():
        raise HostError(f"the dependency layer {contract.layer[:12]} is not built", fix="inbounds env build")
    return path


def workbench(
    home: Home, contract: Contract, store: Store, place: Path, crew: Crew, who: Identity,
    devices: tuple[Device, ...] = (),
) -> Workbench:  # fmt: skip
    """Where judges' jobs run; the scanners of this installation are bound read-only."""
    tools = toolbox.toolbox()
    return Workbench(
        store=store,
        scratch=place / JOBS,
        crew=crew,
        identity=who,
        prefixes=(contract.thread, *contract.interfaces),
        limits=jail_limits(contract.numbers()),
        build=inside(contract.build_directories),
        layer=layer_path(home, contract),
        binds=tuple(Bind(host, inside, executable=True) for host, inside in tools.binds),
        devices=devices,
    )


def suite(contract: Contract, store: Store, layer: Path | None) -> Suite:
    """How the tests run: every test file of the base is restored unless the plan names it (O6)."""
    named = {target for target in contract.targets if "*" not in target}
    inside = [
        node
        for node in store.ls(contract.base_tree, contract.test_paths)
        if node.mode in (0o100644, 0o100755) and node.path not in named and _is_test(node.path)
    ]
    restore = {node.path: node.blob for node in inside}
    restore.update({pin.path: pin.blob for pin in contract.acceptance})
    return Suite(
        acceptance=tuple(pin.test for pin in contract.acceptance),
        paths=contract.test_paths,
        thread="" if contract.thread == "." else contract.thread,
        runner=contract.test_runner,
        python="/opt/inbounds/env/bin/python" if layer else str(jail_python()),
        command=contract.test_command,
        pythonpath=(*contract.test_pythonpath, *contract.layer_pythonpath),
        restore=restore,
        deadline_ms=contract.test_timeout_ms,
    )


def bench(
    home: Home, contract: Contract, store: Store, place: Path, crew: Crew, who: Identity,
    devices: tuple[Device, ...] = (),
) -> Bench:  # fmt: skip
    """The judges of one run; their jobs are carried out below `place`."""
    (place / JOBS).mkdir(mode=0o700, exist_ok=True)
    made = workbench(home, contract, store, place, crew, who, devices)
    found = Bench(contract, store, made, suite(contract, store, made.layer), toolbox.toolbox())
    run_dir = home.run(contract.run_id)
    found.records = lambda: ((record.kind, record.at_ms, record.data) for record in replay.records(run_dir))
    return found


def _is_test(path: str) -> bool:
    name = path.rsplit("/", 1)[-1]
    return name == "conftest.py" or name.startswith("test_") or "_test." in name or ".test." in name or ".spec." in name
