"""Which agent and model play the demo's acts 1 and 3 with a real provider: those that go with the key that is there.

Act 2's agent is a program of the demo's own and needs no model. Asks no provider anything.
"""

from dataclasses import dataclass

from inbounds.agents.registry import profile
from inbounds.contracts.errors import HostError, OperatorError
from inbounds.gateway.keys import KeyStore
from inbounds.run.choose import INSTALL, search_path
from inbounds.run.home import Home
from inbounds.run.order import MODELS


@dataclass(frozen=True, slots=True)
class Live:
    """The agent and the model that a real provider serves."""

    agent: str
    model: str


# The reference agent speaks OpenAI's chat format and is always there; Anthropic's is spoken by Claude Code.
AGENTS = (("openai", "reference"), ("anthropic", "claude"))


def choose(home: Home) -> Live:
    """The first pair whose key is there; OperatorError without any, HostError if its agent is not installed."""
    keys = KeyStore(home.keys)
    name = next((agent for provider, agent in AGENTS if keys.get(provider)), "")
    if not name:
        raise OperatorError(
            "the demo shall use a real provider, and there is no key of one",
            expected="OPENAI_API_KEY (reference agent) or ANTHROPIC_API_KEY (Claude Code), or a stored key",
            fix="inbounds key add anthropic, or inbounds demo without --live",
        )
    if profile(name).find(search_path()) is None:
        raise HostError(
            f"the key that is there needs {name}, which is not installed",
            expected="its command on PATH",
            fix=INSTALL[name],
        )
    return Live(name, MODELS[name])
