"""The ledger and the gateway of a simulated run: reservations, settlements, doubt, caps, a lease.

As the real ones behave (gateway/ledger.py): an open reservation counts as spent, a dead gateway's stay in doubt.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from inbounds.contracts.limits import Limits
from inbounds.gateway.ledger import Totals

Post = Callable[[str, Mapping[str, Any]], None]


@dataclass(slots=True)
class Ledger:
    """On disk: outlives every process. `open` maps a reservation to its bound in micro-dollars and tokens."""

    settled: int = 0
    unknown: int = 0
    settled_tokens: int = 0
    unknown_tokens: int = 0
    tool_calls: int = 0
    requests: int = 0
    open: dict[int, tuple[int, int]] = field(default_factory=dict)

    def totals(self) -> Totals:
        """The real ledger's own row, so that what counts as spent is the product's word."""
        return Totals(
            kind="run", name="sim", month="", cap_micro_usd=None, cap_tokens=None,
            settled_micro_usd=self.settled, reserved_micro_usd=sum(usd for usd, _ in self.open.values()),
            unknown_micro_usd=self.unknown, settled_tokens=self.settled_tokens,
            reserved_tokens=sum(tokens for _, tokens in self.open.values()), unknown_tokens=self.unknown_tokens,
            requests=self.requests, tool_calls=self.tool_calls,
        )  # fmt: skip

    @property
    def spent(self) -> int:
        """All that counts, reserved money included; counted here and not by the product."""
        return self.settled + self.unknown + sum(usd for usd, _ in self.open.values())

    @property
    def spent_tokens(self) -> int:
        """The same in tokens."""
        return self.settled_tokens + self.unknown_tokens + sum(tokens for _, tokens in self.open.values())

    def reserve(self, usd: int, tokens: int) -> int:
        """Take a request's worst case."""
        self.requests += 1
        self.open[self.requests] = (usd, tokens)
        return self.requests

    def settle(self, reservation: int, usd: int, tokens: int, calls: int) -> bool:
        """Replace the bound by the truth; False where it had ended already."""
        if self.open.pop(reservation, None) is None:
            return False
        self.settled, self.settled_tokens = self.settled + usd, self.settled_tokens + tokens
        self.tool_calls += calls
        return True

    def doubt_all(self) -> None:
        """Nobody settles them any more: they stay charged at their bounds."""
        for usd, tokens in self.open.values():
            self.unknown, self.unknown_tokens = self.unknown + usd, self.unknown_tokens + tokens
        self.open.clear()


class Gateway:
    """One gateway process: admits what fits, replies later, says what it settled."""

    def __init__(self, ledger: Ledger, limits: Limits, rng: Random, post: Post) -> None:
        self.ledger, self.rng, self.post = ledger, rng, post
        ledger.doubt_all()
        self.alive = self.lease = True
        self.paused = False
        self.interval_ms = 0
        self.turns = 0
        self.amend(limits)

    def amend(self, limits: Limits) -> None:
        """What it holds the run to."""
        self.usd, self.tokens, self.calls, self.turns_max, self.request_usd = (
            limits.budget_micro_usd, limits.tokens, limits.tool_calls, limits.turns, limits.request_micro_usd,
        )  # fmt: skip

    def begin_iteration(self) -> None:
        """Turns are counted anew."""
        self.turns = 0

    def admit(self, usd: int, tokens: int) -> int | None:
        """A reservation, or None: refused, and said why."""
        if not self.alive:
            return None
        if not self.lease:
            self.post("model.refused", {"reason": "lease_closed", "cap": "lease"})
        elif self.paused:
            self.post("model.refused", {"reason": "paused", "cap": ""})
        elif self.turns >= self.turns_max:
            self.post("model.refused", {"reason": "all turns are used", "cap": "turns"})
        elif self.ledger.tool_calls > self.calls:
            self.post("model.refused", {"reason": "all tool calls are used", "cap": "tool_calls"})
        elif usd > self.request_usd:
            self.post("model.refused", {"reason": "too dear", "cap": "request"})
        elif self.ledger.spent + usd > self.usd or self.ledger.spent_tokens + tokens > self.tokens:
            fits = self.ledger.settled + self.ledger.unknown + usd <= self.usd and self.ledger.open
            self.post("model.refused", {"reason": "no room", "cap": "busy" if fits else "run"})
        else:
            self.turns += 1
            return self.ledger.reserve(usd, tokens)
        return None

    def reply(self, reservation: int, usd: int, tokens: int, calls: int) -> None:
        """The provider answered: settle and say so."""
        if self.alive and self.ledger.settle(reservation, usd, tokens, calls):
            said = self.ledger.totals().spent_micro_usd
            usage = {"spent_micro_usd": said, "input_tokens": tokens - tokens // 3, "output_tokens": tokens // 3}
            self.post("model.usage", {**usage, "tool_calls": calls})

    def close_lease(self) -> None:
        """Nothing is admitted any more; what is in flight stays charged at its bound."""
        self.lease = False
        if self.rng.random() < 0.5:
            self.ledger.doubt_all()

    def die(self) -> None:
        """It is gone; what it had reserved is for the next one to doubt."""
        self.alive = False
