"""Paid work by other doors than the metered ones: batches, embeddings, pictures, files, twisted spellings of paths (G1)."""

from collections.abc import Mapping
from typing import Any

from inbounds.drill.market import HTTP_OK, MESSAGES, Market

CLASS = "economic"
REQUIREMENT = "G1"
KIND = "host"
DOORS = (
    "/v1/messages/batches", "/v1/batches", "/v1/embeddings", "/v1/images/generations", "/v1/audio/speech", "/v1/files",
    "/v1/fine_tuning/jobs", "/v1/completions", "/v1/complete", "/v1/responses/resp_1/cancel", "/v1/moderations",
    "//v1/messages/batches", "/v1/messages/../embeddings", "/v1/messages/%2e%2e/embeddings", "/v1%2fembeddings",
    "/v1/messages;x/batches", "/v1/messages/", "/V1/EMBEDDINGS", "http://127.0.0.1/v1/embeddings",
)  # fmt: skip


def _knock(market: Market) -> dict[str, Any]:
    opened = [door for door in DOORS if market.ask(door) == HTTP_OK]
    return market.facts(opened=opened, reached=[path for path in market.bill.paths if path != MESSAGES])


def control(arena: Any) -> dict[str, Any]:
    """The provider has all these doors."""
    with Market(arena.scratch, guarded=False) as market:
        return _knock(market)


def attack(arena: Any) -> dict[str, Any]:
    """The gateway has three."""
    with Market(arena.scratch, guarded=True) as market:
        market.honest()
        return _knock(market)


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """What arrived at the provider at another door than the one that the honest request took."""
    reached = after["said"]["reached"]
    words = f"{len(reached)} of {len(DOORS)} other doors reached the provider: {', '.join(reached[:3]) or 'none'}"
    return ("ESCAPED" if reached or after["said"]["opened"] else "BLOCKED"), words
