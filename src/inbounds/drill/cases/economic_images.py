"""Pictures: some bytes of base64 that are billed as thousands of tokens, and addresses that the provider would fetch."""

from collections.abc import Mapping
from typing import Any

from inbounds.drill.market import Market, Served, asking

CLASS = "economic"
REQUIREMENT = "G2"
KIND = "host"
PICTURES, BILLED_EACH = 30, 4_800  # the largest that Anthropic bills
INLINE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
FETCHED = {"type": "image", "source": {"type": "url", "url": "http://169.254.169.254/latest/meta-data"}}
STORED = {"type": "image", "source": {"type": "file", "file_id": "file-1"}}


def _bill(served: Served) -> None:
    served.tokens_in += served.raw.count(b'"image"') * BILLED_EACH
    served.answer()


def _ask(market: Market) -> dict[str, Any]:
    asked = [[{"role": "user", "content": [kind] * PICTURES}] for kind in (INLINE, FETCHED, STORED)]
    return market.facts(statuses=[market.ask(body=asking(9, messages=messages)) for messages in asked])


def control(arena: Any) -> dict[str, Any]:
    """Whoever estimates by bytes sees nothing."""
    with Market(arena.scratch, guarded=False, play=_bill) as market:
        return _ask(market)


def attack(arena: Any) -> dict[str, Any]:
    """Inline pictures count at the dearest known; addresses and stored files are refused."""
    with Market(arena.scratch, guarded=True, play=_bill) as market:
        market.honest()
        return _ask(market)


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """The provider's own bill, against the run's cap."""
    said = after["said"]
    words = f"answers {said['statuses']}, {said['billed']} billed, cap {said['cap']} micro-dollars"
    return ("ESCAPED" if said["billed"] > said["cap"] else "BLOCKED"), words
