"""OpenAI responses: /v1/responses. Knows nothing of scripts or sockets."""

import itertools
from collections.abc import Iterator
from typing import Any

from inbounds.modelserver import wire
from inbounds.modelserver.script import Usage
from inbounds.modelserver.wire import Asked, Reply, event

name = "openai-responses"

CALLS = {"function_call", "custom_tool_call", "local_shell_call"}


def read(body: dict[str, Any], size: int) -> Asked:
    """Count the model's turns in the input items; `input` may also be one string."""
    given = body.get("input")
    history = [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else None
    history = wire.items(body, "input") if history is None else history
    if not history:
        raise wire.BadRequestError("input: expected at least one item")
    spoken = [i for i in history if i.get("role") == "user"]
    ruled = [i for i in history if i.get("role") in {"system", "developer"}]
    return Asked(
        model=wire.model_of(body),
        stream=bool(body.get("stream")),
        said="\n".join(wire.text_of(i.get("content"), "input_text") for i in spoken),
        system="\n".join(
            [str(body.get("instructions") or ""), *(wire.text_of(i.get("content"), "input_text") for i in ruled)]
        ),
        taken=_turns(history),
        tools=_offered(wire.items(body, "tools") + _added_tools(history)),
        output_max=wire.integer(body, "max_output_tokens"),
        wants_usage=True,
        bytes_in=size,
    )


def whole(reply: Reply) -> dict[str, Any]:
    """Write a response object."""
    output = [_message(reply)] if reply.text else []
    output += [_call(reply, at) for at in range(len(reply.calls))]
    return _response(reply, "incomplete" if reply.cut_short else "completed", output)


def events(reply: Reply, asked: Asked) -> list[bytes]:
    """Write the numbered events of a response; the last one carries the whole of it."""
    del asked
    number = itertools.count()

    def write(kind: str, **fields: Any) -> bytes:
        return event({"type": kind, "sequence_number": next(number)} | fields, kind)

    opened = _response(reply, "in_progress", [])
    made = [write("response.created", response=opened), write("response.in_progress", response=opened)]
    at = 0
    if reply.text:
        item = _message(reply)
        empty = item | {"status": "in_progress", "content": []}
        made.append(write("response.output_item.added", output_index=at, item=empty))
        made += [write(kind, **fields) for kind, fields in _text_events(item, reply.text)]
        made.append(write("response.output_item.done", output_index=at, item=item))
        at += 1
    for position, call in enumerate(reply.calls):
        item = _call(reply, position)
        free = item["type"] == "custom_tool_call"
        key = "input" if free else "arguments"
        stem = "response.custom_tool_call_input" if free else "response.function_call_arguments"
        place = {"item_id": item["id"], "output_index": at}
        opened_item = item | {"status": "in_progress", key: ""}
        made.append(write("response.output_item.added", output_index=at, item=opened_item))
        text = wire.arguments_text(call)
        made += [write(f"{stem}.delta", delta=piece, **place) for piece in wire.pieces(text)]
        made.append(write(f"{stem}.done", **{key: text}, **place))
        made.append(write("response.output_item.done", output_index=at, item=item))
        at += 1
    final = whole(reply)
    return [*made, write(f"response.{final['status']}", response=final)]


def error(status: int, message: str) -> dict[str, Any]:
    """Write OpenAI's error object."""
    kind = {401: "invalid_request_error", 429: "rate_limit_error"}.get(status, "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def _turns(history: list[dict[str, Any]]) -> int:
    # An agent may send call, result, call, result for two calls of one turn: ids of ours carry the turn they are of.
    numbered: set[str] = set()
    turns, open_turn = 0, False
    for item in history:
        kind = item.get("type") or "message"
        if kind in CALLS:
            mark = str(item.get("call_id", "")).split("_")
            known = mark[1] if len(mark) == 4 and mark[0] == "call" else ""
            if not open_turn and known not in numbered:
                turns += 1
            numbered |= {known} if known else set()
            open_turn = True
        elif kind == "message" and item.get("role") == "assistant":
            turns += not open_turn
            open_turn = True
        elif kind != "reasoning":
            open_turn = False
    return turns


def _added_tools(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # Newer codex models are offered their tools inside the input.
    added = [wire.items(item, "tools") for item in history if item.get("type") == "additional_tools"]
    return list(itertools.chain.from_iterable(added))


def _offered(tools: list[dict[str, Any]]) -> dict[str, str]:
    """Names with their kind; the tools of a namespace stand as "namespace/name"."""
    names: dict[str, str] = {}
    for tool in tools:
        kind = str(tool.get("type"))
        if kind == "namespace":
            for one in wire.items(tool, "tools"):
                names[f"{tool.get('name')}/{one.get('name')}"] = str(one.get("type", "function"))
        else:
            names[str(tool.get("name", kind))] = kind
    return names


def _text_events(item: dict[str, Any], text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    empty = {"type": "output_text", "text": "", "annotations": []}
    yield "response.content_part.added", place | {"part": empty}
    for piece in wire.pieces(text):
        yield "response.output_text.delta", place | {"delta": piece, "logprobs": []}
    yield "response.output_text.done", place | {"text": text, "logprobs": []}
    yield "response.content_part.done", place | {"part": empty | {"text": text}}


def _response(reply: Reply, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
    finished = status != "in_progress"
    return {
        "id": f"resp_{reply.request:08d}",
        "object": "response",
        "created_at": reply.made_s,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "model": reply.model,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": _usage(reply.usage) if finished and reply.usage else None,
    }


def _message(reply: Reply) -> dict[str, Any]:
    part = {"type": "output_text", "text": reply.text, "annotations": []}
    return {
        "id": f"msg_{reply.request:08d}",
        "type": "message",
        "status": "completed",
        "role": "assistant",
        "content": [part],
    }


def _call(reply: Reply, at: int) -> dict[str, Any]:
    call = reply.calls[at]
    free = isinstance(call.arguments, str)
    space, _, bare = call.name.rpartition("/")
    item = {
        "id": f"{'ctc' if free else 'fc'}_{reply.request:08d}_{at}",
        "type": "custom_tool_call" if free else "function_call",
        "status": "completed",
        "call_id": reply.call_id(at),
        "name": bare,
        ("input" if free else "arguments"): wire.arguments_text(call),
    }
    return item | {"namespace": space} if space else item


def _usage(usage: Usage) -> dict[str, Any]:
    # As in chat completions: input_tokens contains what was cached.
    given = usage.input + usage.cache_read + usage.cache_write
    return {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": usage.cache_read},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": given + usage.output,
    }
