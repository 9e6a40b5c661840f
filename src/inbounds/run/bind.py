"""Binding: documents, flags and the repository's HEAD become one frozen contract, or an error that says what to mend.

Everything that a run may do is fixed here, before anything starts (E8, J13). Starts nothing; writes objects to the
trusted store only.
"""

import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path

from inbounds.contracts import bound
from inbounds.contracts import documents as models
from inbounds.contracts.bound import Contract, PinnedTest, document_sha256
from inbounds.contracts.draft import draft
from inbounds.contracts.errors import OperatorError, RefusedError
from inbounds.contracts.ids import run_id as make_run_id
from inbounds.contracts.limits import Limits
from inbounds.contracts.narrow import Layer, narrow_anomalies, narrow_gpu, narrow_limits, narrow_names, tighter
from inbounds.contracts.paths import CONTRACT_DIRECTORY, below, joined, relative, test_file
from inbounds.contracts.reasons import StopCode
from inbounds.contracts.units import duration, usd
from inbounds.contracts.wording import Remark, remarks
from inbounds.judges import globs
from inbounds.run import building, conducting
from inbounds.run.documents import PLAN, POLICY, REQUIREMENTS, Documents
from inbounds.store.store import Store
from inbounds.store.tree import Node


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person said on the command line; empty means: as the files say."""

    goal: str = ""
    accept: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    agent: str = ""
    model: str = ""
    limits: models.LimitsText = field(default_factory=models.LimitsText)


@dataclass(frozen=True, slots=True)
class Work:
    """Requirements and plan of a run, from files or drafted from flags."""

    requirements: tuple[models.Requirement, ...]
    plan: models.Plan
    drafted: bool


@dataclass(frozen=True, slots=True)
class AgentChoice:
    """The agent that will run, as found on this host, and the hash of the settings that say how."""

    name: str
    version: str
    sha256: str
    model: str
    settings_sha256: str


@dataclass(frozen=True, slots=True)
class Base:
    """What the run starts from."""

    store: Store
    commit: str
    tree: str
    layer: str
    layer_pythonpath: tuple[str, ...] = ()


def choose_work(documents: Documents, wish: Wish, base: Base, owner: str) -> Work:
    """Flags draft a requirement and plan; without a goal the thread's own files are taken (A8: both need tests)."""
    if wish.goal:
        accept = tuple(repository_test(documents.thread, base, test) for test in wish.accept)
        pins = pin(base, accept)
        targets = tuple(relative(target) for target in wish.targets)
        requirement, plan = draft(
            goal=wish.goal,
            accept=[(p.test, p.sha256) for p in pins],
            owner=owner,
            thread=documents.thread,
            targets=targets,
            limits=wish.limits,
            agent=wish.agent,
            model=wish.model,
        )
        return Work((requirement,), plan, drafted=True)
    if documents.plan is None or documents.requirements is None:
        missing = PLAN if documents.requirements else REQUIREMENTS
        raise OperatorError(
            "there is no plan to run",
            where=documents.path(missing),
            expected=f"{PLAN} and {REQUIREMENTS}, or --goal with --accept",
            fix='inbounds run . --goal "…" --accept tests/x.py::test_y',
        )
    return Work(_referenced(documents), documents.plan, drafted=False)


def narrow(documents: Documents, work: Work, wish: Wish) -> tuple[Limits, dict[str, str]]:
    """Policy, thread, requirements, plan, flags: concrete limits and their sources."""
    layers: list[Layer] = [documents.layer(documents.path("config.yaml"), documents.config.limits)]
    ceilings = models.LimitsText()
    for requirement in work.requirements:
        one = models.LimitsText(budget_usd=requirement.cost_ceiling_usd, wall_clock=requirement.runtime_ceiling)
        ceilings = tighter(ceilings, one)
    if work.drafted:
        layers.append(Layer("the flags", wish.limits, {}))
    else:
        layers.append(Layer(documents.path(REQUIREMENTS), ceilings, {}))
        layers.append(documents.layer(documents.path(PLAN), work.plan.limits))
        layers.append(Layer("the flags", wish.limits, {}))
    return narrow_limits(documents.layer(POLICY, documents.policy.limits), layers)


def repository_test(thread: str, base: Base, test: str) -> str:
    """A test id relative to the repository; written relative to the thread it is found there, too."""
    file, sep, rest = test.partition("::")
    for candidate in (joined(thread, relative(file)), relative(file)):
        if file_at(base, candidate) is not None:
            return candidate + sep + rest
    raise RefusedError(
        f"the acceptance test file {file} is not in HEAD",
        where="--accept",
        expected="a committed test, because acceptance tests belong to people (O6)",
        fix=f"git add {file} && git commit, then run again",
    )


def file_at(base: Base, path: str) -> Node | None:
    """The file at a path of the base tree, or None."""
    return next((node for node in base.store.ls(base.tree, (path,)) if node.path == path), None)


def pin(base: Base, tests: tuple[str, ...]) -> tuple[PinnedTest, ...]:
    """Pin each acceptance test's file by blob and SHA-256."""
    import hashlib

    pins: list[PinnedTest] = []
    for test in tests:
        path = test_file(test)
        entry = file_at(base, path)
        if entry is None:
            raise OperatorError(f"the acceptance test file {path} is not in HEAD", fix=f"git add {path} && git commit")
        raw = base.store.read_blob(entry.blob)
        pins.append(PinnedTest(test, path, entry.blob, hashlib.sha256(raw).hexdigest()))
    return tuple(pins)


def bind(
    *, documents: Documents, work: Work, wish: Wish, base: Base, agent: AgentChoice, operator: str, mode: models.Mode
) -> Contract:
    """The contract, unsigned; OperatorError or RefusedError names what does not hold."""
    policy, config, plan, month = documents.policy, documents.config, work.plan, documents.policy.month
    limits, sources = narrow(documents, work, wish)
    acceptance = _checked(documents, work, wish, base, agent)
    protected = _protected(documents, plan, acceptance)
    hashes = {r.id: document_sha256(r) for r in work.requirements}
    policy_sha, config_sha, plan_sha = map(document_sha256, (policy, config, plan))
    run_id = make_run_id(time.strftime("%Y%m%d-%H%M%S", time.gmtime()), secrets.token_hex(3))
    return Contract(
        version=bound.CONTRACT_VERSION,
        run_id=run_id,
        repository=str(documents.top),
        thread=documents.thread,
        base_commit=base.commit,
        base_tree=base.tree,
        store=base.store.path,
        branch=f"{plan.branch or f'agent/{plan.plan_id}'}/{run_id}",
        plan=plan,
        plan_sha256=plan_sha,
        requirements=work.requirements,
        requirements_sha256=hashes,
        policy_sha256=policy_sha,
        config_sha256=config_sha,
        limits=limits.as_json(),
        anomalies=_anomalies(documents),
        gpu=gpu(documents),
        build_directories=building.declared(documents, base.store, base.tree, protected),
        conduct=conducting.conduct(policy).as_json(),
        sources=sources,
        targets=plan.targets,
        protected=protected,
        interfaces=tuple(relative(path) for path in config.interfaces.read),
        acceptance=acceptance,
        # what this run is to make pass may not go on failing, whatever is pinned
        known_failing=tuple(name for name in config.tests.known_failing if not _stands_for(acceptance, name)),
        test_runner=config.tests.runner,
        test_command=config.tests.command,
        test_paths=tuple(relative(path) for path in config.tests.paths) or (documents.thread,),
        test_pythonpath=tuple(relative(path) for path in config.tests.pythonpath),
        test_timeout_ms=duration(config.tests.timeout),
        layer=base.layer,
        layer_pythonpath=base.layer_pythonpath,
        agent=agent.name,
        agent_version=agent.version,
        agent_sha256=agent.sha256,
        settings_sha256=agent.settings_sha256,
        model=agent.model,
        profile=policy.profile,
        mode=mode,
        level=policy.enforcement.level,
        require=policy.enforcement.require,
        drill_max_age_days=policy.enforcement.drill_max_age_days or 0,
        promote_to=plan.promote_to,
        promote_auto=policy.promotion.development == "auto" and plan.promote_to == "development",
        notify=policy.notify,
        month_micro_usd=usd(month.organization_usd) if month.organization_usd is not None else 0,
        thread_month_micro_usd=usd(month.thread_usd) if month.thread_usd is not None else 0,
        time_zone=month.time_zone,
        operator=operator,
        operator_keys={person.name: person.key for person in policy.operators},
        statement=bound.statement(
            plan=plan_sha, requirements=hashes, policy=policy_sha, config=config_sha, thread=documents.thread
        ),
        signature="",
        goal=wish.goal or "; ".join(r.objective for r in work.requirements),
    )


def _check_agent(documents: Documents, wish: Wish, agent: AgentChoice) -> None:
    """The chosen agent and model are among those that policy and thread allow."""
    policy, config = documents.policy, documents.config
    agents = narrow_names("agents", policy.agents, config.agents, documents.path("config.yaml"))
    narrow_names("agents", agents, (agent.name,), "--agent" if wish.agent else documents.path(PLAN))
    if policy.models or config.models:
        allowed = narrow_names("models", policy.models, config.models, documents.path("config.yaml"))
        narrow_names("models", allowed, (agent.model,), "--model" if wish.model else documents.path(PLAN))


def all_remarks(work: Work) -> tuple[Remark, ...]:
    """Vague wording in every requirement of the run."""
    return tuple(remark for requirement in work.requirements for remark in remarks(requirement))


def _referenced(documents: Documents) -> tuple[models.Requirement, ...]:
    assert documents.plan is not None
    assert documents.requirements is not None
    by_id = {requirement.id: requirement for requirement in documents.requirements.requirements}
    if len(by_id) != len(documents.requirements.requirements):
        raise OperatorError("an FR identifier stands twice", where=documents.path(REQUIREMENTS))
    found: list[models.Requirement] = []
    for reference in documents.plan.requirements:
        requirement = by_id.get(reference.id)
        if requirement is None:
            raise OperatorError(
                f"the plan refers to {reference.id}, which is not there",
                where=documents.path(PLAN),
                expected=f"one of: {', '.join(by_id)}",
            )
        if reference.sha256 and reference.sha256 != document_sha256(requirement):
            raise RefusedError(
                f"{reference.id} is not what the plan was made for",
                where=documents.path(REQUIREMENTS),
                expected=f"the version with hash {reference.sha256[:12]}",
                fix="inbounds plan sign, after reading what changed",
            )
        found.append(requirement)
    return tuple(found)


def no_work(documents: Documents) -> Work:
    """A stand-in where a thread has no plan yet, so that its limits can be shown."""
    plan = models.Plan(
        version=1,
        plan_id="PLAN-none",
        requirements=(),
        targets=(documents.thread,),
        expected_changes=(),
        risk="low",
    )
    return Work((), plan, drafted=True)


def check_work(documents: Documents, work: Work) -> None:
    """What every plan must hold, drafted or written: tests, owners, targets inside the thread, known stop codes."""
    where = "--accept" if work.drafted else documents.path(REQUIREMENTS)
    if not work.requirements:
        raise RefusedError("the plan refers to no requirement", where=where, expected="at least one FR")
    for requirement in work.requirements:
        if not requirement.acceptance:
            raise RefusedError(
                f"{requirement.id} has no executable acceptance criterion",
                where=where,
                expected="at least one test that fails today and passes when the work is done (A8)",
                fix="inbounds run . --goal … --accept tests/x.py::test_y",
            )
        if _automated(requirement.owner):
            raise RefusedError(
                f"{requirement.owner} cannot own {requirement.id}", where=where, expected="a person (O7)"
            )
    for target in work.plan.targets:
        if not below(relative(target.split("*", 1)[0].rstrip("/") or "."), documents.thread):
            raise RefusedError(
                f"the target {target} lies outside the thread {documents.thread}",
                where=documents.path(PLAN),
                expected=f"paths below {documents.thread}/",
                fix="a handoff to the other thread's owner, or a plan of that thread",
            )
    for code in work.plan.stop_conditions:
        if code not in StopCode.__members__:
            raise OperatorError(
                f"{code} is no stop code", where=documents.path(PLAN), expected="see docs/stop-codes.md"
            )


def _checked(documents: Documents, work: Work, wish: Wish, base: Base, agent: AgentChoice) -> tuple[PinnedTest, ...]:
    """Refuse what no contract may hold; the acceptance tests, pinned."""
    check_work(documents, work)
    _check_agent(documents, wish, agent)
    acceptance = pin(base, tuple(a.test for r in work.requirements for a in r.acceptance))
    _check_pins(documents, work, acceptance)
    return acceptance


def _anomalies(documents: Documents) -> bound.Anomalies:
    policy, config = documents.policy.anomalies, documents.config.anomalies
    found = narrow_anomalies(policy, POLICY, config, documents.path("config.yaml"))
    globs.parse_all(found.paths)  # a pattern that means nothing is the operator's to mend, now
    return found


def gpu(documents: Documents) -> bound.Gpu:
    """The GPUs that policy grants and the thread has left, with the ceilings on each."""
    said, config = documents.policy.resources.gpu, documents.config.resources.gpu
    return narrow_gpu(said, POLICY, config, documents.path("config.yaml"))


def _check_pins(documents: Documents, work: Work, pins: tuple[PinnedTest, ...]) -> None:
    by_test = {p.test: p for p in pins}
    criteria = [(requirement, criterion) for requirement in work.requirements for criterion in requirement.acceptance]
    for requirement, criterion in criteria:
        found = by_test[criterion.test].sha256
        if criterion.sha256 and criterion.sha256 != found:
            raise RefusedError(
                f"{test_file(criterion.test)} is not the file that {requirement.id} was pinned to",
                where=documents.path(REQUIREMENTS),
                expected=f"sha256 {criterion.sha256[:12]}…, found {found[:12]}…",
                fix="inbounds plan sign, after reading what changed",
            )


def _protected(documents: Documents, plan: models.Plan, acceptance: tuple[PinnedTest, ...]) -> tuple[str, ...]:
    named = {target for target in plan.targets if "*" not in target}
    own = [CONTRACT_DIRECTORY, joined(documents.thread, CONTRACT_DIRECTORY), *documents.policy.protected]
    paths = [*own, *documents.config.dependencies, *(p.path for p in acceptance)]
    return tuple(dict.fromkeys(path for path in paths if path not in named or path.endswith(CONTRACT_DIRECTORY)))


def _stands_for(acceptance: tuple[PinnedTest, ...], name: str) -> bool:
    return any(name == pin.test or name.startswith((f"{pin.test}[", f"{pin.test}::")) for pin in acceptance)


def _automated(owner: str) -> bool:
    name = owner.lower()
    return name.endswith("[bot]") or name.strip("@") in {"dependabot", "renovate", "github-actions", "claude", "codex"}


def repository_of(directory: Path) -> Path:
    """The given directory, resolved; OperatorError if it is none."""
    resolved = directory.resolve()
    if not resolved.is_dir():
        raise OperatorError(f"{directory} is no directory", fix="inbounds run . …")
    return resolved
