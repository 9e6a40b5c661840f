"""Filling them with empty files: two thousand names take no bytes, and every file system has an end of names."""

from collections.abc import Mapping
from typing import Any

CLASS = "resources"
REQUIREMENT = "E7"
LIMITS = {"inodes": 500}
SOURCE = """
made = {}
for place in PLACES:
    top = place + "/names"
    os.mkdir(top)
    made[place] = [0, "enough"]
    for number in range(2000):
        try:
            os.close(os.open(f"{top}/{number}", os.O_CREAT | os.O_WRONLY, 0o600))
            made[place][0] += 1
        except OSError as error:
            made[place][1] = errno.errorcode[error.errno]
            break
say(made=made)
"""
CONTROL = SOURCE.replace("PLACES", "[WORK]")
ATTACK = SOURCE.replace("PLACES", "[os.environ['HOME'], '/tmp']")


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """How many names each took."""
    made = after["said"]["made"]
    words = ", ".join(f"{place}: {count} files, {why}" for place, (count, why) in made.items())
    return ("ESCAPED" if any(count >= 2000 for count, _ in made.values()) else "BLOCKED"), words
