"""What a person asks of a running supervisor: small files in the run's directory, read at every tick.

A file works at any path length and after a restart, where a socket would not; the directory is 0700, so that only the
operator's own uid (and root) can ask. Knows nothing of what a request leads to.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

STOP = "stop.request"
BYTES_MAX = 64 << 10  # a reason is a sentence
TEXT_MAX = 2_000


def ask_stop(run_dir: Path, *, who: str, why: str) -> None:
    """Leave a stop request; written whole or not at all."""
    text = json.dumps({"who": who[:TEXT_MAX], "why": why[:TEXT_MAX], "at_ms": time.time_ns() // 1_000_000})
    temporary = run_dir / f".{STOP}.{os.getpid()}"
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(run_dir / STOP)


def take_stop(run_dir: Path) -> dict[str, Any] | None:
    """The stop request, if there is one; it is removed, because the journal holds it from now on."""
    path = run_dir / STOP
    try:
        raw = path.read_bytes()[: BYTES_MAX + 1]
    except FileNotFoundError:
        return None
    path.unlink(missing_ok=True)
    try:
        asked = json.loads(raw)
        return {"who": str(asked["who"])[:TEXT_MAX], "why": str(asked["why"])[:TEXT_MAX]}
    except (ValueError, KeyError, TypeError):
        return {"who": "unknown", "why": "a stop request that could not be read"}
