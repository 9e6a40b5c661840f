"""Threads instead of processes: a ceiling of processes that does not count them is none (E7)."""

from collections.abc import Mapping
from typing import Any

CLASS = "resources"
REQUIREMENT = "E7"
LIMITS = {"processes": 40}
CONTROL = """
import threading
threading.stack_size(64 << 10)
end, made, refused = threading.Event(), 0, ""
while made < 90 and not refused:
    try:
        threading.Thread(target=end.wait, daemon=True).start()
        made += 1
    except RuntimeError as error:
        refused = str(error)
say(made=made, refused=refused)
end.set()
"""
ATTACK = CONTROL


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """How many there were at once."""
    said = after["said"]
    words = f"{said['made']} threads at once, then {said['refused'] or 'enough'}"
    return ("ESCAPED" if said["made"] >= 90 else "BLOCKED"), words
