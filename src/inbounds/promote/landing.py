"""Land a judged commit on a protected ref, or take one back: the only code that moves these refs (K2, K3, K7).

A ref moves by compare-and-swap to a new merge commit whose first parent is where it stood, so that history is only
ever added to. What lands is exactly the tree that was judged. Knows nothing of verdicts.
"""

import re

from inbounds.contracts.errors import HostError
from inbounds.promote.request import Answer, Request
from inbounds.store import git
from inbounds.store.store import Store

AUTHOR = "inbounds promoter <promoter@inbounds.invalid>"
MERGE_TREE_SINCE = (2, 38)  # git merge-tree --write-tree
CONFLICT = 1
TREE_LINE = re.compile(r"[0-9a-f]{40,64}")


def promote(store: Store, request: Request) -> Answer:
    """Merge `source_commit` into the target; refused if the result is not the tree that was judged.

    A target that does not exist yet begins at the run's base commit.
    """
    source, base = request.source_commit, request.base_commit
    if store.tree_of(source) != request.expected_tree:
        return _refused(request, "", "the commit's tree is not the one that was judged")
    if not store.is_ancestor(base, source):
        return _refused(request, "", "the commit does not descend from the run's base commit")
    ref = f"refs/heads/{request.target}"
    old = store.ref(ref)
    tip = old or base
    if store.is_ancestor(source, tip):
        return _refused(request, old or "", f"the commit is part of {request.target} already")
    merged = _merge(store, tip, source)
    if merged is None:
        return _refused(request, old or "", f"the commit conflicts with what has landed on {request.target} since")
    if merged != request.expected_tree:
        return _refused(
            request,
            old or "",
            f"{request.target} has moved: the result would be a tree that nobody judged; judge again",
        )
    commit = store.commit(
        merged, [tip, source], _message(request, f"Promote {request.evidence.run_id}"), AUTHOR, request.when
    )
    if not _move(store, ref, commit, old):
        return _refused(request, old or "", f"{request.target} moved meanwhile; try again")
    return Answer("promoted", request.target, commit, old or "", ())


def rollback(store: Store, request: Request) -> Answer:
    """Undo the landed merge `source_commit` by a new commit on top; refused where later work depends on it."""
    landed = request.source_commit
    ref = f"refs/heads/{request.target}"
    tip = store.ref(ref)
    if tip is None or landed not in _first_parents(store, tip):
        return _refused(request, tip or "", f"the commit has not landed on {request.target}")
    parents = _parents(store, landed)
    if len(parents) != 2 or not _landed_by(store, landed, request.evidence.run_id):  # noqa: PLR2004 - a merge has two
        return _refused(request, tip, f"the commit is no promotion of {request.evidence.run_id}")
    if store.tree_of(landed) != request.expected_tree:
        return _refused(request, tip, "the commit's tree is not the one that was asked to be taken back")
    before = store.tree_of(parents[0])
    tree = before if tip == landed else _merge_trees(store, store.tree_of(landed), store.tree_of(tip), before)
    if tree is None:
        return _refused(request, tip, "later work on the same lines conflicts with taking this back")
    if tree == store.tree_of(tip):
        return _refused(request, tip, "nothing of the commit is left to take back")
    commit = store.commit(tree, [tip], _message(request, f"Roll back {request.evidence.run_id}"), AUTHOR, request.when)
    if not _move(store, ref, commit, tip):
        return _refused(request, tip, f"{request.target} moved meanwhile; try again")
    return Answer("rolled_back", request.target, commit, tip, ())


def _refused(request: Request, old: str, reason: str) -> Answer:
    return Answer("refused", request.target, old, old, (reason,))


def _message(request: Request, subject: str) -> str:
    evidence = request.evidence
    trailers = {
        "Inbounds-Plan": evidence.plan_id,
        "Inbounds-Run": evidence.run_id,
        "Inbounds-Journal-Head": evidence.journal_head,
        "Inbounds-Commit": request.source_commit,
    }
    return f"{subject} ({evidence.plan_id})\n\n" + "".join(f"{key}: {value}\n" for key, value in trailers.items())


def _merge(store: Store, tip: str, source: str) -> str | None:
    """The tree of merging `source` into `tip`, None on a conflict; no work tree, no attributes, no merge drivers."""
    if store.is_ancestor(tip, source):
        return store.tree_of(source)
    if git.version() < MERGE_TREE_SINCE:
        found = ".".join(map(str, git.version()))
        raise HostError(f"git {found} cannot merge without a work tree", expected="git 2.38 or newer", where="promote")
    args = ["merge-tree", "--write-tree", "--no-messages", tip, source]
    code, out = git.status(args, git_dir=store.path, ok=frozenset({0, CONFLICT}))
    tree = out.decode("utf-8", "replace").split("\n", 1)[0].strip()
    if code == CONFLICT:
        return None
    if not TREE_LINE.fullmatch(tree):
        raise HostError(f"git merge-tree printed {tree!r}", expected="a tree", where="promote")
    return tree


def _merge_trees(store: Store, base: str, ours: str, theirs: str) -> str | None:
    """A three-way merge of trees, through commits that no ref names: --merge-base is newer than Debian 12's git."""
    root = store.commit(base, [], "base", AUTHOR, 0)
    sides = [store.commit(tree, [root], "side", AUTHOR, number) for number, tree in enumerate((ours, theirs))]
    return _merge(store, *sides)


def _parents(store: Store, commit: str) -> list[str]:
    return store.git("rev-list", "--no-walk", "--parents", commit).split()[1:]


def _first_parents(store: Store, tip: str) -> set[str]:
    return set(store.git("rev-list", "--first-parent", tip).split())


def _landed_by(store: Store, commit: str, run_id: str) -> bool:
    message = store.git("log", "-1", "--no-walk", "--format=%B", commit)
    return f"\nInbounds-Run: {run_id}\n" in message + "\n"


def _move(store: Store, ref: str, new: str, old: str | None) -> bool:
    """Compare-and-swap forward: a move that would lose history is an error of this program, not of a request."""
    if old is not None and not store.is_ancestor(old, new):
        raise HostError(f"{ref} would lose history", expected=f"a descendant of {old}", where="promote")
    return store.compare_and_swap(ref, new, old)
