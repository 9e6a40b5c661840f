"""Turn what an agent left in its directory into a repository-wide tree, at the price of what changed.

The tree is the base tree with the writable part replaced; protected paths always come from the base. Ignore rules are
the base's own, so an agent can't hide a file by writing one. Knows nothing of jails or judges.
"""

import itertools
import os
import posixpath
import time
from collections.abc import Iterable
from dataclasses import dataclass

from inbounds.contracts.errors import HostError
from inbounds.store import git, walk
from inbounds.store.blobs import BlobWriter
from inbounds.store.export import export
from inbounds.store.store import Store
from inbounds.store.tree import Change
from inbounds.store.walk import LINK, Entry, Limits, Scan

# File times move in ticks of at most 10 ms (HZ=100): a file written within two ticks of the look at it is read again.
TICK_NS = 20_000_000
# What merely running a test suite leaves behind; the lowest precedence, so a repository's own rules overrule it.
DROPPINGS = "__pycache__/\n*.py[co]\n.pytest_cache/\n.mypy_cache/\n.ruff_cache/\n.hypothesis/\n.coverage\n.coverage.*\n"
WHY_CHARACTERS_MAX = 4_000  # a journal record is read by people
NAMED_MAX = 1_000  # paths listed beside the tree; an agent decides how many there are


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A repository-wide tree and what was seen while making it.

    `complete` False (with `why`) means that something could not be taken as it is: INCONCLUSIVE, opens no gate.
    `foreign`: nested repositories and names no tree may hold; `protected_changed`: protected paths found differing in
    the workspace (the tree has the base's); `ignored`: files that the base's rules keep out; `links_out`: new or
    changed symbolic links that lead out of the repository. `files` and `bytes` count the writable part.
    """

    tree: str
    changes: tuple[Change, ...]
    complete: bool
    why: str
    files: int
    bytes: int
    foreign: tuple[str, ...]
    protected_changed: tuple[str, ...]
    ignored: tuple[str, ...]
    links_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of a repository may change: a directory ("." is all), less the protected paths below it."""

    thread: str
    protected: tuple[str, ...]

    def holds(self, path: str) -> bool:
        """Whether `path` may change."""
        return self.within(path) and not self.guards(path)

    def within(self, path: str) -> bool:
        """Whether `path` lies in the directory."""
        return self.thread == "." or path.startswith(self.thread + "/")

    def guards(self, path: str) -> bool:
        """Whether `path` is protected, or lies in a protected directory."""
        return path in self.protected or path.startswith(tuple(name + "/" for name in self.protected))

    def repository_path(self, path: str) -> str:
        """A path relative to the directory, as the repository names it."""
        return path if self.thread == "." else f"{self.thread}/{path}"


class Snapshots:
    """The snapshots of one workspace: keeps an index and the stat data of every file it has read."""

    def __init__(self, store: Store, base_tree: str, part: Part, state: str, limits: Limits) -> None:
        """`state` is a private directory for the index and the base's ignore rules."""
        self._store, self._base_tree, self._part, self._limits = store, base_tree, part, limits
        self._state = state
        self.stored = 0  # bytes of new content put into the store by all snapshots of this workspace
        self._index = store.index(os.path.join(state, "index"))
        self._base = {node.path: (node.mode, node.blob) for node in store.ls(base_tree, (part.thread,))}
        self._held: dict[str, tuple[int, str]] | None = None  # None: the index must be loaded again
        self._tree = base_tree
        self._known: dict[str, tuple[Entry, str, int]] = {}
        self._ignored: dict[str, bool] = {}
        self._links: dict[str, str] = {}
        self._rules()

    def _rules(self) -> None:
        """The base's ignore files, alone in a work tree of their own for `git check-ignore`."""
        self._ignore = os.path.join(self._state, "ignore")
        os.makedirs(self._ignore, mode=0o700, exist_ok=True)
        exclude = os.path.join(self._state, "exclude")
        if os.path.exists(exclude):
            return  # a workspace opened again: the base is the same
        nodes = [n for n in self._store.ls(self._base_tree) if posixpath.basename(n.path) == ".gitignore"]
        export(self._store.path, [node for node in nodes if node.mode != LINK], self._ignore, None)
        with open(exclude, "w", encoding="ascii") as file:
            file.write(DROPPINGS)

    def seed(self, tree: str, written: Iterable[tuple[Entry, str]]) -> None:
        """The workspace was just written from `tree` and nobody else has seen it yet: these files need no reading.

        HostError if `tree` differs from the base where this workspace may not.
        """
        beyond = [c.path for c in self._store.diff(self._base_tree, tree) if not self._may(c)]
        if beyond:
            raise HostError(f"the tree differs at {beyond[0]!r}", expected="changes of this workspace only")
        time.sleep(2 * TICK_NS / 1e9)  # so that the first change by anybody gets a later time than these files
        now = time.time_ns()
        self._known = {entry.path: (entry, blob, now) for entry, blob in written}
        self._links.clear()
        self._load(tree)

    def _may(self, change: Change) -> bool:
        return self._part.holds(change.path) and self._part.holds(change.old_path)

    def _load(self, tree: str) -> None:
        self._index.load(tree)
        listed = self._store.ls(tree, (self._part.thread,))
        self._held = {node.path: (node.mode, node.blob) for node in listed if self._part.holds(node.path)}
        self._tree = tree

    def take(self, root: int) -> Snapshot:
        """Look over the open directory `root` (the thread's) and make the tree; nothing in it is followed or run."""
        if self._held is None:
            self._load(self._base_tree)
        held = self._held or {}
        began = time.time_ns()
        found = walk.scan(root, self._limits)
        found.reasons = [reason._replace(path=self._part.repository_path(reason.path)) for reason in found.reasons]
        entries = {self._part.repository_path(path): entry for path, entry in found.entries.items()}
        fresh = [path for path, entry in entries.items() if not self._unchanged(path, entry)]
        ignored = self._ignored_among([path for path in fresh if path not in self._base and path not in held])
        with self._store.writing() as writer:
            for path in fresh:
                if path not in ignored:
                    self._read(root, path, entries[path], began=began, writer=writer, found=found)
        now = {path: (entry.mode, self._known[path][1]) for path, entry in entries.items() if path in self._known}
        guarded = tuple(path for path in {**self._base, **now} if self._part.guards(path) and self._differs(path, now))
        wanted = {path: value for path, value in now.items() if not self._part.guards(path)}
        self._unify(wanted, held, found)
        tree = self._write(wanted, held)
        for path in [path for path in self._known if path not in entries]:
            del self._known[path]
        self._links = {path: target for path, target in self._links.items() if path in wanted}
        why = "; ".join(reason.text() for reason in found.reasons)[:WHY_CHARACTERS_MAX]
        return Snapshot(
            tree=tree,
            changes=self._store.diff(self._base_tree, tree),
            complete=not found.reasons,
            why=why,
            files=len(entries),
            bytes=found.bytes,
            foreign=_shown(self._part.repository_path(path) for path in found.foreign),
            protected_changed=_shown(guarded),
            ignored=_shown(sorted(ignored)),
            links_out=_shown(sorted(self._links)),
        )

    def _unchanged(self, path: str, entry: Entry) -> bool:
        known = self._known.get(path)
        if known is None:
            return False
        seen, _, at = known
        # seen[1:] leaves out the path, which is relative to another directory where the file was exported
        return seen[1:] == entry[1:] and entry.ctime_ns + TICK_NS < at

    def _differs(self, path: str, now: dict[str, tuple[int, str]]) -> bool:
        return self._base.get(path) != now.get(path)

    def _read(self, root: int, path: str, entry: Entry, *, began: int, writer: BlobWriter, found: Scan) -> None:
        """Read one file or link and store its content; a reason in `found` where that fails."""
        before = self._known.pop(path, None)
        try:
            content = walk.read_entry(root, entry)
        except OSError as error:
            found.lacks("unreadable", path, error.strerror or "")
            return
        if content is None:
            found.lacks("changed while it was read", path)
            return
        blob = writer.add(content)
        self.stored += len(content) if before is None or before[1] != blob else 0
        self._known[path] = (entry, blob, began)
        self._links.pop(path, None)
        if entry.mode == LINK and self._base.get(path) != (LINK, blob) and _leads_out(path, os.fsdecode(content)):
            self._links[path] = os.fsdecode(content)

    def _unify(self, wanted: dict[str, tuple[int, str]], held: dict[str, tuple[int, str]], found: Scan) -> None:
        """Names that are not UTF-8 can't be shown, journalled or signed: they stay as they were, with a reason."""
        for path in {*wanted, *held}:
            if wanted.get(path) != held.get(path) and not _is_text(path):
                found.lacks("name is not UTF-8", path)
                if path in held:
                    wanted[path] = held[path]
                else:
                    del wanted[path]

    def _write(self, wanted: dict[str, tuple[int, str]], held: dict[str, tuple[int, str]]) -> str:
        removed = [path for path in held if path not in wanted]
        added = [(path, *value) for path, value in wanted.items() if held.get(path) != value]
        added = [change for change in added if not self._in_the_way(change[0])]
        if removed or added:
            self._held = None  # until all of it is done: an error in between leaves the index to be loaded again
            self._index.update(removed, added)
            self._tree = self._index.write()
            self._held = wanted
        return self._tree

    def _in_the_way(self, path: str) -> bool:
        """Whether a file stands where the base has a directory with protected paths: it must not replace them."""
        return any(name.startswith(path + "/") for name in self._part.protected if self._base_has(name))

    def _base_has(self, name: str) -> bool:
        return name in self._base or any(path.startswith(name + "/") for path in self._base)

    def _ignored_among(self, paths: list[str]) -> set[str]:
        """Which of these new paths the base's ignore rules keep out."""
        unknown = [path for path in paths if path not in self._ignored]
        if unknown:
            _, out = git.status(
                ["check-ignore", "--no-index", "-z", "--stdin"],
                git_dir=self._store.path,
                work_tree=self._ignore,
                cwd=self._ignore,
                config={"core.excludesFile": os.path.join(self._state, "exclude")},
                env={
                    "GIT_LITERAL_PATHSPECS": "0"
                },  # not supported by this command; "./" keeps a colon from being magic
                stdin=b"".join(b"./" + os.fsencode(path) + b"\0" for path in unknown),
                ok=frozenset({0, 1}),
            )
            hits = {os.fsdecode(path[2:]) for path in out.split(b"\0")[:-1]}
            self._ignored.update((path, path in hits) for path in unknown)
        return {path for path in paths if self._ignored[path]}


def _shown(paths: Iterable[str]) -> tuple[str, ...]:
    """The first of these paths, fit for UTF-8: undecodable bytes are written out (they name nothing in a tree)."""
    first = itertools.islice(paths, NAMED_MAX)
    return tuple(path.encode("utf-8", "backslashreplace").decode("utf-8") for path in first)


def _is_text(path: str) -> bool:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _leads_out(path: str, target: str) -> bool:
    """Whether a link's text names something outside the repository; other links on the way are not followed."""
    joined = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return target.startswith("/") or joined == ".." or joined.startswith("../")
