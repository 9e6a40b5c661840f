"""People: they stop, amend and resume, sign well or badly, and somebody may tamper with the contract.

A signature here is a text that names who signed what; `signed_by` stands in for the product's verification of SSH ones.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, cast

from inbounds.contracts.bound import Contract
from inbounds.contracts.canonical import digest
from inbounds.contracts.conduct import Conduct
from inbounds.contracts.limits import Limits
from inbounds.run import amending

OPERATORS = {"ana": "key", "ben": "key", "cyd": "key"}
STRANGER = "mallory"


@dataclass(frozen=True, slots=True)
class Agreed:
    """What the product reads of a contract on the ways that are simulated."""

    conduct: Conduct
    run_id: str = "sim"
    branch: str = "inbounds/sim"
    store: str = "store"
    operator_keys: dict[str, str] = field(default_factory=lambda: dict(OPERATORS))

    def conducted(self) -> Conduct:
        """How the run is conducted."""
        return self.conduct

    def sha256(self) -> str:
        """Its hash."""
        return "c0" * 32

    def contract(self) -> Contract:
        """As the product's type."""
        return cast("Contract", self)


def sign(name: str, statement: dict[str, Any]) -> str:
    """An armored signature."""
    return f"{name} signed {digest(statement)}"


def signed_by(statement: dict[str, Any], armored: str, operators: dict[str, str], namespace: str) -> str:
    """As run/authorize.py's: which operator made this signature, or ""."""
    del namespace
    return next((name for name in operators if armored == sign(name, statement)), "")


@dataclass(slots=True)
class People:
    """What people did, which is the truth about who agreed to what."""

    rng: Random
    agreed: Agreed
    amendments: set[tuple[int, Limits]] = field(default_factory=set)
    resumed: dict[str, set[str]] = field(default_factory=dict)  # stop hash -> who validly signed for it

    def amendment(self, limits: Limits, version: int) -> dict[str, Any]:
        """A request to amend, mostly in order."""
        rng = self.rng
        names = ("budget_micro_usd", "tokens", "tool_calls", "iterations", "wall_clock_ms", "turns", "denials")
        wanted = {name: max(1, getattr(limits, name) * rng.randint(40, 300) // 100) for name in rng.sample(names, 2)}
        new: Limits = replace(limits, **wanted)
        asked = version + 1 if rng.random() < 0.8 else version + rng.choice((0, 2))
        said = amending.statement(self.agreed.contract(), asked, new, "")
        how = rng.random()
        if how < 0.1:
            return {"statement": said, "signature": sign(STRANGER, said)}
        if how < 0.2:
            return {"statement": {**said, "note": "changed later"}, "signature": sign("ana", said)}
        if how < 0.25:
            return {}
        self.amendments.add((asked, new))
        return {"statement": said, "signature": sign(rng.choice(sorted(OPERATORS)), said)}

    def resume(self, stops: list[str], append: Callable[[dict[str, Any]], None]) -> None:
        """Sign for the last stop, or for an older one, or badly; `append` keeps the decision in the journal."""
        rng = self.rng
        able = self.agreed.conduct.resume_by or tuple(OPERATORS)
        for _ in range(rng.randint(0, 3)):
            stop = stops[-1] if rng.random() < 0.8 else rng.choice(stops)
            said = {"what": "resume", "run_id": "sim", "stop_code": "", "why": "", "stop_hash": stop, "note": ""}
            name = rng.choice((*sorted(OPERATORS), *able, STRANGER))
            armored = sign(name, said)
            if rng.random() < 0.1:
                said = {**said, "note": "changed later"}
            elif name in able:
                self.resumed.setdefault(stop, set()).add(name)
            append({"kind": "resume", "operator": name, "statement": said, "signature": armored})
