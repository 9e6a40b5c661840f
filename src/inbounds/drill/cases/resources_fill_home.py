"""Filling the private directories with bytes: HOME and /tmp are memory of the host's."""

from collections.abc import Mapping
from typing import Any

CLASS = "resources"
REQUIREMENT = "E7"
LIMITS = {"home_bytes": 8 << 20, "tmp_bytes": 8 << 20, "memory_bytes": 1 << 30}
SOURCE = """
taken = {}
for place in PLACES:
    try:
        with open(place + "/filling", "wb", buffering=0) as file:
            for mib in range(24):
                taken[place] = [mib, "enough"]
                if file.write(bytes(1 << 20)) < 1 << 20:
                    taken[place] = [mib, "short"]
                    break
            else:
                taken[place] = [24, "enough"]
    except OSError as error:
        taken[place] = [taken.get(place, [0])[0], errno.errorcode[error.errno]]
say(taken=taken)
"""
CONTROL = SOURCE.replace("PLACES", "[WORK]")
ATTACK = SOURCE.replace("PLACES", "[os.environ['HOME'], '/tmp']")


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """How many MiB each took."""
    taken = after["said"]["taken"]
    words = ", ".join(f"{place}: {mib} MiB, {why}" for place, (mib, why) in taken.items())
    return ("ESCAPED" if any(mib >= 24 for mib, _ in taken.values()) else "BLOCKED"), words
