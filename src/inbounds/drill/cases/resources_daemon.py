"""A double-forked daemon in a session of its own that outlives its command (a timeout that kills one process, or one
group, leaves it).
"""

from collections.abc import Mapping
from typing import Any

CLASS = "resources"
REQUIREMENT = "F7"
CONTROL = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in (0, 1, 2):
            os.close(fd)
        time.sleep(8)
    os._exit(0)
os.wait()
say(left=True)
"""
ATTACK = CONTROL


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """How many processes are there when the command has ended."""
    alive = after["alive"]
    return ("ESCAPED" if alive else "BLOCKED"), f"{alive} processes outlived the command"
