"""A provider's reply as it passes: usage, tool calls and whether it is complete, from one JSON body or a stream.

Feeds on untrusted bytes; forwards nothing itself. Knows nothing of prices or budgets.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from inbounds.gateway.calls import Calls, item_of
from inbounds.gateway.config import Format
from inbounds.gateway.usage import (
    ANTHROPIC_BOTH,
    UnreadableUsageError,
    Usage,
    merge_anthropic,
    read_part,
    read_usage,
    stated,
)

EVENT_BYTES_MAX = 32 << 20  # one streamed event; response.completed repeats the whole reply


class BrokenReplyError(Exception):
    """The upstream's bytes are no reply of this format; the request stays charged at its bound."""


@dataclass(slots=True)
class Reading:
    """What is known of a reply so far. `usage` is set only by a final figure; `tool_calls` counts as they begin.

    `calls` has the hashes of those that arrived whole.
    """

    usage: Usage | None = None
    tool_calls: int = 0
    complaint: str = ""
    calls: Calls = field(default_factory=Calls)


@dataclass(slots=True)
class EventSplitter:
    """Cut a server-sent event stream at blank lines (WHATWG HTML, 9.2); LF and CRLF both end a line."""

    _pending: bytearray = field(default_factory=bytearray)
    _scanned: int = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events completed by `chunk`, each with its ending; BrokenReplyError where one grows past the limit."""
        self._pending += chunk
        events: list[bytes] = []
        while True:
            cut = self._next_cut()
            if not cut:
                break
            events.append(bytes(self._pending[:cut]))
            del self._pending[:cut]
            self._scanned = 0
        if len(self._pending) > EVENT_BYTES_MAX:
            raise BrokenReplyError(f"a streamed event of more than {EVENT_BYTES_MAX} bytes")
        self._scanned = max(0, len(self._pending) - 3)
        return events

    def _next_cut(self) -> int:
        found = [at + len(end) for end in (b"\n\n", b"\n\r\n") if (at := self._pending.find(end, self._scanned)) >= 0]
        return min(found, default=0)

    def rest(self) -> bytes:
        """What is left when the upstream ends; a stream may omit its last blank line."""
        left = bytes(self._pending)
        self._pending.clear()
        return left


def event_data(event: bytes) -> dict[str, Any] | None:
    """The JSON object of one event's data lines; None for comments, [DONE] and empty events."""
    lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
    data = b"\n".join(lines)
    if not data or data == b"[DONE]":
        return None
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenReplyError(f"a streamed event that is not JSON: {error}") from None
    return value if isinstance(value, dict) else None


class StreamMeter(Protocol):
    """Reads one format's stream, event by event."""

    reading: Reading

    def feed(self, data: dict[str, Any]) -> None:
        """Take one event's object into account."""


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _index(item: dict[str, Any], otherwise: int) -> int:
    """An item's own index, or its place in the list where the upstream gives none."""
    index = item.get("index")
    return index if isinstance(index, int) else otherwise


def _calls_chat(message: Any) -> list[dict[str, Any]]:
    """What holds name and arguments of each call; {} where an upstream gives neither."""
    if not isinstance(message, dict):
        return []
    old = message.get("function_call")
    return [_chat_call(call) for call in _dicts(message.get("tool_calls"))] + ([old] if isinstance(old, dict) else [])


def _chat_call(call: dict[str, Any]) -> dict[str, Any]:
    found = call.get("function") or call.get("custom")
    return found if isinstance(found, dict) else {}


def _chat_text(call: dict[str, Any]) -> Any:
    return call.get("arguments", call.get("input"))


def _name(call: dict[str, Any]) -> str:
    name = call.get("name")
    return name if isinstance(name, str) else ""


def _calls_responses(output: Any) -> list[dict[str, Any]]:
    return [item for item in _dicts(output) if str(item.get("type", "")).endswith("_call")]


def _is_messages_call(block: Any) -> bool:
    return isinstance(block, dict) and str(block.get("type", "")).endswith("tool_use")


def read_reply(wire: Format, body: dict[str, Any]) -> Reading:
    """The reading of a whole reply; a usage that can't be trusted leaves `usage` None and says why."""
    reading = Reading()
    match wire:
        case Format.CHAT:
            of_all = (_calls_chat(choice.get("message")) for choice in _dicts(body.get("choices")))
            found = [(_name(call), _chat_text(call)) for calls in of_all for call in calls]
        case Format.RESPONSES:
            found = [item_of(item) for item in _calls_responses(body.get("output"))]
        case Format.MESSAGES:
            blocks = filter(_is_messages_call, _dicts(body.get("content")))
            found = [(_name(block), block.get("input")) for block in blocks]
    reading.tool_calls = len(found)
    for name, arguments in found:
        reading.calls.whole(name, arguments)
    try:
        reading.usage = read_usage(wire, body.get("usage"))
    except UnreadableUsageError as error:
        reading.complaint = str(error)
    return reading


class ChatMeter:
    """Chat completion chunks: usage comes once, in a last chunk without choices."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self.reading = Reading()
        self._calls: set[tuple[int, int]] = set()

    def feed(self, data: dict[str, Any]) -> None:
        """Count tool calls by (choice, index) as each first appears; keep the largest usage."""
        for number, choice in enumerate(_dicts(data.get("choices"))):
            of = _index(choice, number)
            delta = choice.get("delta")
            if isinstance(delta, dict):
                self._delta(of, delta)
            if choice.get("finish_reason") is not None:
                self.reading.calls.end_all(of)
        self.reading.tool_calls = len(self._calls)
        if data.get("usage") is not None:
            usage = read_usage(Format.CHAT, data["usage"])
            self.reading.usage = usage.most(self.reading.usage or usage)

    def _delta(self, of: int, delta: dict[str, Any]) -> None:
        found = [(_index(call, place), _chat_call(call)) for place, call in enumerate(_dicts(delta.get("tool_calls")))]
        if isinstance(old := delta.get("function_call"), dict):
            found.append((-1, old))
        for place, call in found:
            self._calls.add((of, place))
            self.reading.calls.begin((of, place), _name(call))
            self.reading.calls.piece((of, place), _chat_text(call))


class ResponsesMeter:
    """Responses events: items are announced one by one; the last event carries the whole response with its usage."""

    FINAL = ("response.completed", "response.incomplete", "response.failed")

    def __init__(self) -> None:
        """Start with nothing seen."""
        self.reading = Reading()

    def feed(self, data: dict[str, Any]) -> None:
        """Count items as they are added, and again from the final list where an upstream announced none.

        An item that is done stands whole in its event, so that deltas need no assembling.
        """
        kind = data.get("type")
        if kind == "response.output_item.added":
            self.reading.tool_calls += len(_calls_responses([data.get("item")]))
        elif kind == "response.output_item.done":
            self._hash(_calls_responses([data.get("item")]))
        elif kind in self.FINAL and isinstance(data.get("response"), dict):
            response = data["response"]
            listed = _calls_responses(response.get("output"))
            self.reading.tool_calls = max(self.reading.tool_calls, len(listed))
            if len(listed) > len(self.reading.calls.hashes):
                self.reading.calls = Calls()
                self._hash(listed)
            if response.get("usage") is not None:
                self.reading.usage = read_usage(Format.RESPONSES, response["usage"])

    def _hash(self, items: list[dict[str, Any]]) -> None:
        for item in items:
            self.reading.calls.whole(*item_of(item))


class MessagesMeter:
    """Anthropic events: input usage at the start, cumulative output in message_delta; both make the final figure."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self.reading = Reading()
        self._start = Usage()
        self._seen: Usage | None = None
        self._stated: set[str] = set()

    def feed(self, data: dict[str, Any]) -> None:
        """A figure is final only from message_delta on: what was seen before it is partial, and owed more.

        A stream in which one of the two figures stands nowhere has no usage: compatible services leave some out.
        """
        match data.get("type"):
            case "message_start":
                message = data.get("message")
                usage = message.get("usage") if isinstance(message, dict) else None
                self._start = read_part(usage)
                self._stated |= stated(usage) - {"output_tokens"}  # what is said of the output here is a beginning
            case "content_block_start" if _is_messages_call(data.get("content_block")):
                block: dict[str, Any] = data["content_block"]
                self.reading.tool_calls += 1
                self.reading.calls.begin(_place(data), _name(block))
                self.reading.calls.piece(_place(data), block.get("input"))  # {} where it comes in deltas
            case "content_block_delta" if isinstance(delta := data.get("delta"), dict):
                self.reading.calls.piece(_place(data), delta.get("partial_json"))
            case "content_block_stop":
                self.reading.calls.end(_place(data))
            case "message_delta" if data.get("usage") is not None:
                seen = merge_anthropic(self._start, read_part(data["usage"]))
                self._seen = merge_anthropic(self._seen or seen, seen)
                self._stated |= stated(data["usage"])
                if self._stated == ANTHROPIC_BOTH:
                    self.reading.usage = self._seen
            case _:
                pass


def _place(data: dict[str, Any]) -> int:
    """A content block's number; an upstream that gives none has one block at a time."""
    return _index(data, -1)


def stream_meter(wire: Format) -> StreamMeter:
    """The meter of a format's stream."""
    match wire:
        case Format.CHAT:
            return ChatMeter()
        case Format.RESPONSES:
            return ResponsesMeter()
        case Format.MESSAGES:
            return MessagesMeter()


def is_usage_only(data: dict[str, Any]) -> bool:
    """Whether a chat chunk holds nothing but usage: an agent that did not ask for it is not sent it."""
    return data.get("usage") is not None and data.get("choices") == []
