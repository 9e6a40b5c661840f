"""How a small program of ours gives up, for good, what its row of rights does not name.

`begin` comes first of all, before a secret arrives; `seal` after everything is open and before the first thread. Both
say mechanism -> "enforced" or "absent: why", measured by an attempt; the supervisor decides whether that is enough.
"""

import contextlib
import errno
import functools
import os
import platform
import resource
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass

from inbounds.contracts.errors import HostError
from inbounds.program import landlock, seccomp
from inbounds.program.libc import prctl, prctl_filter, syscall

# linux/prctl.h
PR_GET_DUMPABLE, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS = 3, 4, 22, 38, 39
SECCOMP_MODE_FILTER = 2

ENFORCED = "enforced"
STANDARD = (0, 1, 2)
DNS_PORT = 53

# Read behind the seal by getaddrinfo, TLS and time zones; nothing of a home directory or a repository.
NAMES_AND_TLS = (
    *("/usr", "/lib", "/lib64", "/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/resolv.conf", "/etc/hosts"),
    *("/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/localtime", "/etc/ld.so.cache"),
    *("/etc/services", "/etc/protocols", "/dev/urandom", "/dev/null"),
)

# What the measuring tries. A device that anybody may write and that no row names; a port that no row has (discard).
UNNAMED_FILE = "/dev/zero"
UNNAMED_PORT = 9
NO_PROCESS = 0x7FFFFFFF  # above the kernel's highest process id
PTRACE_ATTACH = 16


@dataclass(frozen=True, slots=True)
class Rights:
    """What is left to a program; everything not named here is gone. A row stands in each program's `rights.py`.

    `read`, `execute`: files, or directories with all below them; `write`: files whose content may change; `own`:
    directories below which anything may be made, changed and removed. `connect`: TCP ports, names included; none
    means no sockets either. `threads`: more may be started. `descriptors_max`: how many may be open at once.
    `memory_bytes_max`: of its own data; beyond it the program fails, and with it what it guards, closed.
    """

    read: tuple[str, ...] = ()
    execute: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    connect: tuple[int, ...] = ()
    threads: bool = False
    descriptors_max: int | None = None
    memory_bytes_max: int | None = None


def code() -> tuple[str, ...]:
    """Where Python and our packages lie, for a program that imports behind its seal."""
    return tuple(sorted({sys.prefix, sys.base_prefix, *(path for path in sys.path if path)}))


def resolver() -> tuple[str, ...]:
    """Where /etc/resolv.conf really is: a directory, because it is replaced when the network changes."""
    real = os.path.dirname(os.path.realpath("/etc/resolv.conf"))
    return () if real == "/etc" else (real,)


def begin(*keep: int) -> dict[str, str]:
    """No core, no reading of our memory, no new privileges, no descriptor but the standard three and `keep`.

    HostError where the kernel refuses: it has had all of these for longer than Python 3.11 runs on.
    """
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        prctl(PR_SET_DUMPABLE, 0)
        prctl(PR_SET_NO_NEW_PRIVS, 1)
    except (OSError, ValueError) as error:
        raise HostError(f"the kernel refuses a program to bound itself: {error}", where="seal") from None
    _close_others({*STANDARD, *keep})
    others = _descriptors() - {*STANDARD, *keep}
    return {
        "non_dumpable": _verdict(prctl(PR_GET_DUMPABLE) == 0, "the kernel shows it as dumpable"),
        "no_new_privs": _verdict(prctl(PR_GET_NO_NEW_PRIVS) == 1, "the kernel does not show the flag"),
        "no_core": _verdict(resource.getrlimit(resource.RLIMIT_CORE) == (0, 0), "the limit is not zero"),
        "closed_descriptors": _verdict(not others, f"{len(others)} others are open"),
    }


def seal(rights: Rights) -> dict[str, str]:
    """Leave this process `rights` and nothing else. HostError where the kernel refuses what it says it can do.

    Call before any thread starts: Landlock and seccomp bind the caller and what it starts, not its siblings.
    """
    if rights.descriptors_max is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (rights.descriptors_max, rights.descriptors_max))
    if rights.memory_bytes_max is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (rights.memory_bytes_max, rights.memory_bytes_max))
    # Landlock is tried before the filter is on, which would refuse the same attempts by itself.
    return {**_landlock(rights), "seccomp": _seccomp(rights)}


def _close_others(keep: set[int]) -> None:
    """CVE-2024-21626: an inherited descriptor is a way out."""
    for descriptor in _descriptors() - keep:
        with contextlib.suppress(OSError):  # closed meanwhile
            os.close(descriptor)


def _descriptors() -> set[int]:
    """Those that are open; the listing's own is closed by the time it is looked at."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            os.fstat(int(name))
            found.add(int(name))
    return found


def _verdict(holds: bool, why: str) -> str:
    return ENFORCED if holds else f"absent: {why}"


def _landlock(rights: Rights) -> dict[str, str]:
    version = landlock.abi()
    if not version:
        why = "absent: this kernel has no Landlock, or it is switched off"
        return dict.fromkeys(("landlock_files", "landlock_network", "landlock_scopes"), why)
    paths = [
        *((path, landlock.READ) for path in rights.read),
        *((path, landlock.EXECUTE) for path in rights.execute),
        *((path, landlock.WRITE) for path in rights.write),
        *((path, landlock.OWN) for path in rights.own),
    ]
    with socket.socket(socket.AF_UNIX) as outside, socket.socket(socket.AF_UNIX) as inside:
        outside.bind("")  # a name in the abstract namespace that the kernel chooses
        outside.listen(1)
        try:
            landlock.restrict(version, paths, (*rights.connect, DNS_PORT) if rights.connect else ())
        except OSError as error:
            raise HostError(f"Landlock (ABI {version}) is refused: {error}", where="seal") from None
        return {
            "landlock_files": _attempt(_write_unnamed, errno.EACCES),
            "landlock_network": _attempt(lambda: _connect_unnamed(rights.connect), errno.EACCES)
            if version >= landlock.ABI_TCP
            else f"absent: the kernel's Landlock ABI is {version}, TCP needs {landlock.ABI_TCP}",
            "landlock_scopes": _attempt(lambda: inside.connect(outside.getsockname()), errno.EPERM)
            if version >= landlock.ABI_SCOPES
            else f"absent: the kernel's Landlock ABI is {version}, scopes need {landlock.ABI_SCOPES}",
        }


def _attempt(act: Callable[[], object], refusal: int) -> str:
    """Try what must be refused with this errno."""
    try:
        act()
    except OSError as error:
        return _verdict(error.errno == refusal, f"what must be refused gave: {error.strerror}")
    return "absent: what must be refused succeeded"


def _write_unnamed() -> None:
    os.close(os.open(UNNAMED_FILE, os.O_WRONLY | os.O_CLOEXEC))


def _connect_unnamed(named: tuple[int, ...]) -> None:
    port = next(port for port in range(UNNAMED_PORT, 1 << 16) if port not in {*named, DNS_PORT})
    with socket.socket() as probe:
        probe.setblocking(False)
        probe.connect(("127.0.0.1", port))


def _seccomp(rights: Rights) -> str:
    machine = platform.machine()
    allowed = seccomp.Allowed(
        files=bool(rights.read or rights.write or rights.own),
        programs=bool(rights.execute),
        threads=rights.threads,
        sockets=bool(rights.connect),
    )
    steps = seccomp.instructions(machine, allowed)
    if steps is None:
        return f"absent: no filter for {machine}"
    try:
        prctl_filter(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, b"".join(steps), len(steps))
    except OSError as error:
        if error.errno == errno.EINVAL:
            return "absent: this kernel has no seccomp filters"
        raise HostError(f"the seccomp filter is refused: {error}", where="seal") from None
    column, _ = seccomp.ARCHITECTURES[machine]
    # Arguments that the kernel refuses in another way where the filter lets them pass.
    tried = [(seccomp.NEVER["ptrace"], (PTRACE_ATTACH, NO_PROCESS, 0, 0))]
    tried += [] if allowed.programs else [(seccomp.PROGRAMS["execve"], (0, 0, 0, 0))]
    tried += [(seccomp.SOCKETS["socket"], (socket.AF_NETLINK, 0, 0, 0))]
    for numbers, arguments in tried:
        number = numbers[column]
        assert number is not None, "the call exists on both architectures"
        found = _attempt(functools.partial(syscall, number, *arguments), errno.EPERM)
        if found != ENFORCED:
            return found
    return ENFORCED
