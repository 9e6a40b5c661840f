"""What a supervisor looks at twice a second: people's requests, the frozen documents, the volume, and keeping it.

It looks and hands in what it finds; the kernel decides what that means. Runs in the watch's own thread (run/watch.py),
beside the loop; what takes long has a thread of its own again.
"""

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from inbounds.contracts.bound import Contract
from inbounds.contracts.errors import InboundsError
from inbounds.contracts.limits import Limits
from inbounds.kernel.events import Failed, OperatorStopped, Polled
from inbounds.kernel.state import Phase, State
from inbounds.run import amending, requests
from inbounds.run.crew import Crew
from inbounds.run.launch import BLAST, CONTRACT, SETTINGS
from inbounds.run.ports import Post
from inbounds.run.requests import Asked
from inbounds.run.retention import Retention
from inbounds.sandbox.gpuwatch import Finding
from inbounds.sandbox.unlinked import Room, held
from inbounds.sandbox.volume import Volume
from inbounds.store import descent
from inbounds.store.store import Store

DOUBTS = 3  # looks in a row that do not see everything, before what is gone from the disk counts as the run's


class Kept(Protocol):
    """What becomes of an event that was handed in."""

    @property
    def kept(self) -> bool:
        """Whether it is on disk."""

    def is_set(self) -> bool:
        """Whether it was written, or could not be."""


HandIn = Callable[[str, Mapping[str, Any]], Kept]


class Observer:
    """The looks at one run. Times are the run's own.

    `volume` gives its workspace, None before there is one, `jobs` the directory where its judges work.
    """

    def __init__(
        self, run_dir: Path, contract: Contract, store: Store, crew: Crew, *, post: Post, hand_in: HandIn,
        state: Callable[[], State], limits: Callable[[], Limits], volume: Callable[[], Volume | None],
        jobs: Callable[[], Path], now_ms: Callable[[], int], gpu: Callable[[], Finding | None] = lambda: None,
    ) -> None:  # fmt: skip
        """`hand_in` posts, and says when the journal holds it."""
        self._run_dir, self._contract, self._store, self._crew = run_dir, contract, store, crew
        self._post, self._hand_in = post, hand_in
        self._state, self._limits, self._volume = state, limits, volume
        self._jobs, self._now_ms, self._gpu = jobs, now_ms, gpu
        self.signalled = ""  # set by a signal handler, which may take no lock
        self.hold = (0, "")  # what a stop gives way to: see requests.ask_stop
        self._asked: dict[Path, tuple[Asked, Kept]] = {}
        self._frozen = {CONTRACT: contract.encode(), SETTINGS: self._read(SETTINGS), BLAST: self._read(BLAST)}
        self._retention: Retention | None = None
        self._keeping: threading.Thread | None = None
        self._kept_ms = 0
        self._room, self._doubts = Room(str(run_dir)), 0
        with suppress(OSError):  # then it has no most, and each later look makes it
            self._room.fallen()

    def look(self) -> None:
        """One look at everything; posts what it finds."""
        self._requests()
        if self.signalled:
            self._post(OperatorStopped.KIND, {"who": "a signal", "why": self.signalled, "incident": False})
            self.signalled = ""
        if self._state().slowed and self._state().phase is Phase.WORKING:
            # an agent can make processes that the last call has not seen
            self._crew.slow(self._contract.conducted().slow_cpu_percent)
        if found := self._tampered():
            self._post(Failed.KIND, {"part": "contract", "detail": found})
        if seen := self._gpu():
            self._post(Failed.KIND, {"part": "gpu" if seen.exceeded else "host", "detail": seen.words})
        self._keep_now_and_then()
        self._poll()

    def _requests(self) -> None:
        """Hand in what people ask for, once; a request's file goes when the journal holds it, and not before."""
        for asked, written in [*self._asked.values()]:
            if written.is_set() and written.kept and asked.drop():
                del self._asked[asked.path]
        stop = requests.find_stop(self._run_dir)
        if stop and self._is_new(stop):
            self.hold = stop.said.pop("hold")
            self._asked[stop.path] = stop, self._hand_in(OperatorStopped.KIND, stop.said)
        amendment = requests.find_amendment(self._run_dir)
        if amendment and self._is_new(amendment):
            word = amending.read(amendment.said, self._contract, self._state().version)
            self._asked[amendment.path] = amendment, self._hand_in(*word)

    def _is_new(self, found: Asked) -> bool:
        known = self._asked.get(found.path)
        return known is None or known[0].mark != found.mark

    def _tampered(self) -> str:
        """What was tampered with, or ""; the frozen documents are compared with what was read at the start (E8)."""
        for name, frozen in self._frozen.items():
            now = self._read(name)
            if isinstance(now, str):
                return f"{name} cannot be read: {now}"
            if now != frozen:
                return f"{name} is not what was signed"
        return ""

    def _read(self, name: str) -> bytes | str:
        """A document's bytes, or why it has none."""
        try:
            return (self._run_dir / name).read_bytes()
        except OSError as error:
            return error.strerror or str(error)

    def _keep_now_and_then(self) -> None:
        """Keep the workspace while its agent works (I3), in a thread of its own: requests must not wait for it."""
        state, every, volume = self._state(), self._contract.conducted().snapshot_every_ms, self._volume()
        if state.phase is not Phase.WORKING or volume is None:
            self._kept_ms = self._now_ms()  # the interval begins with the iteration
            return
        if self._now_ms() - self._kept_ms < every or (self._keeping is not None and self._keeping.is_alive()):
            return
        self._kept_ms = self._now_ms()
        self._keeping = threading.Thread(target=self._keep, args=(volume, state.n), name="keeping", daemon=True)
        self._keeping.start()

    def _keep(self, volume: Volume, n: int) -> None:
        if self._retention is None:
            keep = self._contract.conducted().snapshots_kept
            self._retention = Retention.of(self._store, self._contract.run_id, self._contract.base_commit, keep)
        try:
            if record := self._retention.take(volume, n, self._now_ms() // 1_000):
                self._post("snapshot.kept", record)
        except (InboundsError, OSError) as error:
            self._post("snapshot.failed", {"n": n, "why": str(error)})

    def _poll(self) -> None:
        """What workspace and jobs hold now (E7: polled, as rootless has no quota): a tester runs the same code."""
        volume = self._volume()
        if volume is None:
            return
        limits, seen, exact = self._limits(), 0, True
        for measure in (volume.usage, lambda: descent.usage(str(self._jobs()))):
            try:
                used = measure()
            except (InboundsError, OSError):
                exact = False
                continue  # it is being restored, moved or deleted; the next look will do
            if used.bytes > limits.disk_bytes or used.inodes > limits.inodes:
                self._post(Polled.KIND, {"bytes": used.bytes, "inodes": used.inodes})
            seen, exact = max(seen, used.bytes), exact and used.exact
        self._poll_unlinked(volume, seen, exact=exact)
        # each look at the workspace keeps its content: an agent that rewrites it between two looks fills the store
        if volume.stored > limits.disk_bytes:
            self._post(Polled.KIND, {"bytes": volume.stored, "inodes": 0})

    def _poll_unlinked(self, volume: Volume, seen: int, *, exact: bool) -> None:
        """What has no name any more, where so much has gone from the disk that it matters (a slot's volume is hard)."""
        limit = self._limits().disk_bytes
        try:
            gone = self._room.fallen()
            if gone <= limit // 2 or os.stat(volume.root).st_dev != os.stat(self._run_dir).st_dev:
                self._doubts = 0
                return
            found = held(self._crew.inits(), volume.root)
        except OSError:
            return  # it is being restored, moved or deleted; the next look will do
        self._doubts = self._doubts + 1 if found.unseen or not exact else 0
        if seen + found.bytes > limit:
            self._post(Polled.KIND, {"bytes": seen + found.bytes, "inodes": 0})
        elif self._doubts >= DOUBTS and gone > limit:
            self._post(Polled.KIND, {"bytes": gone, "inodes": 0})
