"""The operator's own providers and models: built-in ones, and `gateway.yaml` in the user's configuration directory.

Read on the operator's side, before a run; the result is a part of the gateway's configuration, without keys. Base URLs
come from here only, never from an environment (CVE-2026-21852: a base URL overridden sends the key elsewhere).
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from inbounds.contracts.errors import OperatorError
from inbounds.gateway.config import Format, Model, Proxy, Upstream
from inbounds.gateway.keys import KeyStore

FILE_BYTES_MAX = 256 << 10
BUILT_IN = {
    "anthropic": Upstream(
        "anthropic", (Format.MESSAGES,), "https://api.anthropic.com", "x-api-key", "", price_provider="anthropic"
    ),
    "openai": Upstream(
        "openai",
        (Format.CHAT, Format.RESPONSES),
        "https://api.openai.com/v1",
        "Authorization",
        "Bearer ",
        price_provider="openai",
    ),
}
# What a model may write at most where gateway.yaml does not say: a provider refuses a larger limit, so low is safe.
OUTPUT_TOKENS = (("claude-3-5", 8_192), ("claude-3-", 4_096), ("gpt-4o", 16_384), ("gpt-4-", 4_096), ("gpt-3", 4_096))
OUTPUT_TOKENS_OTHERWISE = 32_000
# Not supported until their request signing is done in the gateway; refused by name rather than failing oddly.
UNSIGNED = ("bedrock", "vertex")


@dataclass(frozen=True, slots=True)
class Settings:
    """The operator's upstreams (without keys) and models by name, certificates and proxy."""

    upstreams: Mapping[str, Upstream]
    models: Mapping[str, Model]
    ca_bundle: str | None
    proxy: Proxy

    def serve(self, models: Iterable[str], formats: Iterable[Format]) -> dict[str, Any]:
        """The part of a gateway's configuration for these models, as JSON values: upstreams, models, proxy, ca_bundle.

        OperatorError where no upstream speaks one of `formats` and has the model, or where it has no price.
        """
        wanted = tuple(formats)
        chosen = {name: self._choose(name, wanted) for name in models}
        used = {model.upstream: self.upstreams[model.upstream] for model in chosen.values()}
        return {
            "upstreams": {name: asdict(upstream) for name, upstream in used.items()},
            "models": {name: asdict(model) for name, model in chosen.items()},
            "proxy": asdict(self.proxy),
            "ca_bundle": self.ca_bundle,
        }

    def _choose(self, name: str, formats: tuple[Format, ...]) -> Model:
        given = self.models.get(name)
        if given is not None:
            speaks = self.upstreams[given.upstream].formats
            if not set(speaks) & set(formats):
                raise OperatorError(
                    f"upstream {given.upstream!r} of model {name!r} speaks {', '.join(speaks)}",
                    expected=f"one of {', '.join(formats)}, which the agent speaks",
                )
            return given
        for upstream in self.upstreams.values():
            if set(upstream.formats) & set(formats) and upstream.price_provider and _priced(upstream, name):
                return Model(name, upstream.name, name, _output_tokens(name))
        raise OperatorError(
            f"model {name!r}: no upstream that speaks {' or '.join(formats)} has a known price for it",
            expected="a model of a known provider, or one with a price in gateway.yaml",
            fix=f"$EDITOR {settings_path()}",
        )


def _priced(upstream: Upstream, name: str) -> bool:
    from genai_prices.data_snapshot import get_snapshot

    try:
        get_snapshot().find_provider_model(name, None, upstream.price_provider, None)
    except LookupError:
        return False
    return True


def _output_tokens(name: str) -> int:
    return next((most for start, most in OUTPUT_TOKENS if name.startswith(start)), OUTPUT_TOKENS_OTHERWISE)


def keys_for(settings: Mapping[str, Any], store: KeyStore) -> dict[str, Any]:
    """The keys of the upstreams that `serve` chose, as the gateway reads them; OperatorError for a missing one.

    An upstream on this machine may do without.
    """
    keys: dict[str, Any] = {}
    for name, upstream in settings["upstreams"].items():
        key = store.get(name)
        if key is None and not str(upstream["base_url"]).startswith(
            ("http://127.0.0.1", "http://localhost", "http://[::1]")
        ):
            raise OperatorError(
                f"no key for {name}",
                expected="one in the keyring, a file or the environment",
                fix=f"inbounds key add {name}",
            )
        keys[name] = {"key": key or ""}
    return {"upstreams": keys}


def settings_path(environment: Mapping[str, str] | None = None) -> Path:
    """Where the operator's file lies, whether or not it exists."""
    env = os.environ if environment is None else environment
    base = env.get("XDG_CONFIG_HOME") or os.path.join(env.get("HOME") or os.path.expanduser("~"), ".config")
    return Path(base) / "inbounds" / "gateway.yaml"


def load_settings(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the operator's file over the built-in providers; unknown keys are an OperatorError with the file's name.

    The proxy comes from the environment, as for every other program (HTTPS_PROXY, HTTP_PROXY, NO_PROXY, SSL_CERT_FILE).
    """
    env = os.environ if environment is None else environment
    file = path or settings_path(env)
    found = _read(file)
    upstreams = {**BUILT_IN, **_upstreams(found.get("upstreams"), file)}
    models = _models(found.get("models"), upstreams, file)
    return Settings(
        upstreams=upstreams,
        models=models,
        ca_bundle=found.get("ca_bundle") or env.get("SSL_CERT_FILE") or None,
        proxy=Proxy(
            https=env.get("HTTPS_PROXY") or env.get("https_proxy") or None,
            http=env.get("HTTP_PROXY") or env.get("http_proxy") or None,
            no_proxy=env.get("NO_PROXY") or env.get("no_proxy") or "",
        ),
    )


def _read(file: Path) -> dict[str, Any]:
    import yaml

    try:
        with file.open("rb") as opened:
            text = opened.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise OperatorError(f"it can't be read: {error.strerror}", where=str(file)) from None
    if len(text) > FILE_BYTES_MAX:
        raise OperatorError(f"more than {FILE_BYTES_MAX} bytes", where=str(file))
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise OperatorError(f"not YAML: {error}", where=str(file)) from None
    if value is None:
        return {}
    known = {"upstreams", "models", "ca_bundle"}
    if not isinstance(value, dict) or not set(value) <= known:
        raise OperatorError("unknown keys", expected=", ".join(sorted(known)), where=str(file))
    return value


def _table(value: Any, what: str, file: Path) -> dict[str, dict[str, Any]]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(k, str) and isinstance(v, dict) for k, v in value.items()):
        raise OperatorError(f"{what} is no table of tables", where=str(file))
    return value


def _convert(value: dict[str, Any], kind: Any, allowed: set[str], where: str) -> Any:
    import msgspec

    unknown = set(value) - allowed
    if unknown:
        raise OperatorError(
            f"unknown: {', '.join(map(str, unknown))}", expected=", ".join(sorted(allowed)), where=where
        )
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise OperatorError(str(error), where=where) from None


def _upstreams(value: Any, file: Path) -> dict[str, Upstream]:
    """`NAME: {base_url, formats, auth_header, auth_prefix, price_provider, chat_output_field}`, over a known one."""
    fields = {"base_url", "formats", "auth_header", "auth_prefix", "price_provider", "chat_output_field"}
    made: dict[str, Upstream] = {}
    for name, given in _table(value, "upstreams", file).items():
        where = f"{file}: upstreams.{name}"
        if any(word in f"{name} {given.get('base_url', '')}".lower() for word in UNSIGNED):
            raise OperatorError("Bedrock and Vertex sign each request, which the gateway can't do yet", where=where)
        known = BUILT_IN.get(name)
        start = {k: v for k, v in asdict(known).items() if k in fields} if known else {
            "auth_header": "Authorization", "auth_prefix": "Bearer ", "formats": [Format.CHAT]
        }  # fmt: skip
        merged = {**start, **given}
        made[name] = replace(_convert({**merged, "name": name}, Upstream, fields | {"name"}, where), key="")
    return made


def _models(value: Any, upstreams: Mapping[str, Upstream], file: Path) -> dict[str, Model]:
    """`NAME: {upstream, upstream_model, output_tokens_max, price: {input_micro_usd_per_mtok, ...}}`."""
    fields = {"upstream", "upstream_model", "output_tokens_max", "price", "name"}
    made: dict[str, Model] = {}
    for name, given in _table(value, "models", file).items():
        where = f"{file}: models.{name}"
        start = {"upstream_model": name, "output_tokens_max": _output_tokens(name), "name": name}
        model = _convert({**start, **given}, Model, fields, where)
        if model.upstream not in upstreams:
            raise OperatorError(f"upstream {model.upstream!r}", expected=", ".join(upstreams), where=where)
        made[name] = model
    return made
