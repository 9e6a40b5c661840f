"""Following a run from outside: its journal's records as they come, until it is finished or its supervisor is dead.

Reads only; the records are the same that `verify` checks. A line without its end is waited for, and read again from its
beginning: a recovery may cut it off and write another in its place.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from inbounds.journal import chain
from inbounds.journal.chain import Record
from inbounds.run.launch import JOURNAL

POLL_S = 0.1
CHUNK_BYTES = 1 << 20
# What lets a finished run go on in the same journal (E14, ADR 9).
ON = "run.reauthorized"
END = "run.finished"


class Ending:
    """Whether a run is over, told by the kinds of its records in order."""

    over = False

    def saw(self, kind: str) -> None:
        """Take the next record's kind: the end ends it, and a re-authorization lets it go on."""
        self.over = kind == END or (self.over and kind != ON)


def follow(run_dir: Path, alive: Callable[[], bool], *, since: int = 0) -> Iterator[dict[str, Any]]:
    """Records from byte `since` on, as JSON; ends after run.finished, or when nothing is alive to write any more."""
    ending = Ending()
    for batch in batches(run_dir, alive, ending, since=since):
        for line in batch:
            record = json.loads(line)
            ending.saw(str(record["kind"]))
            yield record


def records(run_dir: Path, alive: Callable[[], bool], ending: Ending, idle: Callable[[], None]) -> Iterator[Record]:
    """As `follow` from the beginning, each record with its own hash checked; `idle` is called before each wait.

    ChainError for a line that does not hold; the links between the records are `chain.linked`'s business.
    """
    number = 0
    for batch in batches(run_dir, alive, ending):
        for line in batch:
            number += 1
            record = chain.decode(line, number)
            ending.saw(record.kind)
            yield record
        idle()


def batches(run_dir: Path, alive: Callable[[], bool], ending: Ending, *, since: int = 0) -> Iterator[list[bytes]]:
    """Whole lines without their ends, as many as stand there at a time, from byte `since` on."""
    path, offset = run_dir / JOURNAL, since
    while True:
        living = alive()  # asked before the look, so that nothing written by one that died since is missed
        chunk = _read(path, offset)
        end = chunk.rfind(b"\n") + 1
        if end:
            offset += end
            yield chunk[: end - 1].split(b"\n")
        elif len(chunk) > chain.LINE_BYTES_MAX:
            raise chain.ChainError("line too long", f"more than {chain.LINE_BYTES_MAX} bytes without an end")
        elif ending.over or not living:
            return
        else:
            time.sleep(POLL_S)


def _read(path: Path, offset: int) -> bytes:
    """The next bytes, whole lines among them if there are any: a chunk, or as much as the longest line."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return b""
    try:
        chunk = os.pread(fd, CHUNK_BYTES, offset)
        if len(chunk) == CHUNK_BYTES and b"\n" not in chunk:
            chunk = os.pread(fd, chain.LINE_BYTES_MAX + 2, offset)
        return chunk
    finally:
        os.close(fd)
