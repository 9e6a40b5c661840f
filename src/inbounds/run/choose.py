"""Which agent of this host a run uses: the one named, or the first that policy allows and that is installed.

Looks only where PATH and the agents' own installers put them.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from inbounds.agents import registry
from inbounds.agents.profile import AgentProfile, Install
from inbounds.contracts.errors import HostError


def search_path() -> tuple[Path, ...]:
    """PATH as directories; agents installed for this user only are looked up by their profiles."""
    return tuple(Path(part) for part in os.environ.get("PATH", "").split(":") if part.startswith("/"))


def choose(name: str, allowed: Sequence[str]) -> tuple[AgentProfile, Install]:
    """The profile and the install; HostError if the agent is not installed."""
    for candidate in [name] if name else allowed:
        profile = registry.profile(candidate)
        install = profile.find(search_path())
        if install is not None:
            return profile, install
    wanted = name or " or ".join(allowed)
    raise HostError(
        f"the agent {wanted} is not installed", expected="its command on PATH", fix=INSTALL.get(name, "inbounds doctor")
    )


def found() -> dict[str, Install | None]:
    """Every agent that can be named, with what is installed of it."""
    return {name: registry.profile(name).find(search_path()) for name in registry.names()}


INSTALL = {
    "claude": "npm install -g @anthropic-ai/claude-code",
    "codex": "npm install -g @openai/codex",
}
