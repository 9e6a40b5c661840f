"""Wiring a supervisor: journal, replay, parts, worker and watch of one run, in the order in which they need each other.

The only place that makes the real ones; decides nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inbounds.contracts.bound import Contract
from inbounds.contracts.errors import HostError, RefusedError
from inbounds.journal.signing import Signer
from inbounds.journal.writer import Journal
from inbounds.kernel.events import Reauthorized, Recovered
from inbounds.kernel.state import Phase
from inbounds.run import reauthorize, replay
from inbounds.run.clock import now_ms
from inbounds.run.home import Home
from inbounds.run.launch import JOURNAL
from inbounds.run.parts import Parts
from inbounds.run.supervisor import Supervisor
from inbounds.run.watch import Watch
from inbounds.run.worker import Worker

CLOSED = -1  # no provider key: nothing will be asked of a model


@dataclass(frozen=True, slots=True)
class Assembled:
    """A supervisor with its real parts, and what the journal said before it."""

    supervisor: Supervisor
    parts: Parts
    watch: Watch
    replayed: replay.Replayed
    contract: Contract

    def start(self) -> int:
        """A new run, from its contract to its end."""
        if self.replayed.state.phase is not Phase.NEW:
            self.supervisor.journal.close()
            raise HostError("this run was started before", where=self.contract.run_id, expected="a run of its own")
        return self._watched(self.supervisor.start)

    def recover(self) -> int:
        """Go on with a run whose supervisor died, or carry on the stop that had begun."""
        state = self.replayed.state
        if state.phase is Phase.NEW:
            return self._watched(self.supervisor.start)
        if state.phase in (Phase.STOPPING, Phase.FINISHED):
            return self.supervisor.finish(Recovered.KIND, {})
        return self._watched(lambda: self.supervisor.go_on(Recovered.KIND, self.parts.known()))

    def resume(self) -> int:
        """Open another leg with what people signed; RefusedError where that is not enough (E14)."""
        told = reauthorize.granted(self.parts.run_dir, self.contract)
        if told is None or self.replayed.state.phase is not Phase.FINISHED:
            self.supervisor.journal.close()
            raise RefusedError(
                "this stop is not re-authorized",
                where=self.contract.run_id,
                expected=f"{reauthorize.wanted(self.parts.run_dir, self.contract)} signature(s) by whom policy names",
                fix=f"inbounds resume {self.contract.run_id}",
            )
        return self._watched(lambda: self.supervisor.go_on(Reauthorized.KIND, told))

    def finish(self, kind: str, data: Mapping[str, Any]) -> int:
        """Bring it to its end."""
        return self.supervisor.finish(kind, dict(data))

    def _watched(self, run: Any) -> int:
        self.watch.start()
        try:
            code: int = run()
        finally:
            self.watch.stop()
        return code


def assemble(home: Home, run_dir: Path, contract: Contract, keys_fd: int, signer: Signer | None) -> Assembled:
    """Take the journal's lock, read it, and make everything else."""
    journal = Journal.open(run_dir / JOURNAL, signer=signer)
    replayed = replay.replay(replay.records(run_dir))
    supervisor = Supervisor(journal, replayed, now_ms)
    parts = Parts(
        home, run_dir, contract, post=supervisor.post, say=supervisor.say, state=lambda: supervisor.loop.state,
        keys_fd=keys_fd, journal_key=str(signer.key) if signer else "",
    )  # fmt: skip
    supervisor.equip(parts, Worker(supervisor.fault))
    return Assembled(supervisor, parts, Watch(parts.watch, supervisor.fault), replayed, contract)
