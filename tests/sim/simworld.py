"""Everything outside the supervisor that outlives it, or does not: workspace, store, ledger, gateway, jails, people's files.

What happens here is the truth that the invariants compare the journal with.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from simjails import Agent, Crew, Jail
from simledger import Gateway, Ledger
from simtime import Schedule, TrueTime
from simtrees import Tree, Trees

from inbounds.contracts.errors import HostError
from inbounds.contracts.limits import Limits

Post = Callable[[str, Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Commit:
    """One on the agent branch."""

    name: str
    tree: str
    n: int


@dataclass(slots=True)
class Requests:
    """Small files that people leave in the run's directory."""

    stop: dict[str, Any] | None = None
    amend: dict[str, Any] | None = None
    signal: str = ""
    tampered: bool = False


@dataclass(slots=True)
class Witnessed:
    """What the invariants want to hear of at once."""

    executes: Callable[[str], None]
    admitted: Callable[[int], None]
    landed: Callable[[str], None]


@dataclass(slots=True)
class World:
    """One run's surroundings."""

    rng: Random
    time: TrueTime
    schedule: Schedule
    trees: Trees
    seen: Witnessed
    ledger: Ledger = field(default_factory=Ledger)
    workspace: Tree | None = None
    quarantined: list[str] = field(default_factory=list)
    branch: list[Commit] = field(default_factory=list)
    judged: set[tuple[int, str]] = field(default_factory=set)
    snapshots: set[str] = field(default_factory=set)
    development: list[str] = field(default_factory=list)
    requests: Requests = field(default_factory=Requests)
    evidence: set[int] = field(default_factory=set)  # legs whose stop has kept what stood
    used: tuple[int, int] = (0, 0)
    workspace_full: bool = False
    gateway: Gateway | None = None
    crew: Crew | None = None
    post: Post | None = None  # how processes reach the living supervisor
    look: Callable[[], None] | None = None  # wakes the living supervisor's watch

    # -- what agents do

    def executes(self, role: str) -> None:
        """Something of the run does something."""
        self.seen.executes(role)

    def write(self, tree: Tree) -> None:
        """An agent changes the workspace."""
        if not self.workspace_full and self.workspace is not None:
            self.workspace = tree
            self.used = (tree.changed * 10, tree.changed)

    def fill(self, rng: Random) -> None:
        """An agent writes more than it may."""
        self.used = rng.choice(((10_000_000, 1), (1, 1_000_000)))
        if self.look:
            self.look()

    def ask(self, usd: int, tokens: int) -> int | None:
        """A request to a model."""
        if self.gateway is None:
            return None
        reservation = self.gateway.admit(usd, tokens)
        if reservation is not None:
            self.seen.admitted(usd)
        return reservation

    def denied(self, what: str, *, sensitive: bool) -> None:
        """It reached for something."""
        self.tell("denial", {"kind": what, "what": what, "detail": "", "sensitive": sensitive})

    def exits(self, jail: Jail, reason: str) -> None:
        """Its jail ends by itself."""
        jail.end(reason)

    # -- what the supervisor's parts do here

    def tell(self, kind: str, data: Mapping[str, Any]) -> None:
        """Another process has something to say to the supervisor, if there is one."""
        if self.post is not None:
            self.post(kind, data)

    def open_gateway(self, limits: Limits, *, paused: bool) -> Gateway:
        """A new gateway process on the ledger."""
        self.gateway = Gateway(self.ledger, limits, self.rng, self.tell)
        self.gateway.paused = paused
        return self.gateway

    def gateway_dies(self) -> None:
        """By itself."""
        if self.gateway is not None and self.gateway.alive:
            self.gateway.die()
            self.tell("part.failed", {"part": "gateway", "detail": "it ended by itself with 1"})

    def work(self, jail: Jail, kind: str, unit_ms: int) -> None:
        """An agent begins."""
        agent = Agent(self, jail, kind, unit_ms)
        self.schedule.after(1, agent.act)

    def standing(self) -> str:
        """The last committed tree, or the base."""
        return self.branch[-1].tree if self.branch else "base"

    def restore(self, tree: str) -> None:
        """The workspace is at this tree."""
        if self.workspace_full:
            raise HostError("no room to restore")
        self.workspace = self.trees.known[tree]
        self.used = (self.workspace.changed * 10, self.workspace.changed)

    def commit(self, n: int, tree: str) -> str:
        """On the agent branch; the same commit for the same tree."""
        if self.branch and self.branch[-1].tree == tree:
            return self.branch[-1].name
        made = Commit(f"c{len(self.branch) + 1}", tree, n)
        self.branch.append(made)
        return made.name

    def land(self, commit: str) -> None:
        """On development."""
        self.seen.landed(commit)
        self.development.append(commit)

    # -- death

    def supervisor_dies(self, *, at_once: bool) -> None:
        """Jails and gateway end with it, at once or a little later."""
        self.post = self.look = None
        crew, gateway, self.crew, self.gateway = self.crew, self.gateway, None, None

        def gone() -> None:
            if crew is not None:
                crew.halt()
            if gateway is not None:
                gateway.die()

        if at_once:
            gone()
        else:
            self.gateway = gateway  # still reachable for agents that are still there
            self.schedule.after(1 + self.rng.randrange(60), gone)
