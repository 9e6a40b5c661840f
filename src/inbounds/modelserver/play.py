"""From a request and a script to the reply: whose turn it is, what it costs, what is to go wrong. No sockets.

The request's own history says which turn it is, so parallel agents and fresh iterations need no state here; only
faults that are to happen a number of times are counted.
"""

import collections
import hashlib
import json
import threading
import time
from dataclasses import dataclass

from inbounds.modelserver import dialect
from inbounds.modelserver.script import Fault, Price, Script, Turn, Usage
from inbounds.modelserver.wire import BYTES_PER_TOKEN, Asked, Reply

# Conversations that a server remembers faults for; one run of a test suite has a few.
FAULTS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Played:
    """What to send, and what it costs; `usage` is what is billed even where the reply leaves it out."""

    reply: Reply
    turn: Turn
    name: str
    fault: Fault | None
    usage: Usage
    cost_micro_usd: int


class Player:
    """Plays one script to any number of agents."""

    def __init__(self, script: Script) -> None:
        """Start with no request counted."""
        self.script = script
        self._lock = threading.Lock()
        self._requests = 0
        self._faults: collections.Counter[str] = collections.Counter()

    def play(self, asked: Asked) -> Played:
        """Give the reply to a request."""
        name, turn = self.script.turn(
            said=asked.said, model=asked.model, offers_tools=bool(asked.tools), taken=asked.taken
        )
        calls = tuple(dialect.spoken(call, asked) for call in turn.calls)
        usage = turn.usage or _sized(asked, turn)
        # A provider stops at the limit it is given, and then the calls it was going to make are not there.
        cut_short = asked.output_max is not None and usage.output > asked.output_max
        if cut_short and asked.output_max is not None:
            usage = Usage(usage.input, asked.output_max, usage.cache_read, usage.cache_write)
        with self._lock:
            self._requests += 1
            number = self._requests
            fault = self._fault(turn, name, asked)
        reply = Reply(
            request=number,
            taken=asked.taken,
            model=asked.model,
            text=turn.text,
            calls=() if cut_short else calls,
            usage=None if fault and fault.kind == "no_usage" else usage,
            cut_short=cut_short,
            made_s=int(time.time()),
        )
        price = self.script.prices.get(asked.model, Price())
        return Played(reply, turn, name, fault, usage, price.cost(usage))

    def _fault(self, turn: Turn, name: str, asked: Asked) -> Fault | None:
        if turn.fault is None or turn.fault.times == 0:
            return turn.fault
        talk = f"{name}:{hashlib.sha256(asked.said.encode('utf-8', 'surrogatepass')).hexdigest()}"
        assert len(self._faults) < FAULTS_MAX, "more conversations than any test has"
        self._faults[talk] += 1
        return turn.fault if self._faults[talk] <= turn.fault.times else None


def _sized(asked: Asked, turn: Turn) -> Usage:
    said = len(turn.text) + sum(len(json.dumps(call.arguments)) for call in turn.calls)
    return Usage(input=max(1, asked.bytes_in // BYTES_PER_TOKEN), output=max(1, said // BYTES_PER_TOKEN))
