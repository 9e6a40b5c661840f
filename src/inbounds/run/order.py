"""From flags to everything a run needs before it is signed: contract, blast radius, settings, provider hosts.

The command line calls it; so does the demo. Starts nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from inbounds.contracts.blast import radius
from inbounds.contracts.bound import Contract
from inbounds.contracts.documents import LimitsText
from inbounds.contracts.errors import OperatorError
from inbounds.discover import repository
from inbounds.run import authorize, bind, choose, documents
from inbounds.run.base import find_base, place
from inbounds.run.home import Home

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
    """A bound contract and what goes with it; `gateway` holds upstream settings with keys and is never written."""

    contract: Contract
    blast: dict[str, Any]
    settings: dict[str, Any]
    summary: dict[str, Any]
    uncommitted: tuple[str, ...]
    remarks: tuple[str, ...]
    signature_file: Path | None
    gateway: Mapping[str, Any]

    def upstreams(self) -> bytes:
        """What the supervisor passes to the gateway unread."""
        return json.dumps(self.gateway).encode()


def order(home: Home, asked: Order, *, gateway: Mapping[str, Any] | None = None) -> Ordered:
    """Bind; `gateway` replaces the operator's provider settings (demo and tests bring their own model server)."""
    top, thread = place(asked.directory)
    found = documents.read(top, thread)
    if not asked.wish.goal and asked.wish.accept:
        raise OperatorError("--accept without --goal", expected="both", fix='inbounds run . --goal "…" --accept TEST')
    if asked.wish.goal and not asked.wish.accept:
        raise _nothing_to_accept(home, top, found)
    base = find_base(top, found, home)
    operators = {person.name: person.key for person in found.policy.operators}
    operator, _ = authorize.me(operators)
    work = bind.choose_work(found, asked.wish, base, found.config.owner)
    name = asked.wish.agent or work.plan.agent or ""
    profile, install = choose.choose(name, found.policy.agents)
    settings, model = _provider(profile, asked.wish.model or work.plan.model or "", gateway)
    choice = bind.AgentChoice(install.name, install.version, install.sha256, model)
    contract = bind.bind(documents=found, work=work, wish=asked.wish, base=base, agent=choice, operator=operator)
    looked = repository.look(asked.directory)
    hosts = tuple(sorted({upstream["base_url"] for upstream in settings["upstreams"].values()}))
    blast = radius(contract, hosts)
    dirty = [item.path for item in looked.uncommitted if not item.path.startswith(documents.CONTRACT_PREFIX)]
    return Ordered(
        contract=contract,
        blast=blast,
        settings={"agent_path": install.path, "hosts": list(hosts)},
        summary=msgspec.to_builtins(contract),
        uncommitted=(
            *dirty[:DIRTY_SHOWN],
            *([f"and {len(dirty) - DIRTY_SHOWN} more"] if len(dirty) > DIRTY_SHOWN else []),
        ),
        remarks=tuple(f"{r.requirement} {r.field}: {r.why}" for r in bind.all_remarks(work)),
        signature_file=None if work.drafted else top / found.path("WORK_PLAN.json.sig"),
        gateway=settings,
    )
