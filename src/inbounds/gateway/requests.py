"""An agent's request, parsed once: what it asks for, what bounds its cost, and the body that goes upstream.

The body is written anew from what was parsed, so that gateway and provider can't read the same bytes differently
(duplicate keys). Untrusted bytes in, a ModelRequest or a Refusal out. Knows nothing of prices or budgets.
"""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from inbounds.gateway import allowed
from inbounds.gateway.config import Format, Upstream
from inbounds.gateway.refusal import Refusal

DEPTH_MAX = 100  # tool schemas of the real agents nest about 20 deep; beyond this it is an attack on a parser
NODES_MAX = 2_000_000  # of one body; bounds the time spent looking at it
MODEL_CHARS_MAX = 200  # the longest names in use have about 100
PARTS_MAX = 100_000  # messages and content parts of one conversation
IMAGE_TOKENS = 6_000  # dearer than any provider's largest image (Anthropic about 4,800, OpenAI about 1,500)
PROMPT_TOKENS = 700  # Anthropic's own hidden prompt around tools: 313 to 675 tokens by its documentation
PART_TOKENS = 4  # markers around each message that a provider may add
THINKING_MIN = 1_024  # Anthropic refuses a smaller thinking budget


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One admitted-in-form request. `output_wanted` is None where the agent named no limit."""

    wire: Format
    model: str
    stream: bool
    usage_asked: bool
    output_wanted: int | None
    input_tokens_max: int
    cache_write: bool
    cache_write_1h: bool
    body: dict[str, Any]

    def upstream_body(self, upstream: Upstream, model: str, output_tokens: int) -> bytes:
        """The bytes to send: the provider's model name, the granted output limit, usage asked for, nothing stored."""
        body = {**self.body, "model": model}
        match self.wire:
            case Format.CHAT:
                named = [name for name in ("max_completion_tokens", "max_tokens") if body.get(name) is not None]
                for name in named or [upstream.chat_output_field]:
                    body[name] = output_tokens
                if self.stream:
                    body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
            case Format.RESPONSES:
                body["max_output_tokens"] = output_tokens
                body["store"] = False
            case Format.MESSAGES:
                body["max_tokens"] = output_tokens
                _fit_thinking(body, output_tokens)
        return msgspec.json.encode(body)


def _fit_thinking(body: dict[str, Any], output_tokens: int) -> None:
    """Keep the thinking budget below a clamped max_tokens, or the provider answers 400."""
    thinking = body.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    if isinstance(thinking, dict) and isinstance(budget, int) and budget >= output_tokens:
        fits = output_tokens > THINKING_MIN
        body["thinking"] = {**thinking, "budget_tokens": output_tokens - 1} if fits else {"type": "disabled"}


def parse_json(raw: bytes) -> dict[str, Any] | Refusal:
    """Decode a body into an object within limits; NaN, infinities, bad UTF-8 and deep nesting are refused."""
    # counted before decoding: 32 MB of empty lists become a gigabyte of objects
    if raw.count(b"[") + raw.count(b"{") > NODES_MAX:
        return _bad("the body is not a JSON object in bounds")
    try:
        body = msgspec.json.decode(raw)
        return body if isinstance(body, dict) and _shallow(body) else _bad("the body is not a JSON object in bounds")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return _bad(f"the body is not valid JSON: {error}")
    except RecursionError:
        return _bad("the body is nested too deeply")


def _shallow(root: dict[str, Any]) -> bool:
    """Whether nesting and node count stay in bounds; iterative, as the depth is the client's to choose."""
    level: list[Any] = [root]
    seen = 0
    for _ in range(DEPTH_MAX):
        following: list[Any] = []
        for node in level:
            children = node.values() if isinstance(node, dict) else node
            following += [child for child in children if isinstance(child, (dict, list))]
            seen += len(node)
        if not following:
            return True
        if seen > NODES_MAX:
            return False
        level = following
    return False


def _bad(message: str) -> Refusal:
    return Refusal(400, "malformed", message)


def _feature(what: str, why: str) -> Refusal:
    return Refusal(403, "feature", f"{what} is refused: {why}", detail=what)


def parse_request(wire: Format, body: dict[str, Any]) -> ModelRequest | Refusal:
    """Check every field against the format's allowlist and measure the request."""
    model = body.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= MODEL_CHARS_MAX:
        return _bad("model is missing or no name")
    for refused in (_refuse_fields(wire, body), _refuse_tools(wire, body.get("tools")), _refuse_content(wire, body)):
        if refused:
            return refused
    # A field that may not be set is the same as absent when null; sending it on would ask an older server about it.
    kept = {name: value for name, value in body.items() if name in allowed.FIELDS[wire]}
    wanted = _output_wanted(wire, kept)
    if isinstance(wanted, Refusal):
        return wanted
    options = kept.get("stream_options")
    if options is not None and not isinstance(options, dict):
        return _bad("stream_options is no object")
    encoded = msgspec.json.encode(kept)
    marked = b'"cache_control"' in encoded
    return ModelRequest(
        wire=wire,
        model=model,
        stream=kept.get("stream") is True,
        usage_asked=bool(options and options.get("include_usage")),
        output_wanted=wanted,
        input_tokens_max=_input_bound(wire, kept, encoded),
        cache_write=marked or wire is not Format.MESSAGES,
        cache_write_1h=marked and b'"1h"' in encoded,
        body=kept,
    )


def _input_bound(wire: Format, body: dict[str, Any], encoded: bytes) -> int:
    """The most tokens that this input can be: no tokenizer makes more tokens than bytes, before or after NFKC.

    Normalizing tokenizers see longer text (U+FDFA becomes 33 bytes); images are counted apart, at the dearest.
    """
    size = len(encoded)
    if not encoded.isascii():
        size = max(size, len(unicodedata.normalize("NFKC", encoded.decode()).encode()))
    parts = images = 0
    for part in _content(wire, body):
        parts += 1
        images += part.get("type") in {"image", "image_url", "input_image"}
    hidden = PROMPT_TOKENS if wire is Format.MESSAGES and body.get("tools") else 0
    return size + images * IMAGE_TOKENS + parts * PART_TOKENS + hidden


def _output_wanted(wire: Format, body: dict[str, Any]) -> int | Refusal | None:
    names = {
        Format.CHAT: ("max_completion_tokens", "max_tokens"),
        Format.RESPONSES: ("max_output_tokens",),
        Format.MESSAGES: ("max_tokens",),
    }[wire]
    limits: list[int] = []
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            return _bad(f"{name} is {value!r}, which is no positive number of tokens")
        limits.append(value)
    return min(limits) if limits else None


def _refuse_fields(wire: Format, body: dict[str, Any]) -> Refusal | None:
    for name, value in body.items():
        if value is None:
            continue
        if name in allowed.REFUSED_FIELDS:
            return _feature(f"the field {name!r}", allowed.REFUSED_FIELDS[name])
        if name not in allowed.FIELDS[wire]:
            return _feature(f"the field {name[:80]!r}", "this gateway does not know what it may cost or reach")
    for name, (values, why) in allowed.VALUES[wire].items():
        assert isinstance(values, tuple)
        # True == 1 in Python: the type decides, too
        if not any(body.get(name) == value and type(body.get(name)) is type(value) for value in values):
            return _feature(f"{name} = {str(body[name])[:80]!r}", why)
    if wire is Format.RESPONSES and not set(map(str, body.get("include") or ())) <= allowed.INCLUDES:
        return _feature(f"include = {str(body['include'])[:200]}", allowed.FETCHES)
    edits = body.get("context_management")
    if edits is not None:
        listed = edits.get("edits") if isinstance(edits, dict) else None
        for edit in listed if isinstance(listed, list) else [None]:
            kind = edit.get("type") if isinstance(edit, dict) else None
            if not isinstance(kind, str) or not kind.startswith(allowed.CONTEXT_EDITS):
                return _feature(f"context_management {str(kind)[:80]!r}", allowed.PRICED_APART)
    return None


def _refuse_tools(wire: Format, tools: Any) -> Refusal | None:
    if tools is None:
        return None
    if not isinstance(tools, list):
        return _bad("tools is no list")
    for tool in tools:
        kind = tool.get("type", "custom" if wire is Format.MESSAGES else None) if isinstance(tool, dict) else None
        if kind is None and wire is Format.MESSAGES and isinstance(tool, dict):
            kind = "custom"
        if not isinstance(kind, str):
            return _bad("a tool without a type")
        plain = kind.rstrip("0123456789").removesuffix("_") if wire is Format.MESSAGES else kind
        if plain not in allowed.TOOL_TYPES[wire]:
            return _feature(f"the tool type {kind[:80]!r}", allowed.FETCHES)
        refused = _refuse_tools(wire, tool.get("tools")) if kind == "namespace" else None
        if refused:
            return refused
    return None


def _content(wire: Format, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every message and content part, also those inside tool results, without recursion into tool arguments."""
    stack: list[Any] = [body.get(name) for name in ("messages", "input", "system", "instructions")]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack += item
        elif isinstance(item, dict):
            yield item
            stack += [
                item.get(name) for name in ("content", "output", "summary") if not isinstance(item.get(name), str)
            ]
            source = item.get("source")
            if wire is Format.MESSAGES and isinstance(source, dict):
                stack.append(source.get("content") if not isinstance(source.get("content"), str) else None)


def _refuse_content(wire: Format, body: dict[str, Any]) -> Refusal | None:
    known = allowed.CONTENT_TYPES[wire]
    for count, part in enumerate(_content(wire, body)):
        if count > PARTS_MAX:
            return _bad(f"more than {PARTS_MAX} messages and parts")
        kind = part.get("type")
        if kind is not None and (not isinstance(kind, str) or kind not in known):
            return _feature(f"content of type {str(kind)[:80]!r}", allowed.FETCHES)
        if kind is None and part.get("role") is None:
            return _feature("an untyped item", allowed.STORED)  # OpenAI reads {"id": ...} as a reference
        refused = _refuse_tools(wire, part.get("tools")) or _refuse_source(kind, part)
        if refused:
            return refused
    return None


def _refuse_source(kind: str | None, part: dict[str, Any]) -> Refusal | None:
    """Content comes inline: an address would be fetched by the provider, a file id is stored state."""
    for name in ("file_id", "file_url", "file_data"):
        if part.get(name) is not None:
            return _feature(f"{name} in {kind!r}", allowed.STORED)
    if kind in {"image", "document"}:
        source = part.get("source")
        of = source.get("type") if isinstance(source, dict) else None
        # a PDF is compressed: its tokens are not bounded by its bytes
        inline = {"image": ("base64",), "document": ("text", "content")}[kind]
        if of not in inline:
            return _feature(f"{kind} from source {str(of)[:40]!r}", allowed.FETCHES)
    if kind in {"image_url", "input_image"}:
        url = part.get("image_url")
        url = url.get("url") if isinstance(url, dict) else url
        if not isinstance(url, str) or not url.startswith("data:"):
            return _feature(f"{kind} that is not inline", allowed.FETCHES)
    return None
