"""Give an agent a git repository of its own to play with: one commit, made before the agent has written anything.

It lies in the agent's directory, belongs to it, and is never read by git on the host again, unless each file of it is
known to be as it was made. Knows nothing of what it is used for.
"""

import os
import shutil
import stat

from inbounds.contracts.errors import HostError
from inbounds.store import descent, git, listing, rewind, walk
from inbounds.store.export import Owner
from inbounds.store.index import Index
from inbounds.store.store import Store
from inbounds.store.tree import changes, later_sides
from inbounds.store.walk import DIRECTORY, Limits

BRANCH = "main"
OBJECTS = "objects/"
DIRECTORY_MODE = 0o040000  # of a tree in a tree
_CONFIG = "[user]\n\tname = agent\n\temail = agent@inbounds.invalid\n[gc]\n\tauto = 0\n"
_LIMITS = Limits()


class Throwaway:
    """The repository at `directory`/.git with one commit of what a tree has at `part`."""

    def __init__(self, store: Store, part: str, directory: str, owner: Owner | None, state: str) -> None:
        """`state` is a directory of ours, made as needed, for copies of what an agent may have changed."""
        self._store, self._part, self._owner, self._directory = store, part, owner, directory
        self._path, self._state = os.path.join(directory, ".git"), state
        self._tree = ""
        self._mark: listing.Listing | None = None

    def make(self, tree: str) -> None:
        """Make it, and an index that matches the files there, written by us and seen by nobody else yet."""
        self._mark = None
        commit = self._commit(tree)
        git.run(["init", "--quiet", "--template=", f"--initial-branch={BRANCH}",
                 f"--object-format={self._store.object_format}", self._directory])  # fmt: skip
        self._store.lend(commit, self._path, f"refs/heads/{BRANCH}")
        git.run(["read-tree", commit], git_dir=self._path)
        refresh = ["update-index", "-q", "--refresh"]
        git.run(refresh, git_dir=self._path, work_tree=self._directory, cwd=self._directory, ok=frozenset({0, 1}))
        try:
            with open(os.path.join(self._path, "config"), "a", encoding="ascii") as file:
                file.write(_CONFIG)
            if self._owner:
                _give(self._path, self._owner)
            self._tree = tree
        except OSError as error:
            raise HostError(f"the agent's own repository cannot be finished: {error}", where=self._path) from error

    def _commit(self, tree: str) -> str:
        root = self._store.subtree(tree, self._part)
        message, author = "The state this run started from.", "inbounds <inbounds@inbounds.invalid>"
        return self._store.commit(root, [], message, author, 0)

    def mark(self) -> None:
        """It is as it was made, at least two ticks of the file system's clock ago: `renew` goes back to this.

        All but the objects is copied: what an agent changes by using it.
        """
        try:
            descent.delete_tree(self._state)
            shutil.copytree(self._path, self._state, ignore=self._but_objects, symlinks=True)
            handle = os.open(self._path, DIRECTORY)
            try:
                self._mark = listing.lines(handle, _LIMITS)
            finally:
                os.close(handle)
        except OSError as error:
            raise HostError(f"the agent's own repository cannot be copied: {error}", where=self._state) from error

    def _but_objects(self, directory: str, names: list[str]) -> list[str]:
        return [name for name in names if directory == self._path and name == OBJECTS.rstrip("/")]

    def renew(self, tree: str) -> bool:
        """Make it anew by writing what was touched since the mark; False where all of it must be made anew.

        Objects that an agent has touched are not looked at: then all is made anew.
        """
        mark, self._mark = self._mark, None  # until all of it is done
        if mark is None:
            return False
        try:
            handle = os.open(self._path, DIRECTORY)
        except OSError:  # gone, or no directory any more
            return False
        try:
            if not self._as_kept(handle, mark):
                return False
        finally:
            os.close(handle)
        if tree != self._tree:
            self._move_on(tree)
            if self._owner:
                _give(self._path, self._owner)
        self._mark = mark
        return True

    def _move_on(self, tree: str) -> None:
        """From the tree that it was made of to another: a fetch would send all of that, and index it."""
        store = self._store
        new = self._commit(tree)
        roots = [store.subtree(each, self._part) for each in (self._tree, tree)]
        raw = ["diff-tree", "-r", "-t", "-z", "--no-renames", "--raw", "--no-ext-diff", "--no-textconv", *roots]
        sides = later_sides(changes(git.run(raw, git_dir=store.path)))
        names = {new, roots[1], *(value[1] for value in sides.values() if value)}
        pack = ["pack-objects", "-q", "--stdout", "--window=0"]
        sent = git.run(pack, git_dir=store.path, stdin="".join(f"{name}\n" for name in names).encode("ascii"))
        # Into a pack: objects unpacked give the made ones another change time where they are met again.
        git.run(["index-pack", "--stdin"], git_dir=self._path, stdin=sent, config={"core.fsync": "none"})
        git.run(["update-ref", f"refs/heads/{BRANCH}", new], git_dir=self._path)
        index = Index(self._path, os.path.join(self._path, "index"), store.null_id)
        index.update(
            [path for path, value in sides.items() if value is None],
            [(path, *value) for path, value in sides.items() if value is not None and value[0] != DIRECTORY_MODE],
        )

    def _as_kept(self, handle: int, mark: listing.Listing) -> bool:
        lines = listing.lines(handle, _LIMITS)
        if lines is None:
            return False
        touched = lines.since(mark).kinds().keys()
        made = {path: kind for kind, path in mark.seen()}
        if any(path.startswith(OBJECTS) and made.get(path, "d") != "d" for path in touched):
            return False
        if not rewind.clear(handle, touched, lambda path: made.get(path) == "d", self._owner):
            return False
        for path in sorted(touched & made.keys() - {""}):
            parent, name = walk.open_parent(handle, path)
            try:
                self._put(parent, name, path, is_directory=made[path] == "d")
            finally:
                os.close(parent)
        return True

    def _put(self, parent: int, name: str, path: str, *, is_directory: bool) -> None:
        """One file or directory as it was made."""
        if is_directory:
            try:
                about = os.stat(name, dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                os.mkdir(name, 0o755, dir_fd=parent)
            else:
                if stat.S_ISDIR(about.st_mode):
                    return
                raise HostError(f"{path!r} is no directory", where=self._path)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with (
                open(os.path.join(self._state, path), "rb") as source,
                open(os.open(name, flags, 0o644, dir_fd=parent), "wb") as target,
            ):
                shutil.copyfileobj(source, target)
                os.fchmod(target.fileno(), stat.S_IMODE(os.fstat(source.fileno()).st_mode))
        if self._owner:
            os.chown(name, self._owner.uid, self._owner.gid, dir_fd=parent, follow_symlinks=False)


def _give(path: str, owner: Owner) -> None:
    """Give everything below away; it was made by git a moment ago and nobody else has seen it.

    What is the owner's already keeps its change time: `renew` goes by it.
    """
    for _, _, names, handle in os.fwalk(path, follow_symlinks=False):
        for name in names:
            about = os.stat(name, dir_fd=handle, follow_symlinks=False)
            if (about.st_uid, about.st_gid) != (owner.uid, owner.gid):
                os.chown(name, owner.uid, owner.gid, dir_fd=handle, follow_symlinks=False)
        os.fchown(handle, owner.uid, owner.gid)
        os.fchmod(handle, 0o755)  # the agent's user must get in, whatever the umask
