"""A private index file: the way to make a tree from another tree and a few changes, at the price of the changes.

Knows nothing of work trees: entries are named by blob id, and no file is ever read.
"""

import os
from collections.abc import Iterable

from inbounds.store import git


class Index:
    """An index at `path`, used by one writer; it may be kept between trees, then only directories changed are new."""

    def __init__(self, git_dir: str, path: str, null_id: str) -> None:
        """`null_id` is the all-zero id of the store's object format."""
        self._git_dir, self.path, self._null = git_dir, path, null_id

    def _git(self, args: list[str], stdin: bytes = b"") -> bytes:
        return git.run(args, git_dir=self._git_dir, stdin=stdin, env={"GIT_INDEX_FILE": self.path})

    def load(self, tree: str) -> None:
        """Make the index hold exactly `tree`."""
        self._git(["read-tree", tree])

    def update(self, removed: Iterable[str], added: Iterable[tuple[str, int, str]]) -> None:
        """Take paths out, then put (path, mode, blob) in; a file may replace a directory, and the reverse."""
        lines = [b"0 %s\t%s\0" % (self._null.encode("ascii"), os.fsencode(path)) for path in removed]
        lines += [b"%o %s\t%s\0" % (mode, blob.encode("ascii"), os.fsencode(path)) for path, mode, blob in added]
        if lines:
            self._git(["update-index", "--replace", "-z", "--index-info"], b"".join(lines))

    def write(self) -> str:
        """Store the tree; HostError if a blob it names is missing."""
        return self._git(["write-tree"]).decode("ascii").strip()
