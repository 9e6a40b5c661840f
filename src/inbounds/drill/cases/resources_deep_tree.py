"""A directory tree 1,400 levels deep, left for the host to look over and to delete: recursion ends there, and every
program that names paths whole.
"""

import os
import shutil
from collections.abc import Mapping
from typing import Any

from inbounds.store import descent, walk

CLASS = "resources"
REQUIREMENT = "I2"
KIND = "host"
LEVELS = 1_400  # three bytes each: beyond PATH_MAX, so that no program that names paths whole gets there


def _dig(top: Any) -> None:
    """Make the tree, by descriptors; a file lies at its bottom."""
    top.mkdir()
    here = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(LEVELS):
        os.mkdir("dd", dir_fd=here)
        below = os.open("dd", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("payload", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=here))
    os.close(here)


def control(arena: Any) -> dict[str, Any]:
    """The standard library's own way to look and to delete."""
    top = arena.scratch / "tree"
    _dig(top)
    trouble = []
    try:
        seen = any("payload" in names for _, _, names in os.walk(top))
        trouble += [] if seen else ["the file at the bottom was not seen"]
        shutil.rmtree(top)
    except (RecursionError, OSError) as error:
        trouble.append(type(error).__name__)
    return {"left": top.exists(), "trouble": trouble}


def attack(arena: Any) -> dict[str, Any]:
    """The store's way."""
    top = arena.scratch / "tree"
    _dig(top)
    handle = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    found = walk.scan(handle, walk.Limits())
    os.close(handle)
    judged = not found.reasons or found.reasons[0].kind
    counted = descent.usage(str(top))
    descent.delete_tree(str(top))
    return {"left": top.exists(), "trouble": [], "judged": judged, "inodes": counted.inodes}


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Whether anything is left, or was not seen."""
    said = after["said"]
    words = f"{LEVELS} levels: {'something is left' if said['left'] else 'deleted'}, {said['trouble'] or 'no trouble'}"
    unseen = said.get("inodes", LEVELS) < LEVELS and said.get("judged") is True
    return ("ESCAPED" if said["left"] or said["trouble"] or unseen else "BLOCKED"), f"{words}, {said.get('judged')}"
