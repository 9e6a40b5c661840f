"""A processor burnt for longer than the limit, with the signal that ends it ignored (SIGXCPU comes before SIGKILL)."""

from collections.abc import Mapping
from typing import Any

CLASS = "resources"
REQUIREMENT = "F7"
LIMITS = {"cpu_seconds": 1}
CONTROL = """
import signal
say(ignored=outcome(signal.signal, signal.SIGXCPU, signal.SIG_IGN), burnt=0)
while time.process_time() < 1.3:
    pass
say(burnt=time.process_time())
"""
ATTACK = CONTROL


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Whether it came to the end of what it wanted to burn."""
    said, end = after["said"], after["exit"]
    words = f"{said['burnt'] or 'at most 1.3'} s burnt, ended as {end['reason']} by signal {end['signal']}"
    return ("ESCAPED" if said["burnt"] else "BLOCKED"), words
