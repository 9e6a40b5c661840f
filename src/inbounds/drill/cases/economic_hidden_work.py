"""Requests that make the provider work and bill beyond them: background runs, stored conversations, searches, MCP
servers, code execution, priority tiers (G1, G2).
"""

from collections.abc import Mapping
from typing import Any

from inbounds.drill.market import CHAT, MESSAGES, RESPONSES, Market, asking

CLASS = "economic"
REQUIREMENT = "G2"
KIND = "host"
ASKED = {"model": "m", "input": [{"role": "user", "content": "hi"}], "max_output_tokens": 9}
TRICKS: tuple[tuple[str, dict[str, Any]], ...] = (
    (RESPONSES, {**ASKED, "background": True}),
    (RESPONSES, {**ASKED, "store": True}),
    (RESPONSES, {**ASKED, "previous_response_id": "resp_1"}),
    (RESPONSES, {**ASKED, "conversation": "conv_1"}),
    (RESPONSES, {**ASKED, "prompt": {"id": "pmpt_1"}}),
    (RESPONSES, {**ASKED, "tools": [{"type": "web_search"}]}),
    (RESPONSES, {**ASKED, "tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]}),
    (RESPONSES, {**ASKED, "tools": [{"type": "mcp", "server_url": "http://127.0.0.1/"}]}),
    (RESPONSES, {**ASKED, "input": [{"id": "msg_1", "type": "item_reference"}]}),
    (RESPONSES, {**ASKED, "service_tier": "priority"}),
    (CHAT, asking(9, web_search_options={})),
    (CHAT, asking(9, service_tier="priority")),
    (CHAT, asking(9, modalities=["text", "audio"], audio={"voice": "a", "format": "wav"})),
    (CHAT, asking(9, store=True)),
    (CHAT, asking(9, plugins=[{"id": "web"}])),
    (MESSAGES, asking(9, tools=[{"type": "web_search_20250305", "name": "web_search"}])),
    (MESSAGES, asking(9, tools=[{"type": "code_execution_20250825", "name": "code_execution"}])),
    (MESSAGES, asking(9, mcp_servers=[{"type": "url", "url": "http://127.0.0.1/", "name": "x"}])),
    (MESSAGES, asking(9, container="container_1")),
    (MESSAGES, asking(9, speed="fast")),
    (MESSAGES, asking(9, a_field_of_next_year=True)),
)


def _ask(market: Market) -> dict[str, Any]:
    before = market.bill.requests
    statuses = [market.ask(path, body) for path, body in TRICKS]
    return market.facts(statuses=statuses, passed=market.bill.requests - before)


def control(arena: Any) -> dict[str, Any]:
    """The provider does as it is asked."""
    with Market(arena.scratch, guarded=False) as market:
        return _ask(market)


def attack(arena: Any) -> dict[str, Any]:
    """The gateway knows each field that it lets through, and nothing of these."""
    with Market(arena.scratch, guarded=True) as market:
        market.honest()
        return _ask(market)


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """How many of them the provider got to see."""
    passed = after["said"]["passed"]
    words = f"{passed} of {len(TRICKS)} reached the provider"
    return ("ESCAPED" if passed else "BLOCKED"), words
