"""Wiring a supervisor: journal, replay, parts, worker and watch of one run, in the order in which they need each other.

How it takes its run up then is run/entry.py's. The only place that makes the real ones; decides nothing.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from inbounds.contracts.bound import Contract
from inbounds.journal.signing import Signer
from inbounds.journal.writer import Journal
from inbounds.run import replay, requests
from inbounds.run.clock import now_ms
from inbounds.run.entry import Entry
from inbounds.run.home import Home
from inbounds.run.launch import JOURNAL
from inbounds.run.parts import Parts
from inbounds.run.supervisor import Supervisor
from inbounds.run.watch import Watch
from inbounds.run.worker import Worker

CLOSED = -1  # no provider key: nothing will be asked of a model


@dataclass(frozen=True, slots=True)
class Assembled(Entry):
    """An entry with the real parts."""

    parts: Parts
    watch: Watch


def assemble(
    home: Home, run_dir: Path, contract: Contract, keys_fd: int, signer: Signer | None, *, leg: bool = False
) -> Assembled:
    """Take the journal's lock, read it, make everything else; a new `leg` hears nothing that was asked of the last."""
    began_ns = time.time_ns()
    journal = Journal.open(run_dir / JOURNAL, signer=signer, append_only=True)
    replayed = replay.replay(replay.records(run_dir))
    if leg:
        requests.forget(run_dir, began_ns)
    supervisor = Supervisor(journal, replayed, now_ms)
    parts = Parts(
        home, run_dir, contract, post=supervisor.post, say=supervisor.say, hand_in=supervisor.hand_in,
        state=lambda: supervisor.loop.state, now_ms=supervisor.loop.seen_ms, keys_fd=keys_fd,
        journal_key=str(signer.key) if signer else "",
    )  # fmt: skip
    journal.on_anchor = parts.witness.take
    supervisor.equip(parts, Worker(supervisor.fault))
    return Assembled(supervisor, parts, Watch(parts.watch, supervisor.fault), replayed, contract, run_dir)
