"""What a person asks of a running supervisor: small files in the run's directory, read at every tick.

A file works at any path length and after a restart, where a socket would not; the directory is 0700, so that only the
operator's own uid (and root) can ask. It stays until the journal holds what it asks for, so that no death in between
loses a person's word. Knows nothing of what a request leads to.
"""

import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inbounds.contracts.errors import HostError

STOP = "stop.request"
AMEND = "amend.request"
BYTES_MAX = 64 << 10  # a reason is a sentence
TEXT_MAX = 2_000
WAKE = signal.SIGURG  # ignored by whoever does not listen for it, so that it can harm nobody


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it was found; `mark` (inode, time of change) tells it from one that was left since."""

    path: Path
    mark: tuple[int, int]
    said: dict[str, Any]

    def drop(self) -> bool:
        """Remove it, unless another one has taken its place meanwhile; False where it stays and cannot be removed."""
        try:
            if _mark(self.path.lstat()) == self.mark:
                self.path.unlink()
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True


def ask_stop(
    run_dir: Path,
    *,
    who: str,
    why: str,
    incident: bool = False,
    incident_id: str = "",
    hold: tuple[int, str] = (0, ""),
    at_once: bool = True,
) -> None:
    """Leave a stop request; written whole or not at all. Without `at_once` nobody is woken: see `wake`.

    `hold` (Unix milliseconds, a path): until then or until that file is there, nothing slow follows the sealed stop
    event, because other runs are not sealed yet.
    """
    said = {"who": who[:TEXT_MAX], "why": why[:TEXT_MAX], "incident": incident, "at_ms": time.time_ns() // 1_000_000}
    if incident_id:
        said |= {"incident_id": incident_id, "hold": list(hold)}
    _leave(run_dir, STOP, said, instead=f"kill -TERM {_writer(run_dir)}", at_once=at_once)


def ask_amendment(run_dir: Path, statement: dict[str, Any], signature: str) -> None:
    """Leave a signed amendment for the supervisor, which looks at the signature again."""
    _leave(run_dir, AMEND, {"statement": statement, "signature": signature}, instead=f"df -h {run_dir}")


def find_stop(run_dir: Path) -> Asked | None:
    """The stop request, if there is one: operator.stopped's data, and under `hold` what is no part of it."""
    found = _find(run_dir / STOP)
    return found and replace(found, said=_stop(found.said))


def find_amendment(run_dir: Path) -> Asked | None:
    """A request to amend, if there is one, unread ({} for one that is no object)."""
    return _find(run_dir / AMEND)


def forget(run_dir: Path, before_ns: int) -> None:
    """Remove what was asked before that time (Unix nanoseconds) of a leg that is over: a later word opened this one."""
    for name in (STOP, AMEND):
        with suppress(FileNotFoundError):
            if (run_dir / name).stat().st_mtime_ns < before_ns:
                (run_dir / name).unlink()


def _stop(asked: dict[str, Any]) -> dict[str, Any]:
    try:
        who, why, incident = str(asked["who"])[:TEXT_MAX], str(asked["why"])[:TEXT_MAX], asked["incident"] is True
    except KeyError:  # whoever put it there wanted a stop
        who, why, incident = "unknown", "a stop request that could not be read", False
    named = {"incident_id": str(asked["incident_id"])[:TEXT_MAX]} if "incident_id" in asked else {}
    match asked.get("hold"):
        case [int(until_ms), str(record)]:
            hold = (until_ms, record)
        case _:
            hold = (0, "")
    return {"who": who, "why": why, "incident": incident, "hold": hold, **named}


def wake(run_dir: Path) -> None:
    """Have the supervisor look now and not at its next tick; it looks anyway, so that nothing depends on this."""
    pid = _writer(run_dir)
    if pid.isdigit():
        with suppress(OSError):  # it ended meanwhile: whoever asked will see
            os.kill(int(pid), WAKE)


def _leave(run_dir: Path, name: str, said: dict[str, Any], *, instead: str, at_once: bool = True) -> None:
    temporary = run_dir / f".{name}.{os.getpid()}"
    try:
        temporary.write_text(json.dumps(said), encoding="utf-8")
        temporary.replace(run_dir / name)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise HostError(
            f"the request cannot be written: {error.strerror}",
            where=str(run_dir),
            expected="room for a line",
            fix=instead,
        ) from error
    if at_once:
        wake(run_dir)


def _find(path: Path) -> Asked | None:
    """The file, with {} for what cannot be read; it is looked at for as long as it is there."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            mark, raw = _mark(os.fstat(file.fileno())), file.read(BYTES_MAX)
    except FileNotFoundError:
        return None
    except OSError:
        try:
            return Asked(path, _mark(path.lstat()), {})
        except FileNotFoundError:
            return None
    try:
        said = json.loads(raw)
    except (ValueError, RecursionError):
        said = {}
    return Asked(path, mark, said if isinstance(said, dict) else {})


def _mark(about: os.stat_result) -> tuple[int, int]:
    return about.st_ino, about.st_ctime_ns


def _writer(run_dir: Path) -> str:
    """The supervisor's process id as its lock names it."""
    try:
        return str(int(json.loads((run_dir / "journal.lock").read_bytes()[:256])["pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        return "PID"
