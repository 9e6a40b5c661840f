"""OpenAI chat completions: /v1/chat/completions. Knows nothing of scripts or sockets."""

from typing import Any

from inbounds.modelserver import wire
from inbounds.modelserver.script import Usage
from inbounds.modelserver.wire import Asked, Reply, event

name = "openai-chat"


def read(body: dict[str, Any], size: int) -> Asked:
    """Count the assistant's messages and take the user's text together."""
    messages = wire.items(body, "messages")
    if not messages:
        raise wire.BadRequestError("messages: expected at least one")
    spoken = [m for m in messages if m.get("role") == "user"]
    ruled = [m for m in messages if m.get("role") in {"system", "developer"}]
    options = body.get("stream_options")
    functions = [t["function"] for t in wire.items(body, "tools") if isinstance(t.get("function"), dict)]
    return Asked(
        model=wire.model_of(body),
        stream=bool(body.get("stream")),
        said="\n".join(wire.text_of(m.get("content"), "text") for m in spoken),
        system="\n".join(wire.text_of(m.get("content"), "text") for m in ruled),
        taken=sum(m.get("role") == "assistant" for m in messages),
        tools={str(f.get("name")): "function" for f in functions},
        output_max=wire.integer(body, "max_completion_tokens", "max_tokens"),
        wants_usage=isinstance(options, dict) and bool(options.get("include_usage")),
        bytes_in=size,
    )


def whole(reply: Reply) -> dict[str, Any]:
    """Write a chat.completion object."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text or None, "refusal": None}
    if reply.calls:
        message["tool_calls"] = [_call(reply, at) for at in range(len(reply.calls))]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(reply)}
    made = _head(reply, "chat.completion") | {"choices": [choice]}
    return made | {"usage": _usage(reply.usage)} if reply.usage else made


def events(reply: Reply, asked: Asked) -> list[bytes]:
    """Write chat.completion.chunk events and [DONE]; usage comes last, and only when asked for."""
    head = _head(reply, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
        return event(head | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]})

    made = [chunk({"role": "assistant", "content": "" if reply.text else None})]
    made += [chunk({"content": piece}) for piece in wire.pieces(reply.text) if piece]
    for at, call in enumerate(reply.calls):
        opened = _call(reply, at)
        opened["function"] = opened["function"] | {"arguments": ""}
        made.append(chunk({"tool_calls": [{"index": at} | opened]}))
        made += [
            chunk({"tool_calls": [{"index": at, "function": {"arguments": piece}}]})
            for piece in wire.pieces(wire.arguments_text(call))
        ]
    made.append(chunk({}, _reason(reply)))
    if asked.wants_usage and reply.usage:
        made.append(event(head | {"choices": [], "usage": _usage(reply.usage)}))
    return [*made, b"data: [DONE]\n\n"]


def error(status: int, message: str) -> dict[str, Any]:
    """Write OpenAI's error object."""
    kind = {401: "invalid_request_error", 429: "rate_limit_error"}.get(status, "server_error")
    code = {401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(status)
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _head(reply: Reply, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{reply.request:08d}",
        "object": kind,
        "created": reply.made_s,
        "model": reply.model,
        "system_fingerprint": "fp_inbounds",
    }


def _call(reply: Reply, at: int) -> dict[str, Any]:
    call = reply.calls[at]
    function = {"name": call.name, "arguments": wire.arguments_text(call)}
    return {"id": reply.call_id(at), "type": "function", "function": function}


def _reason(reply: Reply) -> str:
    if reply.cut_short:
        return "length"
    return "tool_calls" if reply.calls else "stop"


def _usage(usage: Usage) -> dict[str, Any]:
    # OpenAI counts cached input inside prompt_tokens and has no class for cache writes: they are plain input there.
    prompt = usage.input + usage.cache_read + usage.cache_write
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage.output,
        "total_tokens": prompt + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }
