"""What the three wire formats have in common: a request reduced to what the script asks for, a reply to be written.

Knows no format's field names; those are in wire_chat, wire_responses and wire_messages.
"""

import json
from dataclasses import dataclass
from typing import Any, Protocol

from inbounds.modelserver.script import ToolCall, Usage

BYTES_PER_TOKEN = 4  # the usual rule of thumb; only for turns that order no figures
CHUNK_CHARS = 24  # text and arguments are streamed in pieces about as long as a real model's


class BadRequestError(Exception):
    """A request no provider would take; the message goes into the reply (400)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: `taken` counts the model's turns in its history, `tools` are the names offered with their kind."""

    model: str
    stream: bool
    said: str
    system: str
    taken: int
    tools: dict[str, str]
    output_max: int | None
    wants_usage: bool
    bytes_in: int


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply ready to be written; `usage` is None where a fault leaves the figures out."""

    request: int
    taken: int
    model: str
    text: str
    calls: tuple[ToolCall, ...]
    usage: Usage | None
    cut_short: bool
    made_s: int

    def call_id(self, position: int) -> str:
        """Give an id that carries the turn, so that a history can be counted however an agent orders it."""
        return f"call_{self.taken}_{position}_{self.request}"


class Wire(Protocol):
    """One format: read a request, write a reply whole or as server-sent events, write an error."""

    name: str

    def read(self, body: dict[str, Any], size: int) -> Asked:
        """Reduce a request; BadRequestError."""
        ...

    def whole(self, reply: Reply) -> dict[str, Any]:
        """Write a reply that is not streamed."""
        ...

    def events(self, reply: Reply, asked: Asked) -> list[bytes]:
        """Write a streamed reply, one piece for each event."""
        ...

    def error(self, status: int, message: str) -> dict[str, Any]:
        """Write an error in this format's shape."""
        ...


def text_of(content: Any, *kinds: str) -> str:
    """Join the text of a content field: a string, or a list of parts of these types."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [part for part in content if isinstance(part, dict) and part.get("type") in kinds]
    return "\n".join(str(part.get("text", "")) for part in parts)


def items(body: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Give a list of objects, empty when absent; BadRequestError when it is something else."""
    found = body.get(key) or []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise BadRequestError(f"{key}: expected a list of objects")
    return found


def model_of(body: dict[str, Any]) -> str:
    """Give the model's name; BadRequestError when there is none."""
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequestError("model: expected a string")
    return model


def integer(body: dict[str, Any], *keys: str) -> int | None:
    """Give the first of these fields that is a positive integer."""
    for key in keys:
        value = body.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def arguments_text(call: ToolCall) -> str:
    """Write a call's arguments the way the model would: JSON text, or the free-form text itself."""
    return call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)


def pieces(text: str) -> list[str]:
    """Cut text into what one event carries; the empty text is one empty piece."""
    return [text[at : at + CHUNK_CHARS] for at in range(0, len(text), CHUNK_CHARS)] or [""]


def event(data: dict[str, Any], name: str = "") -> bytes:
    """Write one server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
