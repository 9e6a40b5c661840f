"""A clock of its own: a time namespace in which the monotonic clock is a day ahead, so that deadlines measured inside lie."""

from collections.abc import Mapping
from typing import Any

CLASS = "resources"
REQUIREMENT = "E1"
CONTROL = """
USER, TIME = 0x10000000, 0x80
before = time.monotonic()
made = "done"
def unshare(flags):
    ctypes.set_errno(0)
    if libc.unshare(flags):
        raise OSError(ctypes.get_errno(), "unshare")
made = outcome(unshare, USER | TIME)
def shift():
    with open("/proc/self/timens_offsets", "w") as file:
        file.write("monotonic 86400 0\\n")
shifted = outcome(shift)
reader, writer = os.pipe()
if os.fork() == 0:
    os.write(writer, repr(time.monotonic()).encode())
    os._exit(0)
os.close(writer)
ahead = float(os.read(reader, 64)) - before
say(unshared=made, shifted=shifted, ahead=int(ahead), set=outcome(time.clock_settime, time.CLOCK_REALTIME, 1.0)
    if made != "done" else "not tried")
"""
ATTACK = CONTROL


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Whether a child's clock is ahead."""
    said = after["said"]
    words = f"unshare {said['unshared']}, offsets {said['shifted']}, set {said['set']}, {said['ahead']} s ahead"
    return ("ESCAPED" if said["ahead"] > 1000 or said["set"] == "done" else "BLOCKED"), words
