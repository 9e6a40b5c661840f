"""A fork bomb: processes that do nothing but exist. The control makes eighty, which is what the limit must not allow."""

from collections.abc import Mapping
from typing import Any

CLASS = "resources"
REQUIREMENT = "E7"
LIMITS = {"processes": 40}
CONTROL = """
made, refused = 0, ""
reader, writer = os.pipe()
while made < 80 and not refused:
    try:
        if os.fork() == 0:
            os.close(writer)
            os.read(reader, 1)  # until the parent is gone
            os._exit(0)
        made += 1
    except OSError as error:
        refused = errno.errorcode[error.errno]
say(made=made, refused=refused)
"""
ATTACK = CONTROL


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """How many there were at once."""
    said = after["said"]
    words = f"{said['made']} processes at once, then {said['refused'] or 'enough'}"
    return ("ESCAPED" if said["made"] >= 80 else "BLOCKED"), words
