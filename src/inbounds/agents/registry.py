"""Agents by name: those that come with inbounds, and those that a package adds (entry points "inbounds.agents").

A profile is imported when it is asked for. Knows nothing of which one a run uses.
"""

import importlib

from inbounds.agents.profile import AgentProfile
from inbounds.contracts.errors import OperatorError

GROUP = "inbounds.agents"

BUILT_IN = {
    "claude": "inbounds.agents.claude:PROFILE",
    "codex": "inbounds.agents.codex:PROFILE",
    "reference": "inbounds.agents.reference:PROFILE",
}


def names() -> tuple[str, ...]:
    """Give every agent that can be asked for."""
    from importlib import metadata

    added = metadata.entry_points(group=GROUP).names
    return tuple(sorted({*BUILT_IN, *added}))


def profile(name: str) -> AgentProfile:
    """Import one agent's profile; OperatorError if there is none. An added one never replaces a built-in one."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        built_in: AgentProfile = getattr(importlib.import_module(module), attribute)
        return built_in
    from importlib import metadata

    for entry in metadata.entry_points(group=GROUP, name=name):
        added: AgentProfile = entry.load()
        return added
    raise OperatorError(f"no agent {name!r}", expected=f"one of {', '.join(names())}")
