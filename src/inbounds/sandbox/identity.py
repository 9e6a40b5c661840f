"""Whose rights a jail has on the host: the user's own, those of nobody who has an account (started as root), a slot's.

Knows nothing of jails. The drop itself happens in the warden (sandbox/warden.py), or in the host service.
"""

import grp
import hashlib
import os
import pwd
import socket
from dataclasses import dataclass, field

from inbounds.contracts.errors import HostError
from inbounds.sandbox.hardened import Slot

# Above what distributions give to people (60,000 ends useradd's range), below systemd's dynamic users (61,184).
FIRST_UID, UIDS = 60_600, 500
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


def _mapped(number: int, table: str) -> bool:
    """Whether this user namespace can express `number` (a container may map only a few)."""
    with open(table) as lines:
        for line in lines:
            inside, _, count = (int(part) for part in line.split())
            if inside <= number < inside + count:
                return True
    return False


def _free(number: int) -> bool:
    """Whether no account and no group has the number."""
    for lookup in (pwd.getpwuid, grp.getgrgid):
        try:
            lookup(number)
        except KeyError:
            continue
        return False
    return _mapped(number, "/proc/self/uid_map") and _mapped(number, "/proc/self/gid_map")


# Claims of this process: number -> the socket that holds it, until the process ends; and what each run was given.
_claims: dict[int, socket.socket] = {}
_given: dict[str, Identity] = {}


def _claim(number: int) -> bool:
    """Take a number for this process alone, host-wide: an abstract socket's name exists once and dies with its owner.

    A name taken by somebody else only means the next number; jails cannot see it, their network namespace is their own.
    """
    if number in _claims:
        return False
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(f"\0inbounds-uid-{number}")
    except OSError:
        held.close()
        return False
    _claims[number] = held
    return True


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
    start = int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:4]) % UIDS
    ours = range(FIRST_UID, FIRST_UID + UIDS)
    for number in (*([had] if had in ours else []), *ours[start:], *ours[:start]):
        if _free(number) and _claim(number):
            return Identity(number, number, dropped=True)
    if any(_free(number) for number in ours):
        raise HostError(
            f"all {UIDS} user numbers for jails are in use",
            expected="one that no other run has",
            fix="inbounds status",
        )
    if _mapped(NOBODY, "/proc/self/uid_map") and _mapped(NOBODY, "/proc/self/gid_map"):
        return Identity(NOBODY, NOBODY, dropped=True)
    raise HostError(
        "this is root in a user namespace that maps no other user",
        expected="a user that jails can drop to",
        fix="run inbounds as an ordinary user",
    )


def in_slot(slot: Slot) -> Identity:
    """The identity of a hardened run's jails."""
    return Identity(os.getuid(), os.getgid(), dropped=False, slot=slot)
