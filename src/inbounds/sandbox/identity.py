"""Whose rights a jail has on the host: the user's own, those of nobody who has an account (started as root), a slot's.

Knows nothing of jails. The drop itself happens in the warden (sandbox/warden.py), or in the host service.
"""

import hashlib
import os
from dataclasses import dataclass, field

from inbounds.contracts.errors import HostError
from inbounds.sandbox.hardened import Slot
from inbounds.sandbox.numbers import UIDS, first_free, free, mapped, turned

NOBODY = 65_534


@dataclass(frozen=True, slots=True)
class Identity:
    """Numeric user and group of a jail; `dropped` says that they are not the supervisor's own.

    Whatever a jail may write must belong to them before it starts. With a `slot` (hardened mode) the jail is the slot's
    user; uid and gid are then the supervisor's own, because the volume's view shows its files as theirs.
    """

    uid: int
    gid: int
    dropped: bool
    slot: Slot | None = field(default=None, compare=False, repr=False)

    @property
    def staged(self) -> bool:
        """Whether a jail's sources are put in place before bubblewrap starts, and not given to it by descriptor."""
        return self.dropped or self.slot is not None


# What each run was given by this process.
_given: dict[str, Identity] = {}


def identity(run_id: str = "", had: int | None = None) -> Identity:
    """The identity for a run's jails; as root a number without an account, which no other run of this host has now.

    `had` is the number that a supervisor before this one gave the run's files: it comes first, if it is free again.
    The same for a run as long as this process lives. HostError where this user namespace maps nobody but root, or
    where every number is taken.
    """
    if run_id not in _given:
        _given[run_id] = _choose(run_id, had)
    return _given[run_id]


def _choose(run_id: str, had: int | None) -> Identity:
    if os.getuid() != 0:
        return Identity(os.getuid(), os.getgid(), dropped=False)
    ours = turned(int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:4]))
    if number := first_free((*([had] if had in ours else []), *ours)):
        return Identity(number, number, dropped=True)
    if any(free(number) for number in ours):
        raise HostError(
            f"all {UIDS} user numbers for jails are in use",
            expected="one that no other run has",
            fix="inbounds status",
        )
    if mapped(NOBODY, "/proc/self/uid_map") and mapped(NOBODY, "/proc/self/gid_map"):
        return Identity(NOBODY, NOBODY, dropped=True)
    raise HostError(
        "this is root in a user namespace that maps no other user",
        expected="a user that jails can drop to",
        fix="run inbounds as an ordinary user",
    )


def in_slot(slot: Slot) -> Identity:
    """The identity of a hardened run's jails."""
    return Identity(os.getuid(), os.getgid(), dropped=False, slot=slot)
