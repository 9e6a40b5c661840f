"""What a person asks of a running supervisor: small files in the run's directory, read at every tick.

A file works at any path length and after a restart, where a socket would not; the directory is 0700, so that only the
operator's own uid (and root) can ask. Knows nothing of what a request leads to.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from inbounds.contracts.errors import HostError

STOP = "stop.request"
BYTES_MAX = 64 << 10  # a reason is a sentence
TEXT_MAX = 2_000


def ask_stop(run_dir: Path, *, who: str, why: str) -> None:
    """Leave a stop request; written whole or not at all."""
    text = json.dumps({"who": who[:TEXT_MAX], "why": why[:TEXT_MAX], "at_ms": time.time_ns() // 1_000_000})
    temporary = run_dir / f".{STOP}.{os.getpid()}"
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(run_dir / STOP)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise HostError(
            f"the request to stop cannot be written: {error.strerror}",
            where=str(run_dir),
            expected="room for a line",
            fix=f"kill -TERM {_writer(run_dir)}",
        ) from error


def take_stop(run_dir: Path) -> dict[str, Any] | None:
    """The stop request, if there is one; it is removed, because the journal holds it from now on."""
    path = run_dir / STOP
    try:
        with path.open("rb") as file:
            raw = file.read(BYTES_MAX)
        path.unlink(missing_ok=True)
    except FileNotFoundError:
        return None
    except OSError as error:  # whoever put it there wanted a stop
        return {"who": "unknown", "why": f"a stop request that could not be read: {error.strerror}"}
    try:
        asked = json.loads(raw)
        return {"who": str(asked["who"])[:TEXT_MAX], "why": str(asked["why"])[:TEXT_MAX]}
    except (ValueError, KeyError, TypeError):
        return {"who": "unknown", "why": "a stop request that could not be read"}


def _writer(run_dir: Path) -> str:
    """The supervisor's process id as its lock names it."""
    try:
        return str(int(json.loads((run_dir / "journal.lock").read_bytes()[:256])["pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        return "PID"
