"""How a supervisor takes its run up: a new one, one whose supervisor died, one that people signed for, or to its end.

Knows the ports only, so that a simulated world enters by the same door; the real one is wired in run/assemble.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inbounds.contracts.bound import Contract
from inbounds.contracts.errors import HostError, RefusedError
from inbounds.kernel.decide import decide
from inbounds.kernel.events import Reauthorized, Recovered, read
from inbounds.kernel.state import Phase
from inbounds.run import reauthorize
from inbounds.run.ports import Parts, Watch
from inbounds.run.replay import Replayed
from inbounds.run.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class Entry:
    """A supervisor with its parts, and what the journal said before it."""

    supervisor: Supervisor
    parts: Parts
    watch: Watch
    replayed: Replayed
    contract: Contract
    run_dir: Path

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
        """Open another leg with what people signed; RefusedError where that is not enough (E14).

        The kernel is asked first: a word that opens nothing does not stand in the journal.
        """
        told = reauthorize.granted(self.run_dir, self.contract)
        if told is None or not self._opens(told):
            self.supervisor.journal.close()
            raise RefusedError(
                "this stop is not re-authorized",
                where=self.contract.run_id,
                expected=f"{reauthorize.wanted(self.run_dir, self.contract)} signature(s) by whom policy names",
                fix=f"inbounds resume {self.contract.run_id}",
            )
        return self._watched(lambda: self.supervisor.go_on(Reauthorized.KIND, told))

    def _opens(self, told: Mapping[str, Any]) -> bool:
        before = self.replayed.state
        event = read(Reauthorized.KIND, told)
        assert event is not None
        return before.phase is Phase.FINISHED is not decide(before, event, self.replayed.at_ms)[0].phase

    def finish(self, kind: str, data: Mapping[str, Any]) -> int:
        """Bring it to its end."""
        return self.supervisor.finish(kind, dict(data))

    def _watched(self, run: Callable[[], int]) -> int:
        self.watch.start()
        try:
            return run()
        finally:
            self.watch.stop()
