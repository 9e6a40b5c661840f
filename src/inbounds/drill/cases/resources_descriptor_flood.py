"""A thousand open descriptors, behind an attempt to raise the limit of them (setrlimit, prlimit on PID 1)."""

from collections.abc import Mapping
from typing import Any

CLASS = "resources"
REQUIREMENT = "E7"
LIMITS = {"open_files": 256}
CONTROL = """
import resource
raised = outcome(resource.setrlimit, resource.RLIMIT_NOFILE, (1000, 1000))
kept, refused = [], ""
for _ in range(900):
    try:
        kept.append(os.dup(0))
    except OSError as error:
        refused = errno.errorcode[error.errno]
        break
say(open=len(kept), refused=refused, raised=raised)
"""
ATTACK = CONTROL


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """How many there were at once."""
    said = after["said"]
    words = f"{said['open']} descriptors, {said['refused'] or 'enough'}; raising the limit: {said['raised']}"
    return ("ESCAPED" if said["open"] >= 900 else "BLOCKED"), words
