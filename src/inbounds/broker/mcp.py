"""The Model Context Protocol as the broker speaks it: JSON-RPC 2.0 in, a reply or a tool call out. No I/O.

Only tools exist here (initialize, ping, tools/list, tools/call); replies are plain JSON, never streams, and there are
no sessions. Source: modelcontextprotocol.io, revision 2025-06-18.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inbounds.broker.tools import Refused, Tool, checked

# Revisions whose tool messages are the same as ours; a client that asks for another is offered the newest.
REVISIONS = ("2025-06-18", "2025-03-26", "2024-11-05", "2025-11-25")

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602

RequestId = str | int
# An id comes back in every reply; a longer one is no id but ballast.
ID_CHARS_MAX = 256


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply that needs nobody's help; None for a notification, which gets none."""

    body: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A declared tool with checked arguments, to be carried out by the supervisor."""

    request: RequestId
    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RefusedCall:
    """A call of something undeclared, or with arguments that its schema does not have."""

    body: dict[str, Any]
    tool: str
    why: str


Outcome = Answer | ToolCall | RefusedCall


def receive(raw: bytes, tools: Mapping[str, Tool]) -> Outcome:
    """Parse one message and say what follows from it."""
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError):
        return Answer(error(None, PARSE_ERROR, "the body is no JSON"))
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0" or not isinstance(message.get("method"), str):
        return Answer(error(None, INVALID_REQUEST, "expected one JSON-RPC 2.0 request"))
    if "id" not in message:
        return Answer(None)
    request = message["id"]
    if not isinstance(request, (str, int)) or isinstance(request, bool) or len(str(request)) > ID_CHARS_MAX:
        return Answer(error(None, INVALID_REQUEST, "expected an id that is a string or an integer"))
    params = message.get("params", {})
    if not isinstance(params, dict):
        return Answer(error(request, INVALID_PARAMS, "expected params to be an object"))
    return _respond(request, message["method"], params, tools)


def _respond(request: RequestId, method: str, params: dict[str, Any], tools: Mapping[str, Tool]) -> Outcome:
    match method:
        case "initialize":
            asked = params.get("protocolVersion")
            return Answer(
                result(
                    request,
                    {
                        "protocolVersion": asked if asked in REVISIONS else REVISIONS[0],
                        "capabilities": {"tools": {"listChanged": False}},
                        "serverInfo": {"name": "inbounds", "version": "1"},
                    },
                )
            )
        case "ping":
            return Answer(result(request, {}))
        case "tools/list":
            listed = [
                {"name": tool.name, "description": tool.description, "inputSchema": dict(tool.schema)}
                for tool in tools.values()
            ]
            return Answer(result(request, {"tools": listed}))
        case "tools/call":
            name = params.get("name")
            try:
                arguments = checked(tools, name, params.get("arguments"))
            except Refused as refusal:
                return RefusedCall(error(request, INVALID_PARAMS, str(refusal)), str(name)[:ID_CHARS_MAX], str(refusal))
            return ToolCall(request, str(name), arguments)
        case _:
            return Answer(error(request, METHOD_NOT_FOUND, "this server has tools only"))


def result(request: RequestId, value: dict[str, Any]) -> dict[str, Any]:
    """Write a successful response."""
    return {"jsonrpc": "2.0", "id": request, "result": value}


def called(request: RequestId, text: str, *, is_error: bool) -> dict[str, Any]:
    """Write the response to tools/call."""
    return result(request, {"content": [{"type": "text", "text": text}], "isError": is_error})


def error(request: RequestId | None, code: int, message: str) -> dict[str, Any]:
    """Write an error response."""
    return {"jsonrpc": "2.0", "id": request, "error": {"code": code, "message": message}}
