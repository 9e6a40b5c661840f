"""The provider's own bill, kept apart from the gateway's ledger so that the two can be compared.

Knows prices and tokens; nothing of wire formats.
"""

import json
import threading
from dataclasses import asdict, dataclass
from typing import TextIO

# A looping agent at full speed makes some thousand requests a minute; a bill longer than this is a test gone wild.
LINES_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Line:
    """One request that reached the provider with a right key; money in micro-dollars."""

    request: int
    format: str
    model: str
    turn: str
    status: int
    streamed: bool
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_micro_usd: int
    tool_calls: int


class Bill:
    """Append-only lines; with a file, each is also written there as JSON when it happens."""

    def __init__(self, out: TextIO | None = None) -> None:
        """Start empty; `out` stays the caller's to close."""
        self._lines: list[Line] = []
        self._lock = threading.Lock()
        self._out = out

    def add(self, line: Line) -> None:
        """Record one request."""
        with self._lock:
            assert len(self._lines) < LINES_MAX, "the bill is longer than any test needs"
            self._lines.append(line)
            if self._out is not None:
                self._out.write(json.dumps(asdict(line)) + "\n")
                self._out.flush()

    @property
    def lines(self) -> tuple[Line, ...]:
        """All lines so far."""
        with self._lock:
            return tuple(self._lines)

    @property
    def requests(self) -> int:
        """How many requests reached the provider."""
        return len(self.lines)

    @property
    def cost_micro_usd(self) -> int:
        """What the provider charges for all of them."""
        return sum(line.cost_micro_usd for line in self.lines)

    @property
    def tool_calls(self) -> int:
        """How many tool calls the model asked for."""
        return sum(line.tool_calls for line in self.lines)
