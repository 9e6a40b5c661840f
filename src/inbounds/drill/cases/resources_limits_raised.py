"""Giving itself back what was taken: every soft limit lowered by somebody is raised to what it was, in children too."""

from collections.abc import Mapping
from typing import Any

CLASS = "resources"
REQUIREMENT = "E8"
LIMITS = {"processes": 64, "open_files": 256, "file_bytes": 32 << 20, "cpu_seconds": 30, "memory_bytes": 256 << 20}
SOURCE = """
import resource
NAMES = ("NOFILE", "NPROC", "FSIZE", "CPU", "DATA", "CORE")
def raise_all():
    done = []
    for name in NAMES:
        which = getattr(resource, "RLIMIT_" + name)
        soft, hard = resource.getrlimit(which)
        more = resource.RLIM_INFINITY if hard == resource.RLIM_INFINITY else hard + 1 if BEYOND else hard
        try:
            resource.setrlimit(which, (more, more))
        except (OSError, ValueError):
            continue
        if resource.getrlimit(which)[0] != soft:
            done.append(name)
    return done
"""
# outside: limits that were lowered as a soft limit only, which is how a shell's ulimit -S does it
CONTROL = (
    SOURCE.replace("BEYOND", "False")
    + """
for name in NAMES:
    which = getattr(resource, "RLIMIT_" + name)
    hard = resource.getrlimit(which)[1]
    wanted = {"NOFILE": 64, "NPROC": 5000, "FSIZE": 1 << 20, "CPU": 60, "DATA": 1 << 30, "CORE": 0}[name]
    resource.setrlimit(which, (min(wanted, hard) if hard != resource.RLIM_INFINITY else wanted, hard))
say(raised=raise_all())
"""
)
ATTACK = SOURCE.replace("BEYOND", "True") + "say(raised=raise_all())"


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Which of them are higher now than before."""
    raised = after["said"]["raised"]
    return ("ESCAPED" if raised else "BLOCKED"), f"raised: {', '.join(raised) or 'none'}"
