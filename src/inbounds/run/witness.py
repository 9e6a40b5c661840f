"""Taking each checkpoint to its outside witnesses: a row of the gateway's ledger, a time-stamp where policy names one.

In a thread of its own, so that a slow witness holds no run up; what fails is one witness less, and is logged. The file
of anchors is the journal writer's own.
"""

import json
import logging
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path

from inbounds.contracts.errors import InboundsError
from inbounds.gateway.control import GatewayProcess
from inbounds.journal.anchor import Anchor
from inbounds.run import timestamp

WAIT_S_MAX = 8.0  # at the run's end, for what is still on its way: a time-stamp takes five seconds at most
STAMPS = ".stamps.jsonl"

log = logging.getLogger(__name__)


class Witness:
    """Takes anchors in any thread; `end` waits for what has been taken."""

    def __init__(
        self, gateway: Callable[[], GatewayProcess | None], stamps: Path, url: str = "", ca_file: str = ""
    ) -> None:
        """`stamps` is the file, outside the run's directory, to which time-stamps are appended; no `url`, none."""
        self._gateway, self._stamps, self._url, self._ca_file = gateway, stamps, url, ca_file
        self._waiting: queue.SimpleQueue[Anchor | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)
        self._thread.start()

    def take(self, anchor: Anchor) -> None:
        """Have it witnessed."""
        self._waiting.put(anchor)

    def end(self) -> None:
        """Take no more, and wait for the rest."""
        self._waiting.put(None)
        self._thread.join(WAIT_S_MAX)

    def _run(self) -> None:
        while (anchor := self._waiting.get()) is not None:
            try:
                self._ledger(anchor)
                self._stamp(anchor)
            except (InboundsError, OSError) as error:
                log.warning("checkpoint %d has one witness less: %s", anchor.seq, error)

    def _ledger(self, anchor: Anchor) -> None:
        gateway = self._gateway()
        if gateway is None or gateway.gone:
            return  # before the first and behind the last request the file of anchors stands alone
        kept = gateway.anchor(
            seq=anchor.seq, hash=anchor.hash, size=anchor.size, root=anchor.root, note=anchor.note, at_ms=anchor.at_ms
        )
        if not kept:
            log.warning("checkpoint %d is not in the ledger", anchor.seq)

    def _stamp(self, anchor: Anchor) -> None:
        if not self._url or not anchor.note:
            return
        stamp = timestamp.stamp(self._url, anchor.note, self._ca_file or None)
        kept = {**json.loads(anchor.line()), "stamp": stamp.as_record()}
        fd = os.open(self._stamps, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "ab") as file:
            file.write(json.dumps(kept, sort_keys=True).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
