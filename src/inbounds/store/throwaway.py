"""Give an agent a git repository of its own to play with: one commit, made before the agent has written anything.

It lies in the agent's directory, belongs to it, and is never read by git on the host again. Knows nothing of what it
is used for.
"""

import os

from inbounds.contracts.errors import HostError
from inbounds.store import git
from inbounds.store.export import Owner
from inbounds.store.store import Store

BRANCH = "main"
_CONFIG = "[user]\n\tname = agent\n\temail = agent@inbounds.invalid\n[gc]\n\tauto = 0\n"


def make_throwaway(store: Store, tree: str, part: str, directory: str, owner: Owner | None) -> None:
    """Make `directory`/.git with one commit of what `tree` has at `part`, and an index that matches the files there.

    The files must have been written by us and seen by nobody else yet.
    """
    root = store.subtree(tree, part)
    commit = store.commit(root, [], "The state this run started from.", "inbounds <inbounds@inbounds.invalid>", 0)
    path = os.path.join(directory, ".git")
    git.run(["init", "--quiet", "--template=", f"--initial-branch={BRANCH}", f"--object-format={store.object_format}",
             directory])  # fmt: skip
    store.lend(commit, path, f"refs/heads/{BRANCH}")
    git.run(["read-tree", commit], git_dir=path)
    git.run(["update-index", "-q", "--refresh"], git_dir=path, work_tree=directory, cwd=directory, ok=frozenset({0, 1}))
    try:
        with open(os.path.join(path, "config"), "a", encoding="ascii") as file:
            file.write(_CONFIG)
        if owner:
            _give(path, owner)
    except OSError as error:
        raise HostError(f"the agent's own repository cannot be finished: {error}", where=path) from error


def _give(path: str, owner: Owner) -> None:
    """Give everything below away; it was made by git a moment ago and nobody else has seen it."""
    for _, _, names, handle in os.fwalk(path, follow_symlinks=False):
        for name in names:
            os.chown(name, owner.uid, owner.gid, dir_fd=handle, follow_symlinks=False)
        os.fchown(handle, owner.uid, owner.gid)
        os.fchmod(handle, 0o755)  # the agent's user must get in, whatever the umask
