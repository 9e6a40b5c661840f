"""From flags to everything a run needs before it is signed: contract, blast radius, settings, provider hosts.

The command line calls it; so does the demo. Starts nothing.
"""

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from inbounds.agents import registry
from inbounds.agents.profile import AgentProfile, Install
from inbounds.contracts.blast import radius
from inbounds.contracts.bound import Contract
from inbounds.contracts.documents import LimitsText
from inbounds.contracts.errors import InboundsError, OperatorError, RefusedError
from inbounds.contracts.paths import CONTRACT_DIRECTORY
from inbounds.discover import repository
from inbounds.gateway.config import Format
from inbounds.gateway.keys import KeyStore
from inbounds.gateway.settings import keys_for, load_settings
from inbounds.journal.sshsig import OperatorKey
from inbounds.run import authorize, bind, choose, documents, granting, launch, layer, preflight
from inbounds.run.base import find_base, place
from inbounds.run.home import Home

# Where neither flag, plan nor policy names one: what each agent is usually run with.
MODELS = {"claude": "claude-sonnet-4-5", "codex": "gpt-5-codex", "reference": "gpt-5-mini"}
DIRTY_SHOWN = 20  # uncommitted files named on the screen; the rest is counted


@dataclass(frozen=True, slots=True)
class Order:
    """What a person asked for."""

    directory: Path
    wish: bind.Wish

    @classmethod
    def from_flags(
        cls,
        directory: Path,
        *,
        goal: str = "",
        accept: tuple[str, ...] = (),
        targets: tuple[str, ...] = (),
        agent: str = "",
        model: str = "",
        budget: str = "",
        duration: str = "",
        iterations: int | None = None,
    ) -> "Order":
        """Flags as click gives them; flags only narrow."""
        limits = LimitsText(budget_usd=budget or None, wall_clock=duration or None, iterations=iterations)
        return cls(directory, bind.Wish(goal, accept, targets, agent, model, limits))


@dataclass(frozen=True, slots=True)
class Ordered:
    """A bound contract and what goes with it; `keys` is what the gateway alone reads, and is never written."""

    contract: Contract
    blast: dict[str, Any]
    settings: dict[str, Any]
    summary: dict[str, Any]
    uncommitted: tuple[str, ...]
    remarks: tuple[str, ...]
    signature_file: Path | None
    keys: Mapping[str, Any]

    def upstreams(self) -> bytes:
        """What the supervisor passes to the gateway unread."""
        return json.dumps(self.keys).encode()


def order(
    home: Home,
    asked: Order,
    *,
    gateway: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None,
    say: Callable[[str], None] = lambda _: None,
    key: OperatorKey | None = None,
    install: Install | None = None,
    gpus: granting.Host | None = None,
) -> Ordered:
    """Bind; `gateway` (settings, keys) replaces the operator's provider (demo and tests bring a model server).

    `gpus` replaces this host's own device nodes (tests bring stand-ins).
    """
    top, thread = place(asked.directory)
    found = documents.read(top, thread)
    mode = preflight.settle_host(found.policy.enforcement)
    granted = granting.settle(bind.gpu(found), mode, gpus)
    preflight.refuse_undrilled(home, mode, found.policy.enforcement.drill_max_age_days or 0)
    needs_accept(home, top, found, asked.wish)
    base = find_base(top, found, home)
    operators = {person.name: person.key for person in found.policy.operators}
    operator, _ = authorize.me(operators, key)
    work = bind.choose_work(found, asked.wish, base, found.config.owner)
    name = asked.wish.agent or work.plan.agent or ""
    if install is None:
        profile, install = choose.choose(name, found.policy.agents)
    else:
        profile = registry.profile(install.name)
    model = asked.wish.model or work.plan.model or MODELS.get(install.name, "")
    served, keys = gateway or _provider(home, profile, model)
    layer.ensure(home, layer.need(base.store, base.tree, thread), say)
    settings = {"agent": asdict(install), "gateway": dict(served)}
    if granted.devices:
        settings[granting.SETTING] = granted.as_json()
    choice = bind.AgentChoice(install.name, install.version, install.sha256, model, launch.settings_sha256(settings))
    contract = bind.bind(
        documents=found, work=work, wish=asked.wish, base=base, agent=choice, operator=operator, mode=mode
    )
    looked = repository.look(asked.directory)
    hosts = tuple(sorted({str(upstream["base_url"]) for upstream in served["upstreams"].values()}))
    blast = radius(contract, hosts)
    dirty = [item.path for item in looked.uncommitted if not item.path.startswith(CONTRACT_DIRECTORY)]
    return Ordered(
        contract=contract,
        blast=blast,
        settings=settings,
        summary=msgspec.to_builtins(contract),
        uncommitted=(
            *dirty[:DIRTY_SHOWN],
            *([f"and {len(dirty) - DIRTY_SHOWN} more"] if len(dirty) > DIRTY_SHOWN else []),
        ),
        remarks=tuple(f"{r.requirement} {r.field}: {r.why}" for r in bind.all_remarks(work)),
        signature_file=None if work.drafted else top / found.path("WORK_PLAN.json.sig"),
        keys=keys,
    )


def _provider(home: Home, profile: AgentProfile, model: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The operator's provider for this agent's format, and its key; a subscription login is refused with the reason."""
    served = load_settings().serve([model], [Format(profile.format)])
    try:
        return served, keys_for(served, KeyStore(home.keys))
    except OperatorError as error:
        problem = profile.problem(Path.home(), has_key=False)
        raise OperatorError(
            problem or error.found, expected=error.expected, fix=error.fix, where=error.where
        ) from error


def needs_accept(home: Home, top: Path, found: documents.Documents, wish: bind.Wish) -> None:
    """A goal and the tests that show it go together; RefusedError lists today's failing tests."""
    if not wish.goal and wish.accept:
        raise OperatorError("--accept without --goal", expected="both", fix='inbounds run . --goal "…" --accept TEST')
    if wish.goal and not wish.accept:
        raise _nothing_to_accept(home, top, found)


NONE_FAILS = "\n    (none fails today: write the test first)"


def _nothing_to_accept(home: Home, top: Path, found: documents.Documents) -> InboundsError:
    """Without a test nothing could show success: today's failing tests are what could be accepted (A8)."""
    from inbounds.run.baseline import failing_today

    failing = failing_today(home, top, found)
    listed = "".join(f"\n    --accept {shlex.quote(test)}" for test in failing)
    return RefusedError(
        "--goal without --accept: nothing could show that the goal is reached",
        expected=f"one or more of today's failing tests:{listed or NONE_FAILS}",
        fix=f'inbounds run . --goal "…" --accept {shlex.quote(failing[0]) if failing else "tests/x.py::test_y"}',
    )
