"""Shared anonymous memory, which RLIMIT_DATA does not count: 128 MiB of it, held for a second."""

from collections.abc import Mapping
from typing import Any

CLASS = "resources"
REQUIREMENT = "E7"
LIMITS = {"memory_bytes": 64 << 20}
CONTROL = """
import mmap
say(begun=True)
memory = mmap.mmap(-1, 128 << 20, flags=mmap.MAP_SHARED)
for page in range(0, 128 << 20, 4096):
    memory[page] = 1
time.sleep(1)
say(held=128)
"""
ATTACK = CONTROL


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Whether it could be held longer than a look at it takes."""
    end = after["exit"]
    words = f"ended as {end['reason']}, held: {after['said'].get('held', 0)} MiB"
    return ("ESCAPED" if after["said"].get("held") else "BLOCKED"), words
