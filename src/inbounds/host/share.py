"""How much of the processors a slot has: less than it was opened with, that again, or only what nobody else wants.

By the ceiling of its control group, in either version; where the host has no such controller, by niceness, which is not
given back. Knows nothing of who asks and why.
"""

import contextlib
import os

from inbounds.host import jailer
from inbounds.host.groups import QUOTA_US, Group

NICE = 19


def leave(group: Group, uid: int, percent: int, ceiling: int) -> int:
    """Leave the slot so many percent of one CPU, but never more than it has, or with 0 its `ceiling`; what it has then.

    0 where no ceiling can be set: its processes are weighed down instead, those that there are, and what they make.
    Cheap to repeat. OSError where the kernel refuses.
    """
    held = group.limits().get("cpu", 0)
    if not held:
        if percent:
            _weigh_down(group, uid)
        return 0
    for path in group.files("cpu"):
        with open(path, "w", encoding="ascii", newline="") as file:
            file.write(str((min(percent, held) if percent else ceiling) * QUOTA_US))
    return group.limits().get("cpu", 0)


def _weigh_down(group: Group, uid: int) -> None:
    """Niceness of all that the user has, which only that user may set without one capability more."""
    child = os.fork()
    if child == 0:
        try:
            jailer.drop(uid, uid)
            os.setpriority(os.PRIO_USER, uid, NICE)
            os._exit(0)
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    for pid in group.members():  # where the kernel weighs sessions before processes, these too
        with contextlib.suppress(OSError), open(f"/proc/{pid}/autogroup", "wb", buffering=0) as weight:
            weight.write(str(NICE).encode())
