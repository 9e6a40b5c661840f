"""Filling /dev/shm, the shared memory of the jail, with 72 MiB and with ten thousand names and more."""

from collections.abc import Mapping
from typing import Any

CLASS = "resources"
REQUIREMENT = "E7"
SOURCE = """
written, why = 0, "enough"
for number in range(3):
    try:
        with open(f"{PLACE}/filling-{number}", "wb", buffering=0) as file:
            for _ in range(24):
                written += file.write(bytes(1 << 20))
    except OSError as error:
        why = errno.errorcode[error.errno]
for number in range(3):
    if os.path.exists(f"{PLACE}/filling-{number}"):
        os.unlink(f"{PLACE}/filling-{number}")
made = 0
os.mkdir(PLACE + "/names")
open(PLACE + "/first", "w").close()
try:
    for made in range(10_500):
        os.link(PLACE + "/first", f"{PLACE}/names/{made}")
except OSError as error:
    why += " " + errno.errorcode[error.errno]
say(mib=written >> 20, names=made, why=why)
for number in range(made + 1):
    if os.path.exists(f"{PLACE}/names/{number}"):
        os.unlink(f"{PLACE}/names/{number}")
"""
CONTROL = SOURCE.replace("{PLACE}", "{WORK}").replace("PLACE", "WORK")
ATTACK = SOURCE.replace("{PLACE}", "/dev/shm").replace("PLACE", "'/dev/shm'")


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """How much it took; 64 MiB and 10,000 names are what a jail has."""
    said = after["said"]
    words = f"{said['mib']} MiB and {said['names']} names, {said['why']}"
    return ("ESCAPED" if said["mib"] > 64 or said["names"] > 10_000 else "BLOCKED"), words
