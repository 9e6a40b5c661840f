r"""A dearer model by another name: the provider's own name for it, other case, blanks, a doubled JSON key, a zero width
character (G1: every call is priced or refused).
"""

from collections.abc import Mapping
from typing import Any

from inbounds.drill.market import MODEL, Market, asking

CLASS = "economic"
REQUIREMENT = "G1"
KIND = "host"
NAMES = ("acme-large", "acme-enormous", "M", "m ", "m\u200b", "m\0", "../m", "m?x=1", "", ["m"], {"m": 1}, None)
DOUBLED = (
    b'{"model":"m","max_tokens":9,"messages":[],"model":"acme-enormous"}',
    b'{"model":"acme-enormous","max_tokens":9,"messages":[{"role":"user","content":"x"}],"\\u006dodel":"m"}',
)


def _ask(market: Market) -> dict[str, Any]:
    statuses = [market.ask(body={**asking(9), "model": name}) for name in NAMES]
    statuses += [market.ask(body=body) for body in DOUBLED]
    return market.facts(statuses=statuses, models=sorted(set(market.bill.models)))


def control(arena: Any) -> dict[str, Any]:
    """The provider serves whatever it has a name for."""
    with Market(arena.scratch, guarded=False) as market:
        return _ask(market)


def attack(arena: Any) -> dict[str, Any]:
    """The gateway asks for the one configured model or for none."""
    with Market(arena.scratch, guarded=True) as market:
        market.honest()
        return _ask(market)


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Which models the provider was asked for: the configured one is acme-large upstream, and nothing else."""
    said = after["said"]
    others = [name for name in said["models"] if name != "acme-large"]
    words = f"{len(NAMES) + len(DOUBLED)} names for {MODEL!r} tried, asked upstream: {said['models']}"
    return ("ESCAPED" if others else "BLOCKED"), words
