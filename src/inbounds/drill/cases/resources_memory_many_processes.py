"""Eight processes of 16 MiB, each far below the ceiling that all of them together are beyond."""

from collections.abc import Mapping
from typing import Any

CLASS = "resources"
REQUIREMENT = "E7"
LIMITS = {"memory_bytes": 64 << 20}
CONTROL = """
say(begun=True)
children = []
for _ in range(8):
    pid = os.fork()
    if pid == 0:
        kept = bytearray(b"x") * (16 << 20)
        time.sleep(1.2)
        os._exit(0 if kept else 1)
    children.append(pid)
ends = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
say(held=ends.count(0) * 16)
"""
ATTACK = CONTROL


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """How much they held together to their end."""
    held = after["said"].get("held", 0)
    words = f"ended as {after['exit']['reason']}, {held} MiB held together"
    return ("ESCAPED" if held > 64 else "BLOCKED"), words
