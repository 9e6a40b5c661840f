"""A bubblewrap that is too old, set-uid, or a stand-in of somebody's earlier in the path that just runs what it gets."""

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from inbounds.contracts.errors import HostError
from inbounds.sandbox import host

CLASS = "failopen"
REQUIREMENT = "F10"
KIND = "host"
OLD = """#!/bin/sh
case "$1" in
--help | --version) echo "bubblewrap 0.4.0 --unshare-pid --ro-bind --seccomp" ;;
*)
    while [ "$1" != "--" ]; do shift; done
    shift
    exec "$@"
    ;;
esac
"""


def _stand_in(place: Path, mode: int) -> str:
    made = place / f"bwrap-{mode:o}"
    made.write_text(OLD)
    made.chmod(mode)
    return str(made)


def control(arena: Any) -> dict[str, Any]:
    """Whoever takes the first program of that name has its command run, outside."""
    path = _stand_in(arena.scratch, 0o755)
    marker = arena.outside / "marker"
    subprocess.run([path, "--unshare-pid", "--", "touch", str(marker)], check=True, timeout=10)
    return {"taken": [path] if marker.exists() else [], "refused": []}


def attack(arena: Any) -> dict[str, Any]:
    """The real choice, with each of them as the only bubblewrap of the host, and with none."""
    taken, refused = [], []
    for found in (_stand_in(arena.scratch, 0o755), _stand_in(arena.scratch, 0o4755), str(arena.scratch / "gone"), ""):
        host.bubblewrap.cache_clear()
        with mock.patch("shutil.which", return_value=found), mock.patch.object(host, "_bundled") as other:
            other.return_value = ""
            try:
                taken.append(host.bubblewrap().path)
            except HostError as error:
                refused.append(error.found)
    return {"taken": taken, "refused": refused}


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Which of them was taken."""
    said = after["said"]
    return (
        "ESCAPED" if said["taken"] else "BLOCKED"
    ), f"taken: {said['taken'] or 'none'}; {'; '.join(said['refused'])}"
