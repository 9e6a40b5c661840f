"""A jail that can't be made, and the command that is run without one then ("a retry outside the sandbox")."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inbounds.contracts.errors import InboundsError
from inbounds.sandbox.identity import identity
from inbounds.sandbox.jail import spawn
from inbounds.sandbox.spec import Bind, JailSpec

CLASS = "failopen"
REQUIREMENT = "F10"
KIND = "host"


def _specs(marker: Path, scratch: Path) -> list[JailSpec]:
    """Jails that can't be made: each for another reason."""
    argv = ("touch", str(marker))
    (scratch / "link").symlink_to(marker.parent)
    return [
        JailSpec("coder", argv, cwd="/", binds=(Bind(str(scratch / "link"), "/work"),)),
        JailSpec("coder", argv, cwd="/", binds=(Bind(str(scratch / "gone"), "/work"),)),
        JailSpec("coder", argv, cwd="/", require=("quota_image",)),
        JailSpec("coder", argv, cwd="/", binds=(Bind("/proc", "relative"),)),
        JailSpec("coder", argv, cwd="/", deadline_ms=0),
    ]


def control(arena: Any) -> dict[str, Any]:
    """Try it in a jail; else without."""
    marker = arena.outside / "marker"
    refused = 0
    for spec in _specs(marker, arena.scratch)[:1]:
        try:
            spawn(spec, identity=identity(str(arena.scratch)), scratch=arena.scratch).kill()
        except InboundsError:
            refused += 1
            subprocess.run(spec.argv, check=True, timeout=10)
    return {"refused": refused, "tried": 1, "ran": marker.exists()}


def attack(arena: Any) -> dict[str, Any]:
    """The product has no such way: what can't be jailed is an error."""
    marker = arena.outside / "marker"
    specs = _specs(marker, arena.scratch)
    refused = 0
    for spec in specs:
        try:
            spawn(spec, identity=identity(str(arena.scratch)), scratch=arena.scratch).kill()
        except InboundsError:
            refused += 1
    return {"refused": refused, "tried": len(specs), "ran": marker.exists()}


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Whether the command ran anywhere."""
    said = after["said"]
    words = f"{said['refused']} of {said['tried']} refused, the command {'ran' if said['ran'] else 'did not run'}"
    return ("ESCAPED" if said["ran"] or said["refused"] < said["tried"] else "BLOCKED"), words
