"""Sixty-four kilobytes of gzip that become sixty-four megabytes in whatever unpacks them for the agent."""

import gzip
from collections.abc import Mapping
from typing import Any

from inbounds.drill.market import Market

CLASS = "economic"
REQUIREMENT = "G1"
KIND = "host"
UNPACKED, GROWTH_MAX = 64 << 20, 24 << 20
BOMB = gzip.compress(b" " * UNPACKED, 9)


def control(_: Any) -> dict[str, Any]:
    """A proxy that wants to look inside unpacks first."""
    return {"packed": len(BOMB), "grown": len(gzip.decompress(BOMB)), "status": 200}


def attack(arena: Any) -> dict[str, Any]:
    """The gateway's own memory, before and at its highest."""
    with Market(arena.scratch, guarded=True) as market:
        market.honest()
        before = market.gateway_peak()
        kinds = ("gzip", "deflate", "br", "zstd", "gzip, identity", "x-gzip")
        statuses = [market.ask(body=BOMB, headers={"Content-Encoding": kind}) for kind in kinds]
        market.honest()
        return market.facts(packed=len(BOMB), grown=market.gateway_peak() - before, status=statuses)


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """How much memory it took."""
    said = after["said"]
    words = f"{said['packed'] >> 10} KiB sent, {said['grown'] >> 20} MiB taken, answer {said['status']}"
    return ("ESCAPED" if said["grown"] > GROWTH_MAX else "BLOCKED"), words
