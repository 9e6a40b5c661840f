"""Output without an end: two megabytes to each of stdout and stderr, which somebody keeps in a file."""

import os
import subprocess
from collections.abc import Mapping
from typing import Any

from inbounds.sandbox.host import jail_python
from inbounds.sandbox.identity import identity
from inbounds.sandbox.jail import spawn
from inbounds.sandbox.spec import JailLimits, JailSpec

CLASS = "resources"
REQUIREMENT = "E7"
KIND = "host"
FLOOD = "import os\nfor _ in range(32):\n    os.write(1, b'x' * 65536)\n    os.write(2, b'x' * 65536)"
KEPT_MAX = 64 << 10


def control(arena: Any) -> dict[str, Any]:
    """Standard output is a file, as with nohup."""
    with (arena.scratch / "stdout").open("wb") as out, (arena.scratch / "stderr").open("wb") as err:
        subprocess.run([jail_python(), "-I", "-c", FLOOD], stdout=out, stderr=err, check=True, timeout=20)
    return {"kept": _size(arena.scratch), "ended": "exited"}


def attack(arena: Any) -> dict[str, Any]:
    """Standard output is a pipe that is always read, and kept to a limit."""
    spec = JailSpec("coder", (jail_python(), "-I", "-c", FLOOD), cwd="/", limits=JailLimits(output_bytes=KEPT_MAX))
    jail = spawn(spec, identity=identity(str(arena.scratch)), scratch=arena.scratch)
    try:
        jail.go()
        end = jail.wait(20)
    finally:
        jail.kill()
    return {
        "kept": _size(arena.scratch),
        "ended": end.reason if end else "late",
        "wrote": end.stdout_bytes if end else 0,
    }


def _size(place: Any) -> int:
    return sum(os.path.getsize(place / name) for name in ("stdout", "stderr"))


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """How much of it is on the host's disk; the program must have come to its end, or nothing was tried."""
    said = after["said"]
    if said["ended"] != "exited":
        raise ValueError(f"the flood ended as {said['ended']}")
    return ("ESCAPED" if said["kept"] > 2 * KEPT_MAX else "BLOCKED"), f"4 MiB written, {said['kept'] >> 10} KiB kept"
