"""A policy that asks for a mechanism nobody has heard of, by a slip or from a newer version: it can't be in force."""

from collections.abc import Mapping
from typing import Any

from inbounds.contracts.errors import HostError
from inbounds.sandbox.identity import identity
from inbounds.sandbox.jail import spawn
from inbounds.sandbox.spec import MECHANISMS, REQUIRED, JailSpec

CLASS = "failopen"
REQUIREMENT = "F10"
KIND = "host"
ASKED = "landlok_files"


def control(_: Any) -> dict[str, Any]:
    """Whoever looks up those that are known, and checks these."""
    wanted = {name: True for name in MECHANISMS if name in {ASKED, *REQUIRED}}
    return {"refused": "" if all(wanted.values()) else "missing"}


def attack(arena: Any) -> dict[str, Any]:
    """The real jail."""
    spec = JailSpec("coder", ("true",), cwd="/", require=(*REQUIRED, ASKED))
    try:
        spawn(spec, identity=identity(str(arena.scratch)), scratch=arena.scratch).kill()
    except HostError as error:
        return {"refused": error.found}
    return {"refused": ""}


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """Whether a jail is made."""
    refused = after["said"]["refused"]
    return ("BLOCKED", refused) if refused else ("ESCAPED", f"a jail is made though {ASKED} was asked for")
