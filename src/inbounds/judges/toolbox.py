"""Where the reviewer's scanners live on this host, so that a jail can show them read-only at the same paths.

Knows paths only; the run loop binds them. Scanners run under this program's own interpreter, isolated (-I), never under
the repository's.
"""

import importlib.util
import os
import sys
from dataclasses import dataclass

from inbounds.contracts.errors import HostError


@dataclass(frozen=True, slots=True)
class Toolbox:
    """`python`: absolute path of the interpreter; `sys_path`: directories with the scanners' packages;
    `binds`: host directories to show read-only at the same path (those of /usr are in every jail already).
    """

    python: str
    sys_path: tuple[str, ...]
    binds: tuple[str, ...]


def toolbox() -> Toolbox:
    """The scanners of the running installation; HostError if one is missing."""
    places: dict[str, None] = {}
    for package in ("bandit", "betterleaks", "yaml", "stevedore", "rich"):
        found = importlib.util.find_spec(package)
        if found is None or found.origin is None:
            raise HostError(f"the Python package {package} is not installed", fix="pip install inbounds")
        places[os.path.realpath(os.path.dirname(os.path.dirname(found.origin)))] = None
    python = os.path.realpath(sys.executable)
    binds = dict.fromkeys(places)
    base = os.path.realpath(sys.base_prefix)
    if base != "/usr":
        binds[base] = None
    outside = tuple(path for path in binds if not path.startswith("/usr/"))
    return Toolbox(python, tuple(places), outside)
