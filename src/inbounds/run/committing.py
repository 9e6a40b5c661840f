"""Commits on the agent branch: plan id and iteration in every message, the journal's head as a trailer (K1, K6).

Only the supervisor's store is written; the person's repository is not.
"""

from inbounds.contracts.bound import Contract
from inbounds.contracts.errors import HostError
from inbounds.store.store import Store

SUBJECT_CHARS_MAX = 60


def commit(store: Store, contract: Contract, *, n: int, tree: str, head: tuple[int, str], when: int) -> str:
    """Put `tree` on the agent branch as iteration `n`; returns the commit id. Safe to repeat: same input, same id."""
    ref = f"refs/heads/{contract.branch}"
    old = store.ref(ref)
    parent = old or contract.base_commit
    if old and store.tree_of(old) == tree:
        return old
    message = _message(contract, n, head)
    author = f"{contract.agent} in inbounds <{contract.agent}@inbounds.invalid>"
    made = store.commit(tree, [parent], message, author, when)
    if not store.set_ref(ref, made, old):
        raise HostError(f"{ref} moved while this run wrote it", expected="one writer", where=contract.store)
    return made


def _message(contract: Contract, n: int, head: tuple[int, str]) -> str:
    goal = " ".join(contract.goal.split())
    subject = goal if len(goal) <= SUBJECT_CHARS_MAX else goal[: SUBJECT_CHARS_MAX - 1] + "…"
    trailers = {
        "Plan": contract.plan.plan_id,
        "Iteration": str(n),
        "Run": contract.run_id,
        "Requirements": ", ".join(r.id for r in contract.requirements),
        "Journal": f"{head[0]}:{head[1]}",
    }
    return (
        f"[{contract.plan.plan_id} #{n}] {subject}\n\n"
        + "\n".join(f"{key}: {value}" for key, value in trailers.items())
        + "\n"
    )
