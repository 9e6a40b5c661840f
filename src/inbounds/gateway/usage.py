"""A reply's token counts as the provider itself reports them, read from each wire format.

Untrusted numbers: anything but plain non-negative integers is unreadable, and an unreadable usage stays charged at the
request's bound. Knows nothing of prices.
"""

from dataclasses import dataclass, replace
from typing import Any

from inbounds.gateway.config import Format

ANTHROPIC_BOTH = frozenset({"input_tokens", "output_tokens"})
TOKENS_MAX = 1 << 40  # no reply has more; keeps every product below 2^63


class UnreadableUsageError(Exception):
    """The provider's usage is missing or contradicts itself."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Disjoint token counts: `input_tokens` excludes what was read from or written to a cache."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0

    @property
    def cache_write_tokens(self) -> int:
        """Both kinds of cache writes."""
        return self.cache_write_5m_tokens + self.cache_write_1h_tokens

    @property
    def input_total(self) -> int:
        """All that the model read, by which long-context tiers are chosen."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens

    @property
    def total(self) -> int:
        """Everything that a cap in tokens counts."""
        return self.input_total + self.output_tokens

    def most(self, other: "Usage") -> "Usage":
        """The larger of each count: a later partial figure never lowers what an earlier one showed."""
        return Usage(*(max(getattr(self, name), getattr(other, name)) for name in self.__slots__))


def _count(usage: dict[str, Any], *path: str) -> int:
    """A count at `path`; 0 where it is absent or null, UnreadableUsageError where it is no count."""
    value: Any = usage
    for step in path:
        if value is None:
            return 0
        if not isinstance(value, dict):
            raise UnreadableUsageError(f"usage.{'.'.join(path)} is not a number")
        value = value.get(step)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= TOKENS_MAX:
        raise UnreadableUsageError(f"usage.{'.'.join(path)} is {value!r}")
    return value


def _openai(usage: dict[str, Any], read: str, write: str, details: str) -> Usage:
    if usage.get(read) is None or usage.get(write) is None:
        raise UnreadableUsageError(f"usage without {read} and {write}")
    total = _count(usage, read)
    cached = _count(usage, details, "cached_tokens")
    written = _count(usage, details, "cache_write_tokens")
    if cached + written > total:
        raise UnreadableUsageError(f"{cached} cached and {written} written of {total} input tokens")
    return Usage(
        input_tokens=total - cached - written,
        output_tokens=_count(usage, write),
        cache_read_tokens=cached,
        cache_write_5m_tokens=written,
    )


def _anthropic(usage: dict[str, Any]) -> Usage:
    """Cache writes come as one sum and, in newer replies, split by lifetime; what the split lacks is five-minute."""
    one_hour = _count(usage, "cache_creation", "ephemeral_1h_input_tokens")
    five_minutes = _count(usage, "cache_creation", "ephemeral_5m_input_tokens")
    written = max(_count(usage, "cache_creation_input_tokens"), one_hour + five_minutes)
    return Usage(
        input_tokens=_count(usage, "input_tokens"),
        output_tokens=_count(usage, "output_tokens"),
        cache_read_tokens=_count(usage, "cache_read_input_tokens"),
        cache_write_5m_tokens=written - one_hour,
        cache_write_1h_tokens=one_hour,
    )


def read_usage(wire: Format, usage: Any) -> Usage:
    """Parse the usage object of a reply or of a stream's event; UnreadableUsageError where it can't be trusted."""
    if not isinstance(usage, dict):
        raise UnreadableUsageError("a reply without usage")
    match wire:
        case Format.CHAT:
            return _openai(usage, "prompt_tokens", "completion_tokens", "prompt_tokens_details")
        case Format.RESPONSES:
            return _openai(usage, "input_tokens", "output_tokens", "input_tokens_details")
        case Format.MESSAGES:
            if stated(usage) != ANTHROPIC_BOTH:
                raise UnreadableUsageError(f"usage without {' and '.join(sorted(ANTHROPIC_BOTH))}")
            return _anthropic(usage)


def stated(usage: Any) -> set[str]:
    """Which of Anthropic's two figures stand in a usage object; what does not stand there is not zero."""
    return {name for name in ANTHROPIC_BOTH if isinstance(usage, dict) and usage.get(name) is not None}


def read_part(usage: Any) -> Usage:
    """As `read_usage` for one event of an Anthropic stream: a figure may stand in another event, see `stated`."""
    if not isinstance(usage, dict):
        raise UnreadableUsageError("an event without usage")
    return _anthropic(usage)


def merge_anthropic(start: Usage, delta: Usage) -> Usage:
    """A stream's message_start and its latest cumulative message_delta; the one-hour share is not repeated there."""
    merged = start.most(delta)
    overlap = merged.cache_write_tokens - max(start.cache_write_tokens, delta.cache_write_tokens)
    return replace(merged, cache_write_5m_tokens=merged.cache_write_5m_tokens - overlap)
