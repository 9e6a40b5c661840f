"""What one gateway serves: the run it belongs to, its caps, the upstreams with their keys, and the models by name.

Crosses the control channel as one JSON object. Knows nothing of where keys or caps come from.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from inbounds.contracts.errors import OperatorError
from inbounds.contracts.units import INTEGER_MAX

CONFIG_BYTES_MAX = 60 << 10  # one control datagram holds 64 KiB; some is left for its envelope
TOKEN_CHARS_MIN = 24  # 144 bits of base64: nothing that a client could guess


class Format(StrEnum):
    """A provider's wire format; nothing is translated between them."""

    CHAT = "openai-chat"
    RESPONSES = "openai-responses"
    MESSAGES = "anthropic-messages"


@dataclass(frozen=True, slots=True)
class Caps:
    """Ceilings in micro-dollars, tokens and counts; None is "not capped here", never zero.

    `turns` is requests per iteration; `tool_calls` is per run, counted from the model's replies (E2).
    """

    run_micro_usd: int
    request_micro_usd: int | None = None
    thread_month_micro_usd: int | None = None
    month_micro_usd: int | None = None
    requirement_micro_usd: int | None = None
    request_tokens: int | None = None
    run_tokens: int | None = None
    thread_month_tokens: int | None = None
    month_tokens: int | None = None
    tool_calls: int | None = None
    turns: int | None = None

    def __post_init__(self) -> None:
        """Refuse negative or uncountable caps: a negative one would read as "nothing spent"."""
        for name, value in asdict(self).items():
            if value is not None and not 0 <= value <= INTEGER_MAX:
                raise OperatorError(f"cap {name} is {value}", expected=f"0 to {INTEGER_MAX}", where="gateway caps")


@dataclass(frozen=True, slots=True)
class PriceOverride:
    """An operator's own price, in micro-dollars per million tokens; cache prices left out take the dearest guess."""

    input_micro_usd_per_mtok: int
    output_micro_usd_per_mtok: int
    cache_read_micro_usd_per_mtok: int | None = None
    cache_write_5m_micro_usd_per_mtok: int | None = None
    cache_write_1h_micro_usd_per_mtok: int | None = None

    def __post_init__(self) -> None:
        """Refuse a negative price: it would earn the run money."""
        for name, value in asdict(self).items():
            if value is not None and not 0 <= value <= INTEGER_MAX:
                raise OperatorError(f"price {name} is {value}", expected="an integer from 0", where="gateway prices")


@dataclass(frozen=True, slots=True)
class Upstream:
    """One provider's service. `base_url` may end in /v1 or stand without it; `price_provider` is genai-prices' id.

    `chat_output_field` is injected where a chat request names no output limit (servers differ in which they obey).
    """

    name: str
    formats: tuple[Format, ...]
    base_url: str
    auth_header: str
    auth_prefix: str = ""
    key: str = field(default="", repr=False)
    price_provider: str | None = None
    chat_output_field: str = "max_completion_tokens"

    def __post_init__(self) -> None:
        """Refuse what can't be an HTTP origin, and what would split a header."""
        parts = urlsplit(self.base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise OperatorError(
                f"base_url {self.base_url!r}", expected="http(s)://host[:port][/path]", where=f"upstream {self.name}"
            )
        if parts.username or parts.password:
            raise OperatorError(
                "base_url holds a password", expected="the key set apart", where=f"upstream {self.name}"
            )
        for text in (self.auth_header, self.auth_prefix, self.key):
            if not text.isprintable() or not text.isascii():
                raise OperatorError(
                    "a control or non-ASCII character", where=f"upstream {self.name}: auth header or key"
                )

    @property
    def host(self) -> str:
        """The host (and port, where one is given) that requests go to; for the manifest."""
        return urlsplit(self.base_url).netloc

    def url(self, route: str) -> str:
        """The address of a route such as /v1/messages, whether or not the base already ends in /v1."""
        base = self.base_url.rstrip("/")
        return base + (route.removeprefix("/v1") if base.endswith("/v1") else route)


@dataclass(frozen=True, slots=True)
class Model:
    """A model as the agent names it, and what is really asked for upstream; `price` overrides the price list."""

    name: str
    upstream: str
    upstream_model: str
    output_tokens_max: int
    price: PriceOverride | None = None

    def __post_init__(self) -> None:
        """Refuse an output limit that bounds nothing."""
        if not 0 < self.output_tokens_max <= INTEGER_MAX:
            raise OperatorError(f"output_tokens_max {self.output_tokens_max}", where=f"model {self.name}")


@dataclass(frozen=True, slots=True)
class Proxy:
    """The operator's way out (HTTPS_PROXY, HTTP_PROXY, NO_PROXY); the jail never sees it."""

    https: str | None = None
    http: str | None = None
    no_proxy: str = ""


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """All that one gateway knows. `thread` must be unique on this machine (prefix it with the repository's key).

    `zone` is the organisation's time zone (IANA name), by which months begin. `token` is the run's, made by the
    supervisor; `ledger` a path whose directory exists.
    """

    run_id: str
    thread: str
    requirements: tuple[str, ...]
    token: str = field(repr=False)
    ledger: str
    caps: Caps
    upstreams: Mapping[str, Upstream]
    models: Mapping[str, Model]
    organisation: str = "default"
    zone: str = "UTC"
    proxy: Proxy = Proxy()
    ca_bundle: str | None = None

    def __post_init__(self) -> None:
        """Refuse a model without its upstream, and a token that could be guessed."""
        if len(self.token) < TOKEN_CHARS_MIN:
            raise OperatorError(f"a token of {len(self.token)} characters", expected=f"at least {TOKEN_CHARS_MIN}")
        for model in self.models.values():
            if model.upstream not in self.upstreams:
                raise OperatorError(
                    f"model {model.name!r} names upstream {model.upstream!r}",
                    expected=f"one of {', '.join(self.upstreams) or 'none'}",
                    where="gateway models",
                )

    def dump(self) -> str:
        """The JSON that `load` reads back to an equal value; OperatorError where it is too long for the channel."""
        text = json.dumps(asdict(self))
        if len(text) > CONFIG_BYTES_MAX:
            raise OperatorError(
                f"a gateway configuration of {len(text)} bytes",
                expected=f"at most {CONFIG_BYTES_MAX}",
                fix="name fewer models for this run",
            )
        return text

    def with_keys(self, value: Any) -> "GatewayConfig":
        """Put keys in: `{"upstreams": {NAME: {"key": "..."}}}`, other fields ignored; OperatorError where it is none.

        They come over a descriptor that the supervisor passes on unread, apart from the rest.
        """
        held = value.get("upstreams") if isinstance(value, dict) else None
        if not isinstance(held, dict):
            raise OperatorError("provider keys that can't be read", where="gateway keys")
        keys = {name: entry.get("key") for name, entry in held.items() if isinstance(entry, dict)}
        keyed = {
            name: replace(upstream, key=key) if isinstance(key := keys.get(name), str) else upstream
            for name, upstream in self.upstreams.items()
        }
        return replace(self, upstreams=keyed)

    @staticmethod
    def load(value: Any) -> "GatewayConfig":
        """Parse what `dump` wrote (decoded already); OperatorError naming the field where it does not fit."""
        import msgspec

        try:
            return msgspec.convert(value, GatewayConfig)
        except msgspec.ValidationError as error:
            raise OperatorError(f"a gateway configuration that does not fit: {error}") from None
