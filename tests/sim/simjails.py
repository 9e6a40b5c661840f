"""Jails and the agent in one: honest, stuck, noisy, hostile or broken, acting step by step while its jail lives.

Knows nothing of the supervisor: it writes into the workspace and asks the gateway, and other processes say what it did.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from simtrees import Tree

from inbounds.contracts.errors import HostError
from inbounds.run.crew import HaltedError

if TYPE_CHECKING:
    from simworld import World

RULES = (
    *[("secrets", "secrets.key")] * 4, *[("tests", "coverage.regressed")] * 3, *[("scope", "anomaly.binary")] * 2,
    ("scope", "scope.undeclared"), ("scope", "scope.acceptance_test"), ("scope", "scope.executes_later"),
    ("tests", "tests.canary"), ("tests", "tests.missing"), ("tests", "tests.acceptance_changed"),
    ("bandit", "bandit.B602"),
)  # fmt: skip
KINDS = (
    "honest",
    "honest",
    "honest",
    "stuck",
    "idle",
    "noisy",
    "hostile",
    "hostile",
    "hostile",
    "broken",
    "hanging",
    "hanging",
)


@dataclass(slots=True, eq=False)
class Jail:
    """A jail's process tree; `waiters` are called once it has ended."""

    role: str
    alive: bool = True
    going: bool = False
    reason: str = ""
    waiters: list[Callable[[], None]] = field(default_factory=list)

    def go(self, fault: str = "") -> None:
        """Let it begin, unless that could not be announced."""
        if fault or not self.alive:
            raise HostError(fault or "the jail ended before it began")
        self.going = True

    def end(self, reason: str) -> bool:
        """It has ended; False where it had already."""
        if not self.alive:
            return False
        self.alive, self.reason = False, reason
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter()
        return True


class Crew:
    """Every jail of one life; after `halt` none starts."""

    def __init__(self) -> None:
        self.jails: list[Jail] = []
        self.halted = False

    def open(self, role: str) -> Jail:
        """A jail that waits for its go."""
        self.may_start()
        jail = Jail(role)
        self.jails.append(jail)
        return jail

    def may_start(self) -> None:
        """HaltedError after `halt`."""
        if self.halted:
            raise HaltedError("the run is stopping", expected="no further jail")

    def kill(self, role: str, reason: str = "killed") -> None:
        """End the jails of one role."""
        for jail in self.jails:
            if jail.role == role:
                jail.end(reason)

    def halt(self) -> int:
        """End everything, and let nothing start again; returns how many were alive."""
        self.halted = True
        return sum(jail.end("killed") for jail in self.jails)


class Agent:
    """What works in one coder's jail."""

    def __init__(self, world: "World", jail: Jail, kind: str, unit_ms: int) -> None:
        self.world, self.jail, self.kind, self.unit_ms = world, jail, kind, unit_ms
        self.left = world.rng.randint(3, 9)

    def act(self) -> None:
        """One action, and the next one later."""
        world, rng = self.world, self.world.rng
        if not self.jail.alive or not self.jail.going:
            return None
        world.executes(self.jail.role)
        if self.left <= 0:
            if self.kind in ("stuck", "hanging") and rng.random() < 0.7:
                return self._later(20)  # it neither ends nor does anything
            world.exits(self.jail, "exited")
            return None
        self.left -= 1
        if self.kind == "broken" and rng.random() < 0.4:
            world.exits(self.jail, rng.choice(("memory", "failed", "exited")))
        elif self.kind == "idle":
            self.left = 0
        elif self.kind == "noisy" and rng.random() < 0.6:
            world.denied(rng.choice(("name", "tool", "egress")), sensitive=False)
        elif self.kind == "hostile" and rng.random() < 0.35:
            self._attack(rng)
        elif self.kind == "hanging":
            return self._later(20)
        elif rng.random() < 0.6:
            return self._ask(rng)
        else:
            self._write(rng)
        return self._later(2)

    def _later(self, units: int) -> None:
        self.world.schedule.after(1 + self.world.rng.randrange(self.unit_ms * units), self.act)

    def _ask(self, rng: Random) -> None:
        usd, tokens = rng.randint(1, 400), rng.randint(3, 400)
        reservation = self.world.ask(usd, tokens)
        if reservation is None:
            return self._later(3)
        gateway = self.world.gateway
        calls = rng.choice((0, 1, 1, 2, 5) if self.kind != "hostile" else (0, 9, 30))
        cost, used = rng.randint(usd // 3, usd), rng.randint(tokens // 3, tokens)

        def answered() -> None:
            assert gateway is not None
            gateway.reply(reservation, cost, used, calls)

        if rng.random() > 0.03:  # an answer may never come
            self.world.schedule.after(1 + rng.randrange(self.unit_ms), answered)
        return self._later(2)

    def _write(self, rng: Random) -> None:
        here = self.world.workspace
        if here is None:
            return
        step = {"changed": here.changed + rng.randint(1, 3)}
        if self.kind == "honest" and rng.random() < 0.6:
            step["failing"] = max(0, here.failing - rng.randint(1, 2))
        if rng.random() < 0.06:
            step["regressions"] = 1
        elif here.regressions and rng.random() < 0.6:
            step["regressions"] = 0
        self.world.write(self.world.trees.next(here, **step))

    def _attack(self, rng: Random) -> None:
        here: Tree | None = self.world.workspace
        what = rng.randrange(12)
        if what == 0:
            self.world.denied("decoy", sensitive=True)
        elif what == 1:
            self.world.fill(rng)
        elif here is None:
            return
        elif what == 2:
            self.world.write(self.world.trees.next(here, complete=False))
        elif what == 3:
            self.world.write(self.world.trees.next(here, changed=here.changed + 60))
        elif what == 4:
            weak = ((rng.choice(("scope", "tests", "secrets")), rng.choice(("FAIL", "INCONCLUSIVE"))),)
            self.world.write(self.world.trees.next(here, weak=weak))
        else:
            self.world.write(self.world.trees.next(here, rules=(*here.rules, rng.choice(RULES))))
