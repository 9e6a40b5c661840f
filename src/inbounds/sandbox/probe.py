"""What this host really enforces, found by making a jail and asking its PID 1; never by version numbers.

For `inbounds doctor` and preflight. Knows nothing of policies.
"""

import ctypes
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from inbounds.contracts.errors import HostError
from inbounds.sandbox import maturity
from inbounds.sandbox.hardened import Slot
from inbounds.sandbox.host import bubblewrap
from inbounds.sandbox.identity import Identity, identity, in_slot
from inbounds.sandbox.jail import spawn
from inbounds.sandbox.namespaces import namespaces_forbidden
from inbounds.sandbox.spec import MECHANISMS, JailSpec

SYS_LANDLOCK_CREATE_RULESET = 444
LANDLOCK_CREATE_RULESET_VERSION = 1
TRUE_SECONDS_MAX = 20


@dataclass(frozen=True, slots=True)
class HostFacts:
    """level: the highest that rootless jails here support (0: no jail can be made). fix: what to type, if anything.

    enforcement: mechanism -> "enforced" or "absent: why". lacking: what stands in the way of the next level.
    """

    machine: str
    kernel: str
    bubblewrap: str
    landlock_abi: int
    level: int
    enforcement: Mapping[str, str]
    lacking: tuple[str, ...] = ()
    problem: str = ""
    fix: str = ""
    identity: Identity = field(default_factory=identity)


def landlock_abi() -> int:
    """The kernel's Landlock ABI; 0 where there is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(ctypes.c_long(SYS_LANDLOCK_CREATE_RULESET), None, ctypes.c_size_t(0), 1)
    return max(0, int(version))


def _unavailable(why: str) -> dict[str, str]:
    return dict.fromkeys(MECHANISMS, f"absent: {why}")


def probe(slot: Slot | None = None) -> HostFacts:
    """Try everything once, in a jail of the `slot` where there is one; never raises for what a host lacks."""
    abi = landlock_abi()
    machine, kernel = platform.machine(), platform.release()
    try:
        who = in_slot(slot) if slot else identity()
    except HostError as error:  # root of a container that maps nobody else
        me = Identity(os.getuid(), os.getgid(), dropped=False)
        return HostFacts(machine, kernel, "", abi, 0, _unavailable(error.found), (), error.found, error.fix, me)
    try:
        wrapped = bubblewrap()
    except HostError as error:
        return HostFacts(machine, kernel, "", abi, 0, _unavailable(error.found), (), error.found, error.fix, who)
    version = f"{wrapped.version} ({wrapped.path})"
    forbidden = namespaces_forbidden(who)
    if forbidden:
        problem = f"user namespaces are forbidden: {forbidden.why}"
        return HostFacts(machine, kernel, version, abi, 0, _unavailable(problem), (), problem, forbidden.fix, who)
    try:
        found = _try(who)
    except HostError as error:
        return HostFacts(machine, kernel, version, abi, 0, _unavailable(error.found), (), error.found, error.fix, who)
    most = maturity.LEVEL_MAX if slot else maturity.LEVEL_ROOTLESS_MAX
    got = maturity.reached(found, most)
    lacking = got.lacking if got.level < most else ()
    return HostFacts(machine, kernel, version, abi, got.level, found, lacking, identity=who)


def _try(who: Identity) -> Mapping[str, str]:
    """Run `true` in a jail that requires nothing; what its PID 1 measured."""
    with tempfile.TemporaryDirectory(prefix="inbounds-probe-") as scratch:
        spec = JailSpec(role="probe", argv=("true",), cwd="/", deadline_ms=TRUE_SECONDS_MAX * 1000, require=())
        jail = spawn(spec, identity=who, scratch=Path(os.path.realpath(scratch)))
        try:
            jail.go()
            end = jail.wait(TRUE_SECONDS_MAX)
        finally:
            jail.kill()
        if end is None or end.reason != "exited" or end.exit_code != 0:
            raise HostError(f"a jail with nothing in it did not end well: {end}")
        return jail.enforcement
