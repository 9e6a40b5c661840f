"""What a run's journal says, taken through the kernel again: its state, and what is left of a stop that had begun.

Reads only. The same records always give the same answer; a journal that does not hold gives none.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from inbounds.contracts.errors import HostError
from inbounds.contracts.reasons import Disposal, StopCode
from inbounds.journal import chain
from inbounds.kernel.decide import decide
from inbounds.kernel.effects import Effect, RecordStop, StopEffect, stop_sequence
from inbounds.kernel.events import read
from inbounds.kernel.state import Phase, State
from inbounds.run.launch import JOURNAL


@dataclass(slots=True)
class Replayed:
    """The kernel's state, what is left of the present leg's stop, and which of its steps are done.

    `stop` is the sequence from its beginning: every step may be repeated. `at_ms` is the last record's time.
    """

    state: State = field(default_factory=State)
    at_ms: int = 0
    stop: tuple[Effect, ...] = ()
    done: dict[str, str] = field(default_factory=dict)


def replay(found: Iterable[chain.Record]) -> Replayed:
    """Every record through the kernel again."""
    made = Replayed()
    for record in found:
        made.at_ms = record.at_ms
        event = read(record.kind, record.data, record.hash)
        if event is not None:
            before = made.state.phase
            made.state, effects = decide(made.state, event, record.at_ms)
            if made.state.phase is Phase.STOPPING is not before:
                made.stop = effects
            elif before is Phase.FINISHED is not made.state.phase:  # people opened another leg
                made.stop, made.done = (), {}
        if record.kind == "stop.decided":
            made.stop = _rest(record)
        elif record.kind == "stop.step" and record.data["ok"] is True:
            made.done[str(record.data["step"])] = str(record.data["detail"])
    return made


def _rest(record: chain.Record) -> tuple[StopEffect, ...]:
    """What follows from the stop event: it may stand where no record led to it, on a disk full for everything else."""
    data = record.data
    whole = stop_sequence(StopCode(data["code"]), str(data["why"]), Disposal(data["disposal"]), str(data["checkpoint"]))
    return tuple(effect for effect in whole if not isinstance(effect, RecordStop))


def records(run_dir: Path) -> Iterator[chain.Record]:
    """A journal's records; HostError where it does not hold (an unfinished last line is no record yet)."""
    try:
        yield from chain.linked(chain.records(run_dir / JOURNAL))
    except chain.ChainError as error:
        if error.rule == "torn":
            return
        raise HostError(
            f"the journal does not hold: {error}",
            where=str(run_dir / JOURNAL),
            expected="an unbroken chain of records",
            fix=f"inbounds verify {run_dir.name}",
        ) from None
    except FileNotFoundError:
        raise HostError("the run has no journal", where=str(run_dir), fix="inbounds status") from None
