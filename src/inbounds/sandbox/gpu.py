"""Which device nodes a granted GPU is, on this host: NVIDIA's, as character devices with the numbers that are theirs.

Never a symbolic link, never another driver's node; what is not there is refused, not left out. Knows nothing of jails.
"""

import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inbounds.contracts.errors import RefusedError

LIBRARY = "libnvidia-ml.so.1"  # NVML, which the driver's package brings
MAJORS = "/proc/devices"
# The driver's control node has this minor number, the GPUs have 0 to 254; unified memory's node is the first of its own
# major (NVIDIA's README, "nvidia-modprobe"). Left out: nvidia-uvm-tools (debugging), nvidia-modeset (displays),
# nvidia-caps (partitions of a GPU).
CONTROL_MINOR, UVM_MINOR = 255, 0
GPU_DRIVERS, UVM_DRIVERS = ("nvidia", "nvidia-frontend"), ("nvidia-uvm",)
CONTROL_DRIVERS = ("nvidiactl", *GPU_DRIVERS)
TARGET = re.compile(r"/dev/nvidia(?:[0-9]{1,2}|ctl|-uvm)")
DEVICES_MAX = 18  # sixteen GPUs and what they share
READ_WRITE = 0o6


@dataclass(frozen=True, slots=True)
class Device:
    """One node: where it is on the host, where in the jail, and the numbers that make it this device."""

    source: str
    target: str
    major: int
    minor: int

    def problem(self) -> str:
        """Why it is not the device that it should be, "" where it is. Looks, and opens nothing."""
        try:
            about = os.lstat(self.source)
        except OSError as error:
            return f"{self.source}: {error.strerror}"
        if not stat.S_ISCHR(about.st_mode):
            return f"{self.source} is no character device ({stat.filemode(about.st_mode)})"
        found = os.major(about.st_rdev), os.minor(about.st_rdev)
        if found != (self.major, self.minor):
            return f"{self.source} is device {found[0]}:{found[1]}, not {self.major}:{self.minor}"
        return ""

    def closed_to(self, uid: int, gids: Iterable[int]) -> str:
        """Why a jail of this user and groups could not open it, "" where it could."""
        about = os.lstat(self.source)
        shift = 6 if uid == about.st_uid else 3 if about.st_gid in gids else 0
        if about.st_mode >> shift & READ_WRITE == READ_WRITE:
            return ""
        return f"{self.source} is {stat.filemode(about.st_mode)}: a jail of user {uid} may not open it"


@dataclass(frozen=True, slots=True)
class Grant:
    """All nodes of one grant, and the library that watches them; `minors` are the GPUs' own numbers."""

    devices: tuple[Device, ...] = ()
    minors: tuple[int, ...] = ()
    library: str = LIBRARY

    def as_json(self) -> dict[str, Any]:
        """Plain data, for settings.json."""
        nodes = [[node.source, node.target, node.major, node.minor] for node in self.devices]
        return {"devices": nodes, "minors": list(self.minors), "library": self.library}

    def problems(self, uid: int, gids: Iterable[int]) -> list[str]:
        """What is wrong with any of the nodes, for a jail of this user and groups."""
        groups = tuple(gids)
        return [found for node in self.devices if (found := node.problem() or node.closed_to(uid, groups))]


NONE = Grant()


def from_json(data: Mapping[str, Any] | None) -> Grant:
    """Read back what `as_json` wrote, NONE where nothing stands; ValueError for anything else."""
    if data is None:
        return NONE
    try:
        devices = tuple(Device(str(a), str(b), int(c), int(d)) for a, b, c, d in data["devices"])
        grant = Grant(devices, tuple(int(minor) for minor in data["minors"]), str(data["library"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"no grant of devices: {error!r}") from None
    if grant.as_json() != dict(data):
        raise ValueError("no grant of devices as this program writes it")
    return grant


@dataclass(frozen=True, slots=True)
class Host:
    """Where a host's nodes are, and which major numbers its drivers have; tests bring one of their own."""

    directory: str = "/dev"
    library: str = LIBRARY
    majors: Mapping[str, int] | None = field(default=None)

    def grant(self, numbers: Sequence[int]) -> Grant:
        """The nodes of these GPUs; RefusedError where one is not there, or is something else."""
        if not numbers:
            return NONE
        majors = read_majors() if self.majors is None else self.majors
        wanted: list[tuple[str, tuple[str, ...], int]] = [
            *((f"nvidia{number}", GPU_DRIVERS, number) for number in numbers),
            ("nvidiactl", CONTROL_DRIVERS, CONTROL_MINOR),
            ("nvidia-uvm", UVM_DRIVERS, UVM_MINOR),
        ]
        devices, wrong = [], []
        for name, drivers, minor in wanted:
            major = next((majors[driver] for driver in drivers if driver in majors), None)
            if major is None:
                wrong.append(f"{name}: no driver {' or '.join(drivers)} in {MAJORS}")
                continue
            device = Device(f"{self.directory}/{name}", f"/dev/{name}", major, minor)
            devices.append(device)
            wrong += [found] if (found := device.problem()) else []
        if wrong:
            raise RefusedError(
                f"policy grants GPU {', '.join(map(str, numbers))}, which this host has not: {'; '.join(wrong)}",
                where="resources.gpu",
                expected="NVIDIA's character devices with the driver's own numbers",
                fix="as root, nvidia-modprobe -u -c N makes the nodes; or take N out of resources.gpu",
            )
        return Grant(tuple(devices), tuple(numbers), self.library)


def read_majors(path: str = MAJORS) -> dict[str, int]:
    """Character drivers and the first major number of each; {} where the kernel does not say."""
    try:
        with open(path) as file:
            text = file.read().partition("Block devices:")[0]
    except OSError:
        return {}
    found: dict[str, int] = {}
    for line in text.splitlines():
        number, _, name = line.strip().partition(" ")
        if number.isdigit() and name:
            found.setdefault(name, int(number))
    return found
