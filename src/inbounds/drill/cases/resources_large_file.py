"""One file larger than the limit, in the workspace itself: written at its far end, so that a backup or a copy of it
would be full size.
"""

from collections.abc import Mapping
from typing import Any

CLASS = "resources"
REQUIREMENT = "E7"
LIMITS = {"file_bytes": 4 << 20}
CONTROL = """
path = WORK + "/sparse"
def write_far():
    with open(path, "wb") as file:
        file.seek(1 << 40)
        file.write(b"x")
def cut():
    with open(path, "ab") as file:
        os.truncate(file.fileno(), 1 << 40)
def allocate():
    with open(path, "ab") as file:
        os.posix_fallocate(file.fileno(), 0, 16 << 20)
tried = {function.__name__: outcome(function) for function in (write_far, cut, allocate)}
say(tried=tried, size=os.path.getsize(path) if os.path.exists(path) else 0)
if os.path.exists(path):
    os.unlink(path)
"""
ATTACK = CONTROL


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """How large it became."""
    said = after["said"]
    words = f"{said['size']} bytes: {said['tried']}"
    return ("ESCAPED" if said["size"] > 4 << 20 else "BLOCKED"), words
