"""Declared tools and the check of what an agent passes to them. Knows neither MCP nor HTTP nor what a tool does.

The schema is the part of JSON Schema that declared tools need: an object of string, integer, boolean, or string-list
properties. What is not declared is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Tools of one run; a thread declares a handful, and an agent reads all their descriptions.
TOOLS_MAX = 64
TEXT_CHARS_MAX = 4096
LIST_ITEMS_MAX = 256


class Refused(Exception):
    """A call that was not declared; the message goes back to the agent."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool that a run declares; `schema` is a JSON Schema object for its arguments."""

    name: str
    description: str
    schema: Mapping[str, Any]


def checked(tools: Mapping[str, Tool], name: Any, arguments: Any) -> dict[str, Any]:
    """Give the arguments if this tool takes them; Refused says which one it does not."""
    tool = tools.get(name) if isinstance(name, str) else None
    if tool is None:
        raise Refused("no such tool is declared")
    given = {} if arguments is None else arguments
    if not isinstance(given, dict):
        raise Refused("expected the arguments to be an object")
    properties = tool.schema.get("properties", {})
    for key, value in given.items():
        if key not in properties:
            raise Refused(f"{key[:80]!r} is no argument of {tool.name}")
        if not _fits(value, properties[key]):
            raise Refused(f"{key[:80]!r}: expected {properties[key].get('type', 'nothing')}, within its limits")
    for key in tool.schema.get("required", ()):
        if key not in given:
            raise Refused(f"{key!r} is missing")
    return given


def _fits(value: Any, wanted: Mapping[str, Any]) -> bool:
    if "enum" in wanted:
        return value in wanted["enum"]
    match wanted.get("type"):
        case "string":
            return isinstance(value, str) and len(value) <= TEXT_CHARS_MAX
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "array":
            return (
                isinstance(value, list)
                and len(value) <= LIST_ITEMS_MAX
                and all(isinstance(one, str) and len(one) <= TEXT_CHARS_MAX for one in value)
            )
        case _:
            return False
