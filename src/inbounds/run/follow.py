"""Following a run from outside: its journal's records as they come, until it is finished or its supervisor is dead.

Reads only; the records are the same that `verify` checks.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from inbounds.run.launch import JOURNAL

POLL_S = 0.1
LINE_BYTES_MAX = 16 << 20  # as the journal's own limit on a record


def follow(run_dir: Path, alive: Callable[[], bool], *, since: int = 0) -> Iterator[dict[str, Any]]:
    """Records from byte `since` on; ends after run.finished, or when nothing is alive to write any more."""
    path = run_dir / JOURNAL
    offset, rest = since, b""
    while True:
        living = alive()
        chunk = _read(path, offset)
        offset += len(chunk)
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            record = json.loads(line)
            yield record
            if record["kind"] == "run.finished":
                return
        if len(rest) > LINE_BYTES_MAX:
            return
        if not chunk:
            if not living:
                return
            time.sleep(POLL_S)


def _read(path: Path, offset: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return b""
    try:
        return os.pread(fd, 1 << 20, offset)
    finally:
        os.close(fd)
