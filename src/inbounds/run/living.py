"""The supervisors that live on this host and what runs in their jails, seen from outside; and how that is halted.

Everything is looked up in /proc and proven there before anything is signalled: whose process it is, which run it is of,
that a jail's process descends from that run's supervisor. Knows nothing of why.
"""

import json
import os
import signal
import stat
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from inbounds.contracts.errors import HostError
from inbounds.contracts.ids import RUN_ID
from inbounds.run.slotfile import number_of
from inbounds.sandbox.census import Process, look, send, tasks

MODULE = (b"-m", b"inbounds.run")
COMMAND_BYTES_MAX = 8 << 10  # of a supervisor's: its flags and one path
STATUS_BYTES_MAX = 16 << 10
LOCK_BYTES_MAX = 256
# How long the processes of all jails may take to stop; a jail that makes them faster than they are found is killed.
FREEZE_S = 0.5
HURRY_NICE = -10  # ten times the share of an ordinary process, below what a system's own real-time work has
QUIET_LOOKS = 2  # looks in a row that find nobody at large: one alone may miss who changed its parent just then


@dataclass(frozen=True, slots=True)
class Living:
    """A supervisor: its process, whose it is, and the run that it is of."""

    process: Process
    uid: int
    run_dir: Path

    @property
    def alive(self) -> bool:
        """Whether it still is (and not another process with its number)."""
        now = look(self.process.pid)
        return now is not None and now.started == self.process.started and not now.ended


@dataclass(frozen=True, slots=True)
class Jailed:
    """A process in a jail; `inside` is its number there, 1 for the jail's own first process."""

    process: Process
    inside: int


def hurry() -> None:
    """Go before everything else that wants a processor, where this user may: what is to be stopped is at work.

    Where the kernel weighs sessions first and processes within them (autogroup), this session, too.
    """
    with suppress(OSError):  # an ordinary user may not, and waits in line like others
        os.setpriority(os.PRIO_PROCESS, 0, HURRY_NICE)
        with open("/proc/self/autogroup", "wb", buffering=0) as weight:
            weight.write(str(HURRY_NICE).encode())


def supervisors() -> list[Living]:
    """Every process of this PID namespace that is a supervisor by its command line and by what it names.

    The run's directory must belong to the process's own user, be 0700, and have no lock that names another process. A
    process of a nested namespace is none: whatever a jailed program calls itself, it does not show here.
    """
    depth = len(_numbers(os.getpid()))
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        process = look(int(name))
        run_dir = _run_dir(process.pid) if process else None
        if process is None or run_dir is None:
            continue
        uid = _owner(process.pid)
        if len(_numbers(process.pid)) == depth and _is_of(run_dir, uid, process.pid):
            found.append(Living(process, uid, run_dir))
    return found


def jailed(chosen: Iterable[Living]) -> dict[Path, list[Jailed]]:
    """The processes in each supervisor's jails now: those of its descendants that are in a PID namespace of their own.

    Orphans of a PID namespace become children of its first process, so that descent is membership.
    """
    everybody = [process for name in os.listdir("/proc") if name.isdigit() and (process := look(int(name)))]
    children: dict[int, list[Process]] = {}
    for process in everybody:
        children.setdefault(process.parent, []).append(process)
    depth = len(_numbers(os.getpid()))
    found: dict[Path, list[Jailed]] = {}
    for one in chosen:
        family = [p for p in everybody if (p.pid, p.started) == (one.process.pid, one.process.started)]
        inside: list[Jailed] = []
        for process in family:  # grows while it is gone through
            family += children.get(process.pid, ())
            numbers = _numbers(process.pid)
            if len(numbers) > depth:
                inside.append(Jailed(process, numbers[-1]))
        found[one.run_dir] = inside
    return found


def freeze(chosen: Sequence[Living], seconds: float = FREEZE_S) -> dict[Path, str]:
    """Have no program in any of their jails execute any more: "SIGSTOP", "cgroup.freeze", "killed", "no jail" for each.

    The jails' first processes are our own and go on: a supervisor that is just making a jail waits for what they say.
    Memory, files and descriptors stay as they are. What a supervisor starts afterwards, another call finds. Those in a
    slot are the host service's to freeze, and nothing begins there afterwards.
    """
    how: dict[Path, str] = {one.run_dir: "no jail" for one in chosen} | _in_slots(chosen, kill=False)
    until, quiet = time.monotonic() + seconds, 0
    at_large: dict[Path, list[Jailed]] = {}
    while quiet < QUIET_LOOKS and time.monotonic() < until:
        at_large = {place: [one for one in all_ if _at_large(one)] for place, all_ in jailed(chosen).items()}
        for place, found in at_large.items():
            for one in found:
                how[place] = "SIGSTOP"
                with suppress(PermissionError):  # then it stays at large, and its jail is killed
                    send(one.process, signal.SIGSTOP)
        quiet = 0 if any(at_large.values()) else quiet + 1
    if quiet < QUIET_LOOKS:
        stubborn = [one for one in chosen if at_large.get(one.run_dir)]
        kill(stubborn)
        how |= {one.run_dir: "killed" for one in stubborn}
    return how


def kill(chosen: Sequence[Living]) -> int:
    """SIGKILL the first process of each of their jails, with which the kernel ends all others; how many there were.

    A slot that is empty now, by the host service's word, counts as one.
    """
    ended = len(_in_slots(chosen, kill=True))
    for found in jailed(chosen).values():
        for one in found:
            if one.inside == 1:
                with suppress(PermissionError):  # whoever asks looks again, and says that it lives
                    send(one.process, signal.SIGKILL)
                    ended += 1
    return ended


def _in_slots(chosen: Sequence[Living], *, kill: bool) -> dict[Path, str]:
    """What the host service has done to the slots that these runs have, for those that have one; see hardened.halt."""
    slots: dict[int, Path] = {}
    for one in chosen:
        with suppress(HostError):  # its record is no record: whoever asks looks again, and says what lives
            if (number := number_of(one.run_dir)) is not None:
                slots[number] = one.run_dir
    if not slots:
        return {}
    from inbounds.sandbox import hardened  # not loaded before a freeze that needs nothing of it

    return {slots[number]: how for number, how in hardened.halt(list(slots), kill=kill).items()}


def terminate(one: Living) -> bool:
    """Ask another user's supervisor for an orderly stop by the signal that ends a service; False where it is gone."""
    try:
        pidfd = os.pidfd_open(one.process.pid)
    except ProcessLookupError:
        return False
    try:
        if not one.alive:
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


def _at_large(one: Jailed) -> bool:
    return one.inside != 1 and any(task.runs for task in tasks(one.process))


def _run_dir(pid: int) -> Path | None:
    """The directory that a supervisor's command line names; None for every other process."""
    parts = _read(f"/proc/{pid}/cmdline", COMMAND_BYTES_MAX).split(b"\0")
    for place in range(len(parts) - len(MODULE)):
        if tuple(parts[place : place + len(MODULE)]) == MODULE:
            path = os.fsdecode(parts[place + len(MODULE)])
            return Path(path) if os.path.isabs(path) and RUN_ID.fullmatch(os.path.basename(path)) else None
    return None


def _owner(pid: int) -> int:
    """The process's effective user, -1 where it is gone. (Its /proc directory is root's: it is not dumpable.)"""
    for line in _read(f"/proc/{pid}/status", STATUS_BYTES_MAX).split(b"\n"):
        if line.startswith(b"Uid:"):
            return int(line.split()[2])
    return -1


def _numbers(pid: int) -> list[int]:
    """The process's number in each PID namespace that it is in, from this one inwards; [] where it is gone."""
    for line in _read(f"/proc/{pid}/status", STATUS_BYTES_MAX).split(b"\n"):
        if line.startswith(b"NSpid:"):
            return [int(number) for number in line.split()[1:]]
    return []


def _is_of(run_dir: Path, uid: int, pid: int) -> bool:
    try:
        info = os.lstat(run_dir)
    except OSError:
        return False  # not there, or not ours to see
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != uid or stat.S_IMODE(info.st_mode) & 0o077:
        return False
    said = _read(str(run_dir / "journal.lock"), LOCK_BYTES_MAX)
    if not said:
        return True  # it is about to take it
    try:
        return int(json.loads(said)["pid"]) == pid
    except (ValueError, KeyError, TypeError):
        return False


def _read(path: str, limit: int) -> bytes:
    """The first bytes of a file; b"" where it is gone or not ours to read. Follows no link, waits for no pipe."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.read(fd, limit)
    except OSError:
        return b""
    finally:
        os.close(fd)
