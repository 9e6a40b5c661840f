"""Where the reviewer's scanners live on this host, and where a jail shows them, read-only.

Knows paths only; the run loop binds them. Scanners run under this program's own interpreter, isolated (-I), never under
the repository's.
"""

import importlib.util
import os
import sys
from dataclasses import dataclass

from inbounds.contracts.errors import HostError

PLACE = "/opt/inbounds/tools"


@dataclass(frozen=True, slots=True)
class Toolbox:
    """`python`: absolute path of the interpreter, which every jail shows; `sys_path`: directories with the scanners'
    packages as the jail sees them; `binds`: (host directory, its place in the jail), read-only.
    """

    python: str
    sys_path: tuple[str, ...]
    binds: tuple[tuple[str, str], ...]


def toolbox() -> Toolbox:
    """The scanners of the running installation; HostError if one is missing."""
    places: dict[str, None] = {}
    for package in ("bandit", "betterleaks", "yaml", "stevedore", "rich"):
        found = importlib.util.find_spec(package)
        if found is None or found.origin is None:
            raise HostError(f"the Python package {package} is not installed", fix="pip install inbounds")
        places[os.path.realpath(os.path.dirname(os.path.dirname(found.origin)))] = None
    # A place of their own in the jail: on the host they may lie below what the jail uses for the repository.
    inside = {path: path if path.startswith("/usr/") else f"{PLACE}/{n}" for n, path in enumerate(places)}
    binds = tuple((host, jail) for host, jail in inside.items() if host != jail)
    return Toolbox(os.path.realpath(sys.executable), tuple(inside.values()), binds)
