"""User numbers for jails that root starts: which have no account, and taking one for one process, host-wide.

Imports next to nothing: it is on the path of every jail that a person waits for. Knows nothing of jails and runs.
"""

import _socket
import grp
import pwd
from collections.abc import Iterable

# Above what distributions give to people (60,000 ends useradd's range), below systemd's dynamic users (61,184).
FIRST_UID, UIDS = 60_600, 500

# Claims of this process: number -> the socket that holds it, until the process ends.
_claims: dict[int, _socket.socket] = {}


def mapped(number: int, table: str) -> bool:
    """Whether this user namespace can express `number` (a container may map only a few)."""
    with open(table) as lines:
        for line in lines:
            inside, _, count = (int(part) for part in line.split())
            if inside <= number < inside + count:
                return True
    return False


def free(number: int) -> bool:
    """Whether no account and no group has the number."""
    for lookup in (pwd.getpwuid, grp.getgrgid):
        try:
            lookup(number)
        except KeyError:
            continue
        return False
    return mapped(number, "/proc/self/uid_map") and mapped(number, "/proc/self/gid_map")


def claim(number: int) -> bool:
    """Take a number for this process alone, host-wide: an abstract socket's name exists once and dies with its owner.

    A name taken by somebody else only means the next number; jails cannot see it, their network namespace is their own.
    """
    if number in _claims:
        return False
    held = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    try:
        held.bind(f"\0inbounds-uid-{number}")
    except OSError:
        held.close()
        return False
    _claims[number] = held
    return True


def first_free(numbers: Iterable[int]) -> int:
    """Claim the first of these that is free; 0 where none is."""
    return next((number for number in numbers if free(number) and claim(number)), 0)


def turned(start: int) -> tuple[int, ...]:
    """All numbers, from the one at `start` on."""
    ours = range(FIRST_UID, FIRST_UID + UIDS)
    return (*ours[start % UIDS :], *ours[: start % UIDS])
