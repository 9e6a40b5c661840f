"""Anthropic messages: /v1/messages. Knows nothing of scripts or sockets."""

from typing import Any

from inbounds.modelserver import wire
from inbounds.modelserver.script import Usage
from inbounds.modelserver.wire import Asked, Reply, event

name = "anthropic-messages"

ERROR_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def read(body: dict[str, Any], size: int) -> Asked:
    """Count the assistant's messages; tool results are no words of the user."""
    messages = wire.items(body, "messages")
    if not messages:
        raise wire.BadRequestError("messages: at least one message is required")
    spoken = [m for m in messages if m.get("role") == "user"]
    return Asked(
        model=wire.model_of(body),
        stream=bool(body.get("stream")),
        said="\n".join(wire.text_of(m.get("content"), "text") for m in spoken),
        system=wire.text_of(body.get("system"), "text"),
        taken=sum(m.get("role") == "assistant" for m in messages),
        tools={str(t.get("name")): "function" for t in wire.items(body, "tools")},
        output_max=wire.integer(body, "max_tokens"),
        wants_usage=True,
        bytes_in=size,
    )


def whole(reply: Reply) -> dict[str, Any]:
    """Write a message object."""
    content: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text else []
    content += [_call(reply, at) for at in range(len(reply.calls))]
    made = _head(reply) | {"content": content, "stop_reason": _reason(reply)}
    return made | {"usage": _usage(reply.usage)} if reply.usage else made


def events(reply: Reply, asked: Asked) -> list[bytes]:
    """Write the message's events; input figures stand in message_start, output in message_delta."""
    del asked
    opened = _head(reply) | {"content": [], "stop_reason": None}
    if reply.usage:
        opened["usage"] = _usage(reply.usage) | {"output_tokens": 1}
    made = [_event("message_start", message=opened)]
    at = 0
    if reply.text:
        made += _block(at, {"type": "text", "text": ""}, "text_delta", "text", reply.text)
        at += 1
    made.append(_event("ping"))
    for position, call in enumerate(reply.calls):
        block = _call(reply, position) | {"input": {}}
        made += _block(at, block, "input_json_delta", "partial_json", wire.arguments_text(call))
        at += 1
    final: dict[str, Any] = {"delta": {"stop_reason": _reason(reply), "stop_sequence": None}}
    if reply.usage:
        final["usage"] = {"output_tokens": reply.usage.output}
    return [*made, _event("message_delta", **final), _event("message_stop")]


def error(status: int, message: str) -> dict[str, Any]:
    """Write Anthropic's error object."""
    return {"type": "error", "error": {"type": ERROR_KINDS.get(status, "api_error"), "message": message}}


def _event(kind: str, **fields: Any) -> bytes:
    return event({"type": kind} | fields, kind)


def _block(at: int, opened: dict[str, Any], delta: str, key: str, text: str) -> list[bytes]:
    made = [_event("content_block_start", index=at, content_block=opened)]
    made += [_event("content_block_delta", index=at, delta={"type": delta, key: piece}) for piece in wire.pieces(text)]
    return [*made, _event("content_block_stop", index=at)]


def _head(reply: Reply) -> dict[str, Any]:
    return {
        "id": f"msg_{reply.request:08d}",
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "stop_sequence": None,
    }


def _call(reply: Reply, at: int) -> dict[str, Any]:
    call = reply.calls[at]
    given = call.arguments if isinstance(call.arguments, dict) else {"input": call.arguments}
    return {"type": "tool_use", "id": f"toolu_{reply.call_id(at)}", "name": call.name, "input": given}


def _reason(reply: Reply) -> str:
    if reply.cut_short:
        return "max_tokens"
    return "tool_use" if reply.calls else "end_turn"


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {"ephemeral_5m_input_tokens": usage.cache_write, "ephemeral_1h_input_tokens": 0},
        "output_tokens": usage.output,
        "service_tier": "standard",
    }
