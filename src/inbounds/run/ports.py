"""What a supervisor has done, as the ports through which it does it: a run's parts, and the worker for slow effects.

`run/parts.py` and `run/worker.py` are the real ones; a simulated world brings its own, and the loop and the supervisor
between them stay the same.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from inbounds.contracts.limits import Limits
from inbounds.contracts.reasons import Disposal, StopCode


class Parts(Protocol):
    """The parts of one run. What is marked slow runs in the worker and posts its outcome; the rest answers at once.

    Every method may be called again after a crash in the middle of it, with the same effect as once.
    """

    def accepted(self) -> dict[str, Any]:
        """run.accepted's data."""

    def known(self) -> dict[str, Any]:
        """run.recovered's data: what the ledger, which outlived the supervisor, knows of the run."""

    def preflight(self) -> None:
        """Slow: posts preflight.finished."""

    def reopen(self, checkpoint: str, *, restore: bool) -> None:
        """Slow: posts run.reopened."""

    def iterate(self, n: int) -> None:
        """Slow: posts iteration.started before the agent goes, and jail.exited when it has ended."""

    def snapshot(self, n: int) -> None:
        """Slow: posts snapshot.taken."""

    def judge(self, n: int) -> None:
        """Slow: posts verdicts and iteration.finished."""

    def halt_agent(self) -> None:
        """End the agent's jail."""

    def commit(self, n: int, tree: str, head: tuple[int, str]) -> dict[str, Any]:
        """commit.made's data; the same commit for the same tree."""

    def slow_down(self, interval_ms: int, cpu_percent: int) -> dict[str, Any]:
        """run.slowed's data."""

    def escalate(self, why: str, until_ms: int) -> Iterable[dict[str, Any]]:
        """notice.sent's data, one for each channel."""

    def apply_limits(self, limits: Limits, *, unpause: bool) -> None:
        """Have the amended limits hold at the gateway."""

    def close_doors(self) -> str:
        """Stop, step 1."""

    def halt(self) -> str:
        """No process of the run executes after this, and none starts."""

    @property
    def holding(self) -> bool:
        """Whether `halt` left processes frozen: the worker waits for them until `survivors` has ended them."""

    def persist(self) -> tuple[dict[str, Any], str]:
        """Stop, step 3: snapshot.taken's data ({} where there is no workspace) and what was done."""

    def write_manifest(self) -> None:
        """Derive it from the journal as it stands."""

    def survivors(self) -> str:
        """End what is held, and say that nothing of the run is alive; HostError if something is."""

    def dispose(self, disposal: Disposal, checkpoint: str) -> tuple[str, str]:
        """Stop, step 4: the step's name and what was done."""

    def stop_programs(self) -> None:
        """End gateway, broker and watchers."""

    def promote(self, *, again: bool) -> dict[str, Any] | None:
        """promotion.decided's data, None where nothing lands by itself; `again`: look first what landed already."""

    def tell(self, code: StopCode) -> Iterable[dict[str, Any]]:
        """notice.sent's data, one for each channel."""

    def close(self) -> str:
        """Manifest and report behind the last record; what went wrong, or ""."""

    def watch(self) -> None:
        """One look at requests, contract and volume; posts what it finds."""


class Worker(Protocol):
    """Slow effects, one after the other."""

    def start(self) -> None:
        """Begin."""

    def put(self, ref: str, work: Callable[[], None]) -> None:
        """Have it done for the effect `ref`."""

    @property
    def ref(self) -> str:
        """The effect for which the caller works, or ""."""

    def end(self, seconds: float) -> None:
        """Begin nothing further, and wait so long."""


class Watch(Protocol):
    """Has `Parts.watch` look, again and again."""

    def start(self) -> None:
        """Begin looking."""

    def stop(self) -> None:
        """Look no more; returns when the last look is over."""


class Journal(Protocol):
    """The one writer of a run's evidence."""

    @property
    def head(self) -> tuple[int, str]:
        """The last record's seq and hash."""

    def append(self, kind: str, data: dict[str, Any], at_ms: int | None = None, *, sync: bool | None = None) -> Any:
        """Append one record."""

    def sync(self) -> None:
        """Everything appended is on disk."""

    def keep_anchor(self) -> None:
        """The head is kept outside the run's reach."""

    def close(self, *, in_order: bool = True) -> None:
        """Let the next writer see that this one ended in order; unless it did not."""


Post = Callable[[str, Mapping[str, Any]], None]
