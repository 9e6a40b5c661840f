"""How each agent names its own tools, so that one script can be played to any of them.

A script says write {path, content}, read {path}, list {path}, search {pattern}, shell {command} or a broker tool's bare
name; the tools that a request offers say whose they are. A name that is offered as it stands is passed on as it stands.
"""

import json
import shlex
from collections.abc import Callable
from typing import Any

from inbounds.modelserver.script import ToolCall
from inbounds.modelserver.wire import Asked

# Newer codex models are offered one free-form tool that runs JavaScript, which calls all others.
CODE_MODE = "functions/exec"


def spoken(call: ToolCall, asked: Asked) -> ToolCall:
    """Give the call as the asking agent knows it."""
    if call.name in asked.tools or not isinstance(call.arguments, dict):
        return call
    given = call.arguments
    if CODE_MODE in asked.tools:
        return ToolCall(CODE_MODE, _script(call.name, given))
    brokered = [name for name in asked.tools if _bare(name) == call.name]
    if brokered:
        return ToolCall(brokered[0], given)
    if "Write" in asked.tools:
        return _claude(call.name, given) or call
    if "exec_command" in asked.tools:
        return _codex(call.name, given, patches="apply_patch" in asked.tools) or call
    return call


def _bare(name: str) -> str:
    """Take off what clients put before the name of an MCP tool: mcp__server__name, or namespace/name."""
    return name.rpartition("/")[2].rpartition("__")[2]


def _command(name: str, given: dict[str, Any]) -> str | None:
    path = shlex.quote(str(given.get("path", ".")))
    ways: dict[str, Callable[[], str]] = {
        "shell": lambda: str(given.get("command", "true")),
        "list": lambda: f"ls -la {path}",
        "read": lambda: f"cat {path}",
        "search": lambda: f"grep -rn -e {shlex.quote(str(given.get('pattern', '')))} {path}",
    }
    return ways[name]() if name in ways else None


def _claude(name: str, given: dict[str, Any]) -> ToolCall | None:
    if name in {"write", "read"}:
        content = {"content": str(given.get("content", ""))} if name == "write" else {}
        return ToolCall(name.capitalize(), {"file_path": str(given.get("path", ""))} | content)
    command = _command(name, given)
    return ToolCall("Bash", {"command": command, "description": f"{name} as scripted"}) if command else None


def _codex(name: str, given: dict[str, Any], *, patches: bool) -> ToolCall | None:
    if name == "write":
        patch = _patch(given)
        if patches:
            return ToolCall("apply_patch", patch)
        return ToolCall("exec_command", {"cmd": f"apply_patch <<'INBOUNDS_END'\n{patch}INBOUNDS_END"})
    command = _command(name, given)
    return ToolCall("exec_command", {"cmd": command}) if command else None


def _script(name: str, given: dict[str, Any]) -> str:
    if name == "write":
        return f"text(await tools.apply_patch({json.dumps(_patch(given))}))"
    command = _command(name, given)
    if command:
        return f"text(await tools.exec_command({json.dumps({'cmd': command})}))"
    return f"text(await tools.mcp__inbounds__{name}({json.dumps(given)}))"


def _patch(given: dict[str, Any]) -> str:
    """Write the whole file as a patch; the format knows no file without a newline at its end."""
    added = "".join(f"+{line}\n" for line in str(given.get("content", "")).splitlines())
    return f"*** Begin Patch\n*** Add File: {given.get('path', '')}\n{added}*** End Patch\n"
