"""What tokens cost: a model's prices as integers, the dearest bound of a request and the exact price of a reply.

Prices come from genai-prices (offline) or the operator's override. Micro-dollars per million tokens is the same
number as pico-dollars per token, so that every sum here is an exact integer, rounded up once per request.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any

from inbounds.gateway.config import GatewayConfig, Model, PriceOverride, Upstream
from inbounds.gateway.usage import Usage

PICO_PER_MICRO = 1_000_000
TIERS_MAX = 16  # a price list has two or three; more is a broken one

# Prices of things this gateway refuses to forward (audio, searches): they can't be spent, so they need no metering.
_NEVER_BILLED = ("audio", "output_image", "cache_image", "video", "searches", "document", "pixels", "executions")
_TEXT_KEYS = {
    "input": ("input_mtok", "input_text_mtok", "input_image_mtok"),
    "output": ("output_mtok", "output_text_mtok", "output_reasoning_mtok", "output_text_reasoning_mtok"),
    "cache_read": ("cache_read_mtok", "cache_text_read_mtok"),
    "cache_write_5m": ("cache_write_mtok", "cache_write_5m_mtok", "cache_text_write_mtok"),
    "cache_write_1h": ("cache_write_1h_mtok", "cache_text_write_1h_mtok"),
}


class UnknownPriceError(Exception):
    """No price for this model, or one in units that this gateway does not meter; the text says which."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Pico-dollars per token: `base`, and (start, price) for requests whose whole input is over `start` tokens."""

    base: int
    tiers: tuple[tuple[int, int], ...] = ()

    def at(self, input_tokens: int) -> int:
        """The price that a request of so many input tokens pays."""
        price = self.base
        for start, tier_price in self.tiers:
            if input_tokens > start:
                price = tier_price
        return price

    def dearest(self, input_tokens: int) -> int:
        """The highest price that any request of at most so many input tokens could pay."""
        return max([self.base, *(price for start, price in self.tiers if input_tokens > start)])


@dataclass(frozen=True, slots=True)
class Prices:
    """One model's rates; every cost is in micro-dollars, rounded up."""

    input: Rate
    output: Rate
    cache_read: Rate
    cache_write_5m: Rate
    cache_write_1h: Rate

    def cost(self, usage: Usage) -> int:
        """What the provider's own usage figures come to."""
        size = usage.input_total
        pico = (
            usage.input_tokens * self.input.at(size)
            + usage.output_tokens * self.output.at(size)
            + usage.cache_read_tokens * self.cache_read.at(size)
            + usage.cache_write_5m_tokens * self.cache_write_5m.at(size)
            + usage.cache_write_1h_tokens * self.cache_write_1h.at(size)
        )
        return -(-pico // PICO_PER_MICRO)

    def dearest_input(self, tokens: int, *, cache_write: bool, cache_write_1h: bool) -> int:
        """Pico-dollars per input token at worst, for a request of at most so many input tokens."""
        rates = [self.input, self.cache_read]
        rates += [self.cache_write_5m] if cache_write else []
        rates += [self.cache_write_1h] if cache_write_1h else []
        return max(rate.dearest(tokens) for rate in rates)


def _rate(price: Any, what: str) -> Rate:
    """Turn genai-prices' dollars per million tokens (plain or tiered) into a Rate."""
    if isinstance(price, Decimal):
        return Rate(_pico(price, what))
    tiers = tuple((int(tier.start), _pico(tier.price, what)) for tier in price.tiers)
    if len(tiers) > TIERS_MAX or list(tiers) != sorted(tiers):
        raise UnknownPriceError(f"{what} has tiers that can't be read")
    return Rate(_pico(price.base, what), tiers)


def _pico(price: Decimal, what: str) -> int:
    if not price.is_finite() or price < 0:
        raise UnknownPriceError(f"{what} is {price}")
    # rounded up: a price finer than a pico-dollar is no reason to lose
    return int((price * PICO_PER_MICRO).to_integral_value(ROUND_CEILING))


def _dearer(rates: list[Rate]) -> Rate:
    """The pointwise dearest of several rates (text and reasoning output are billed apart by some)."""
    starts = sorted({start for rate in rates for start, _ in rate.tiers})
    tiers = tuple((start, max(rate.at(start + 1) for rate in rates)) for start in starts)
    return Rate(max(rate.base for rate in rates), tiers)


def _times(rate: Rate, numerator: int, denominator: int) -> Rate:
    def scale(price: int) -> int:
        return -(-price * numerator // denominator)

    return Rate(scale(rate.base), tuple((start, scale(price)) for start, price in rate.tiers))


def from_override(override: PriceOverride) -> Prices:
    """The operator's own price; a cache price left out is input's (read), 5/4 (write), 2 (one-hour write) of it."""

    def given(value: int | None, otherwise: Rate) -> Rate:
        return otherwise if value is None else Rate(value)

    base = Rate(override.input_micro_usd_per_mtok)
    return Prices(
        input=base,
        output=Rate(override.output_micro_usd_per_mtok),
        cache_read=given(override.cache_read_micro_usd_per_mtok, base),
        cache_write_5m=given(override.cache_write_5m_micro_usd_per_mtok, _times(base, 5, 4)),
        cache_write_1h=given(override.cache_write_1h_micro_usd_per_mtok, _times(base, 2, 1)),
    )


def from_list(price: Any, name: str) -> Prices:
    """Read a genai-prices ModelPrice; UnknownPriceError where something is missing, or billed that is not metered."""
    known = {key for keys in _TEXT_KEYS.values() for key in keys}
    found: dict[str, Any] = {key: value for key, value in vars(price).items() if value is not None}
    for key in found:
        if key not in known and not key.startswith("_") and not any(word in key for word in _NEVER_BILLED):
            raise UnknownPriceError(f"{name} is billed by {key}, which this gateway does not meter")
    rates = {
        what: _dearer([_rate(found[key], f"{name} {key}") for key in keys if key in found])
        for what, keys in _TEXT_KEYS.items()
        if any(key in found for key in keys)
    }
    if "input" not in rates or "output" not in rates:
        raise UnknownPriceError(f"{name} has no price for input and output")
    base = rates["input"]
    write = rates.get("cache_write_5m", _times(base, 5, 4))
    return Prices(
        input=base,
        output=rates["output"],
        cache_read=rates.get("cache_read", base),
        cache_write_5m=write,
        cache_write_1h=rates.get("cache_write_1h", _dearer([_times(base, 2, 1), write])),
    )


class PriceBook:
    """Every configured model's prices, looked up once; dated prices are resolved again for each request."""

    def __init__(self, config: GatewayConfig) -> None:
        """Find each model in the override or the list; what is missing is remembered as the reason to refuse."""
        self._fixed: dict[str, Prices] = {}
        self._listed: dict[str, Any] = {}
        self._missing: dict[str, str] = {}
        self._converted: dict[int, Prices] = {}
        for name, model in config.models.items():
            if model.price is not None:
                self._fixed[name] = from_override(model.price)
                continue
            listed = _find(model, config.upstreams[model.upstream])
            if listed is None:
                self._missing[name] = f"no price is known for model {model.upstream_model!r} of {model.upstream!r}"
            else:
                self._listed[name] = listed

    def price(self, model: str, now: datetime) -> Prices:
        """The prices in force at `now`; UnknownPriceError in words that the agent may read."""
        if model in self._fixed:
            return self._fixed[model]
        if model not in self._listed:
            raise UnknownPriceError(self._missing.get(model, f"model {model!r} is not configured"))
        price = self._listed[model].get_prices(now)
        if id(price) not in self._converted:  # the list's objects live as long as this book: ids stay unique
            self._converted[id(price)] = from_list(price, model)
        return self._converted[id(price)]


def _find(model: Model, upstream: Upstream) -> Any:
    from genai_prices.data_snapshot import get_snapshot

    by_url = None if upstream.price_provider else upstream.base_url
    try:
        _, found = get_snapshot().find_provider_model(model.upstream_model, None, upstream.price_provider, by_url)
    except LookupError:
        return None
    return found
