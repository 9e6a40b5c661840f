"""Which jails a drill makes: rootless ones by the supervisor's own launcher, hardened ones by the host service.

One value that runner and attack pass on; nothing else of the drill depends on the mode.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from inbounds.contracts.errors import HostError
from inbounds.sandbox.identity import Identity, identity
from inbounds.sandbox.jail import Jail, spawn
from inbounds.sandbox.spec import JailSpec


class Mode(Protocol):
    """What an attack needs of a mode."""

    @property
    def name(self) -> str:
        """The word after --mode."""

    @property
    def identity(self) -> Identity:
        """Whose files a workspace holds."""

    def spawn(self, spec: JailSpec, scratch: Path) -> Jail:
        """A sealed jail that waits for its go."""


@dataclass(frozen=True, slots=True)
class Rootless:
    """Jails as every run has them without the host service."""

    identity: Identity
    name: str = "rootless"

    def spawn(self, spec: JailSpec, scratch: Path) -> Jail:
        """As run/crew.py does."""
        return spawn(spec, identity=self.identity, scratch=scratch)


def choose(name: str, token: str) -> Mode:
    """The mode by its name; HostError where this host does not have it."""
    if name == "rootless":
        return Rootless(identity(f"drill-{token}"))
    raise HostError(
        "hardened mode is not available here", expected="the host service", fix="sudo inbounds host install"
    )
