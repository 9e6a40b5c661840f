"""Periodic snapshots of a workspace while its agent works, and how many of them are kept (I3).

Each is a commit on the base under a ref of its own, so that nothing collects it; the newest are kept. Files may be
torn, as the agent is at work, and what could not be read makes one incomplete: for looking back, never for judging.
Knows nothing of clocks or journals.
"""

from dataclasses import dataclass, field
from typing import Any

from inbounds.contracts.errors import HostError, OperatorError
from inbounds.sandbox.volume import Volume
from inbounds.store.store import Store

REFS = "refs/inbounds/snapshots"
AUTHOR = "inbounds <inbounds@localhost.invalid>"
KEEP_MAX = 1_000  # refs are files, and each look lists them


@dataclass(slots=True)
class Retention:
    """One run's kept snapshots; make it with `of`. One thread at a time; the volume itself is safe from any."""

    store: Store
    run_id: str
    base_commit: str
    keep: int
    _kept: dict[tuple[int, int], str] = field(default_factory=dict)  # (n, k) -> commit, oldest first
    _tree: str = ""

    @classmethod
    def of(cls, store: Store, run_id: str, base_commit: str, keep: int) -> "Retention":
        """Those of a run, after a restart with what the store still holds of them. `keep` is from 1 to KEEP_MAX."""
        if not 1 <= keep <= KEEP_MAX:
            raise OperatorError(f"{keep} snapshots to keep", expected=f"1 to {KEEP_MAX}")
        made = cls(store, run_id, base_commit, keep)
        made._kept = {_numbers(name): commit for name, commit in store.refs(f"{REFS}/{run_id}").items()}
        made._kept = dict(sorted(made._kept.items()))
        newest = list(made._kept.values())[-1:]
        made._tree = store.tree_of(newest[0] if newest else base_commit)
        return made

    def take(self, volume: Volume, n: int, when_s: int) -> dict[str, Any] | None:
        """Look at the workspace now; the record for `snapshot.kept`, or None where it is as it was at the last one.

        `n` is the iteration, `when_s` seconds since 1970. Costs what has changed since the last look of any kind.
        HostError where the workspace is being replaced or the disk is full: nothing is kept, and the next look will do.
        """
        taken = volume.snapshot()
        if taken.tree == self._tree:
            return None
        k = max((k for of_n, k in self._kept if of_n == n), default=0) + 1
        message = f"inbounds: workspace of {self.run_id}, iteration {n}, look {k}\n\nInside-Iteration: yes\n"
        commit = self.store.commit(taken.tree, [self.base_commit], message, AUTHOR, when_s)
        if not self.store.set_ref(self._ref(n, k), commit, None):
            raise HostError(f"{self._ref(n, k)} exists", expected="one supervisor a run", where=self.store.path)
        self._kept[n, k] = commit
        self._tree = taken.tree
        return {
            "n": n,
            "k": k,
            "tree": taken.tree,
            "files": taken.files,
            "bytes": taken.bytes,
            "complete": taken.complete,
            "why": taken.why,
            "dropped": [f"{of_n}-{of_k}" for of_n, of_k in self._drop()],
        }

    def _drop(self) -> list[tuple[int, int]]:
        """Delete the refs of the oldest beyond `keep`. Their content stays in the store: other runs share it."""
        dropped = list(self._kept)[: -self.keep]
        for key in dropped:
            self.store.delete_ref(self._ref(*key), self._kept.pop(key))
        return dropped

    def _ref(self, n: int, k: int) -> str:
        return f"{REFS}/{self.run_id}/{n}-{k}"


def forget(store: Store, run_id: str) -> int:
    """Drop every kept snapshot of a run (when it is discarded); how many there were."""
    found = store.refs(f"{REFS}/{run_id}")
    for name, commit in found.items():
        store.delete_ref(name, commit)
    return len(found)


def _numbers(name: str) -> tuple[int, int]:
    n, dash, k = name.rpartition("/")[2].partition("-")
    if not (dash and n.isdigit() and k.isdigit()):
        raise HostError(f"{name} is no snapshot of ours", expected=f"{REFS}/RUN/N-K")
    return int(n), int(k)
