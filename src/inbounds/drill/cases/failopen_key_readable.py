"""Key files that others can read, write or swap: mode 0644, a group's, a link to somebody's file, a directory's entry."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inbounds.contracts.errors import HostError
from inbounds.gateway.keys import KeyStore
from inbounds.journal import signing

CLASS = "failopen"
REQUIREMENT = "G1"
KIND = "host"
SECRET = "sk-drill-0123456789abcdef"
PERMISSIONS = (0o644, 0o640, 0o604, 0o660, 0o606, 0o622)


def _key(directory: Path, mode: int) -> Path:
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / "anthropic"
    path.unlink(missing_ok=True)
    path.write_text(SECRET)
    path.chmod(mode)
    return path


def control(arena: Any) -> dict[str, Any]:
    """Read it."""
    taken = [f"{mode:o}" for mode in PERMISSIONS if _key(arena.scratch / "keys", mode).read_text() == SECRET]
    return {"taken": taken, "good": True}


def attack(arena: Any) -> dict[str, Any]:
    """The real store of provider keys, and the reader of the key that signs journals."""
    keys = Path(arena.scratch) / "keys"
    store = KeyStore(keys, {})
    taken = []
    for mode in PERMISSIONS:
        _key(keys, mode)
        taken += [f"{mode:o}"] if _reads(lambda: store.get("anthropic")) else []
    _key(keys, 0o600).rename(keys / "elsewhere")
    (keys / "anthropic").symlink_to(keys / "elsewhere")
    taken += ["a link"] if _reads(lambda: store.get("anthropic")) else []
    (keys / "anthropic").unlink()
    _key(keys, 0o600)
    good = store.get("anthropic") == SECRET
    signed = Path(arena.scratch) / "signing"
    signing.read_key(signed)
    for mode in PERMISSIONS:
        os.chmod(signed / "journal.key", mode)
        taken += [f"journal.key {mode:o}"] if _reads(lambda: signing.read_key(signed)) else []
    return {"taken": taken, "good": good}


def _reads(read: Any) -> bool:
    try:
        return read() is not None
    except HostError:
        return False


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Which of them was used; the one of mode 0600 must be."""
    said = after["said"]
    if not said["good"]:
        raise ValueError("a key of mode 0600 is not used")
    return ("ESCAPED" if said["taken"] else "BLOCKED"), f"used: {', '.join(said['taken']) or 'none'}"
