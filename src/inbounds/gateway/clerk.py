"""The one thread that writes the ledger for the event loop: requests queue, and those that wait share one commit.

A transaction is synced to disk before any of its callers goes on (G9: reserved money survives kill -9 and power loss).
Knows nothing of what it runs.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from inbounds.gateway.schema import transaction

BATCH_MAX = 64  # callers that share one commit; more would make the first of them wait for the last

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Entry:
    work: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"


class LedgerFailedError(Exception):
    """The ledger could not be written; nothing of the batch happened, so nothing may be forwarded."""


class Clerk:
    """Runs pieces of work in transactions on its own thread, in the order they came."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Take over the connection; start only after the seal (threads inherit it from there on)."""
        self._db = connection
        self._entries: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    async def do(self, work: Callable[[], T]) -> T:
        """Run `work` inside a durable transaction; LedgerFailedError where that could not be committed.

        Once queued it is carried out even if the caller is cancelled meanwhile: no release is skipped.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._entries.put(_Entry(work, loop, future))
        return await asyncio.shield(future)

    def stop(self) -> None:
        """Finish what is queued and close the connection."""
        self._entries.put(None)
        self._thread.join()

    def _run(self) -> None:
        stopping = False
        while not stopping:
            batch = [self._entries.get()]
            while len(batch) < BATCH_MAX and not self._entries.empty():
                batch.append(self._entries.get())
            stopping = None in batch
            entries = [entry for entry in batch if entry is not None]
            if entries:
                self._commit(entries)
        self._db.close()

    def _commit(self, entries: list[_Entry]) -> None:
        try:
            with transaction(self._db):
                results = [entry.work() for entry in entries]
        except Exception as error:
            failure = LedgerFailedError(f"the ledger could not be written: {error}")
            for entry in entries:
                entry.loop.call_soon_threadsafe(_fail, entry.future, failure)
            return
        for entry, result in zip(entries, results, strict=True):
            entry.loop.call_soon_threadsafe(_finish, entry.future, result)


def _finish(future: "asyncio.Future[Any]", result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[Any]", failure: Exception) -> None:
    if not future.done():
        future.set_exception(failure)
