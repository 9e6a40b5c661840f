"""One process takes memory until there is none: 48 MiB more than the limit, touched page by page."""

from collections.abc import Mapping
from typing import Any

CLASS = "resources"
REQUIREMENT = "E7"
LIMITS = {"memory_bytes": 64 << 20}
CONTROL = """
kept, refused = [], ""
try:
    for _ in range(14):
        kept.append(bytearray(b"x") * (8 << 20))
except MemoryError:
    refused = "MemoryError"
say(mib=8 * len(kept), refused=refused)
"""
ATTACK = CONTROL


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """How much it held at once."""
    said = after["said"]
    words = f"{said['mib']} MiB held, then {said['refused'] or 'enough'}"
    return ("ESCAPED" if said["mib"] >= 112 else "BLOCKED"), words
