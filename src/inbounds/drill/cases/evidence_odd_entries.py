"""What a workspace may hold beside files: a pipe that whoever opens it waits at, a socket, a link to a secret outside, a
name that is no text, a file that nobody may read.
"""

import os
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inbounds.sandbox.volume import Volume
from inbounds.store.store import Store

CLASS = "evidence"
REQUIREMENT = "H15"
KIND = "host"
SECRET = b"outside-secret-c0ffee"


def _leave(root: Path, outside: Path) -> None:
    """What the agent leaves."""
    (outside / "secret").write_bytes(SECRET)
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as made:
        here = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        made.bind(f"/proc/self/fd/{here}/socket")  # a socket's path must be short
        os.close(here)
    (root / "link").symlink_to(outside / "secret")
    (root / "up").symlink_to("../../../../../../../../etc")
    with open(os.fsencode(root) + b"/caf\xe9", "wb") as file:
        file.write(b"x")


def control(arena: Any) -> dict[str, Any]:
    """Open every entry and read it, as a copy does."""
    root = Path(arena.scratch) / "work"
    root.mkdir()
    _leave(root, arena.outside)
    read: list[bytes] = []

    def copy() -> None:
        for entry in sorted(os.scandir(os.fsencode(root)), key=lambda entry: entry.name):
            if entry.name in {b"link", b"pipe"}:
                with open(entry.path, "rb") as file:
                    read.append(file.read())

    copying = threading.Thread(target=copy, daemon=True)
    copying.start()
    copying.join(0.5)
    return {"ended": not copying.is_alive(), "leaked": SECRET in read, "complete": True, "named": []}


def attack(arena: Any) -> dict[str, Any]:
    """The real snapshot of a real workspace."""
    store = Store.create(str(arena.scratch / "store.git"))
    tree = store.replace(store.git("mktree"), {"app/a.py": store.write_blob(b"x = 1\n")})
    volume = Volume.prepare(store, tree, "app", [], str(arena.scratch / "volume"))
    if not volume.snapshot().complete:
        raise ValueError("an untouched workspace can't be taken")
    _leave(Path(volume.root), arena.outside)
    taken = volume.snapshot()
    kept = [store.read_blob(node.blob) for node in store.ls(taken.tree)]
    named = [*taken.foreign, *taken.links_out]
    return {"ended": True, "leaked": SECRET in kept, "complete": taken.complete, "named": named, "why": taken.why}


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Whether it came to an end, took nothing from outside, and said that it could not take everything."""
    said = after["said"]
    words = f"ended: {said['ended']}, leaked: {said['leaked']}, complete: {said['complete']}, {said.get('why', '')}"
    good = said["ended"] and not said["leaked"] and not said["complete"] and len(said["named"]) > 1
    return ("DETECTED" if good else "ESCAPED"), words
