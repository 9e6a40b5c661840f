"""Turn what an agent left in its directory into a repository-wide tree, at the price of what changed.

The tree is the base tree with the writable part replaced; protected paths always come from the base. Ignore rules are
the base's own, so an agent can't hide a file by writing one. Knows nothing of jails or judges.
"""

import itertools
import os
import posixpath
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from inbounds.contracts.errors import HostError
from inbounds.store import filetimes, git, listing, rewind, walk
from inbounds.store.blobs import ObjectWriter
from inbounds.store.export import Owner, export
from inbounds.store.listing import Listing
from inbounds.store.store import Store
from inbounds.store.tree import Change, Node, later_sides
from inbounds.store.walk import LINK, Entry, Limits, Scan

# File times move in ticks of at most 10 ms (HZ=100): a file written within two ticks of the look at it is read again.
TICK_NS = 20_000_000
# What merely running a test suite leaves behind; the lowest precedence, so a repository's own rules overrule it.
DROPPINGS = "__pycache__/\n*.py[co]\n.pytest_cache/\n.mypy_cache/\n.ruff_cache/\n.hypothesis/\n.coverage\n.coverage.*\n"
WHY_CHARACTERS_MAX = 4_000  # a journal record is read by people
DELTA_MAX = 20_000  # lines of a difference that are looked at one by one; beyond, a scan is no slower
NAMED_MAX = 1_000  # paths listed beside the tree; an agent decides how many there are


NEVER = 0  # as the time of a reading: it says nothing of what comes after
COMPARED_MAX = 4  # pairs of trees whose difference is kept

Held = dict[str, tuple[int, str]]  # a tree's files: mode and blob
Known = tuple[Entry, str, int]  # a file that was read: what it was, its blob, and when
NOTHING = Listing(listing.ALONE, ([],))


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
    _below: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_below", tuple(name + "/" for name in self.protected))

    def holds(self, path: str) -> bool:
        """Whether `path` may change."""
        return self.within(path) and not self.guards(path)

    def within(self, path: str) -> bool:
        """Whether `path` lies in the directory."""
        return self.thread == "." or path.startswith(self.thread + "/")

    def guards(self, path: str) -> bool:
        """Whether `path` is protected, or lies in a protected directory."""
        return path.startswith(self._below) or path in self.protected

    def repository_path(self, path: str) -> str:
        """A path relative to the directory, as the repository names it."""
        return path if self.thread == "." else f"{self.thread}/{path}"


@dataclass(slots=True)
class _Look:
    """What stood in the workspace, by repository path, and the listing that was made just before.

    `racy`: what a later change can have left with the same times, and is to be read again.
    """

    lines: Listing
    entries: dict[str, Entry]
    size: int  # bytes of all files
    ignored: set[str] = field(default_factory=set)
    guarded: set[str] = field(default_factory=set)
    racy: set[str] = field(default_factory=set)

    def take(self, entries: dict[str, Entry], gone: Iterable[str], lines: Listing) -> None:
        """Make it a later look, in which these files are as given, these gone and all others unchanged."""
        self.lines = lines
        for path in (*gone, *entries):
            before = self.entries.pop(path, None)
            self.size -= before.size if before else 0
        self.ignored.difference_update(gone)
        self.entries.update(entries)
        self.size += sum(entry.size for entry in entries.values())


class Snapshots:
    """The snapshots of one workspace: keeps the stat data of every file it has read."""

    def __init__(self, store: Store, base_tree: str, part: Part, state: str, limits: Limits) -> None:
        """`state` is a private directory on the workspace's file system, for the base's ignore rules."""
        self._store, self._base_tree, self._part, self._limits = store, base_tree, part, limits
        self._state = state
        self.stored = 0  # bytes of new content put into the store by all snapshots of this workspace
        self._base = {node.path: (node.mode, node.blob) for node in store.ls(base_tree, (part.thread,))}
        self._below = _files_below(self._base)
        there = (name for name in part.protected if name in self._base or self._below[name])
        self._above_protected = frozenset(above for name in there for above in _parents(name))
        self._held: Held | None = None  # what `_tree` has where this workspace may write; None: to be listed again
        self._tree = base_tree
        self._known: dict[str, Known] = {}
        self._ignored: dict[str, bool] = {}
        self._links: dict[str, str] = {}
        self._look: _Look | None = None  # the last one, where nothing odd was in it
        self._origin: tuple[str, Listing] | None = None  # the tree that was written last, and how it was listed
        self._shares = listing.ALONE
        self._compared: dict[tuple[str, str], tuple[Change, ...]] = {}
        self._times: bool | None = None  # whether they tell of every change
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

    def seed(self, root: int, tree: str, written: Iterable[tuple[Entry, str]]) -> None:
        """The workspace was just written from `tree` and nobody else has seen it yet: these files need no reading.

        `root` is its open directory, the entries' paths are the repository's. HostError if `tree` differs from the
        base where this workspace may not.
        """
        self.refuse_beyond(tree)
        time.sleep(2 * TICK_NS / 1e9)  # so that the first change by anybody gets a later time than these files
        now = time.time_ns() if self._times_tell(root) else NEVER
        self._known, self._links = {}, {}
        own = len(self._part.repository_path(""))
        for entry, blob in written:
            self._known[entry.path] = (entry, blob, now)
            if entry.mode == LINK:
                self._link(entry.path, blob, walk.read_entry(root, entry._replace(path=entry.path[own:])) or b"")
        self._load(tree)
        self._look = self._origin = None
        lines = listing.lines(root, self._limits) if self._times_tell(root) else None
        if lines is not None and (shares := lines.again()) != self._shares:
            self._shares = shares  # once more, so that later ones are made as the one they are compared with
            lines = listing.lines(root, self._limits, shares)
        if lines is not None and (look := self._as_written(lines)) and self._faultless(look):
            self._look, self._origin = look, (tree, lines)

    def rewind(self, root: int, tree: str, place: str, owner: Owner | None, *, kept: str) -> bool:
        """Make the workspace hold exactly `tree` by writing what was touched since it was written, and nothing else.

        `place` is the directory that is the repository's root, of which `root` is the thread's; `kept` is the path of
        a directory in the thread's that is there although it may be empty. False where all must be written anew (as
        behind an error): what is there is of no use then.
        """
        origin, self._origin, self._look = self._origin, None, None
        held, self._held = self._held, None
        lines = listing.lines(root, self._limits, self._shares) if origin and held is not None else None
        if origin is None or held is None or lines is None:
            return False
        difference = lines.since(origin[1])
        seen = difference.kinds().keys()
        named, own = self._part.repository_path, len(self._part.repository_path(""))
        moved = later_sides(self._between(origin[0], tree))
        paths = {named(path) for path in seen if path} | moved.keys()
        if len(paths) > DELTA_MAX:
            return False
        wanted = _Wanted(self._base, self._below, later_sides(self._between(self._base_tree, tree)))
        emptied = {above for path in moved for above in _parents(path) if len(above) > own}  # or not: see what stays
        inside = [path[own:] for path in paths | emptied] + ([""] if "" in seen else [])
        if not rewind.clear(root, inside, lambda path: wanted.directory(named(path)) or named(path) == kept, owner):
            return False
        files = [(path, wanted.file(path)) for path in sorted(paths, key=os.fsencode)]
        nodes = [Node(value[0], "blob", value[1], path, 0) for path, value in files if value]
        export(self._store.path, nodes, place, owner)
        rewind.make_directory(root, kept[own:], owner)
        for path, _ in files:
            self._known.pop(path, None)
            self._links.pop(path, None)
        # What came behind the origin and has gone again was only in a tree: in no listing, and in none of these files.
        for path, value in {**later_sides(self._between(self._tree, tree)), **dict(files)}.items():
            if value and not self._part.guards(path):
                held[path] = value
            else:
                held.pop(path, None)
        # What was just written is in none of these lines: the next look reads it, and the next going back writes it.
        self._look = self._as_written(lines.without(difference.come))
        self._held, self._tree, self._origin = held, tree, origin
        return True

    def refuse_beyond(self, tree: str) -> None:
        """HostError if `tree` differs from the base where this workspace may not."""
        beyond = [c.path for c in self._between(self._base_tree, tree) if not self._may(c)]
        if beyond:
            raise HostError(f"the tree differs at {beyond[0]!r}", expected="changes of this workspace only")

    def _may(self, change: Change) -> bool:
        return self._part.holds(change.path) and self._part.holds(change.old_path)

    def _as_written(self, lines: Listing) -> "_Look | None":
        """What a look at just the known files of the workspace shows; None if these lines are not of just these."""
        entries = {path: known[0] for path, known in self._known.items()}
        if lines.files() != len(entries):
            return None
        return _Look(lines, entries, sum([entry.size for entry in entries.values()]))

    def _faultless(self, look: "_Look") -> bool:
        """Whether a scan would have nothing to say of any of these files."""
        limits = self._limits
        return (
            len(look.lines) <= limits.entries_max
            and look.size <= limits.bytes_max
            and not any(
                entry.size > limits.file_bytes_max
                or path.count("/") >= limits.depth_max
                or len(path) * 4 > limits.path_bytes_max
                or (entry.mode == LINK and walk.is_foreign(posixpath.basename(path), LINK))
                for path, entry in look.entries.items()
            )
        )

    def _load(self, tree: str) -> None:
        listed = self._store.ls(tree, (self._part.thread,))
        self._held = {node.path: (node.mode, node.blob) for node in listed if self._part.holds(node.path)}
        self._tree = tree

    def take(self, root: int, *, alive: bool = True) -> Snapshot:
        """Look over the open directory `root` (the thread's) and make the tree; nothing in it is followed or run.

        `alive`: a process that can write there may live, frozen or not. It may have a file mapped or be in the middle
        of writing one, and go on without a trace in the times: what is read now is read again at the next look.
        """
        former, self._look = self._look, None  # until all is done: behind an error everything is looked at again
        if self._held is None:
            former = None
            self._load(self._base_tree)
        held = self._held or {}
        trusted = self._times_tell(root)
        began = time.time_ns() if trusted and not alive else NEVER
        # Before anything else is looked at: whatever changes from here on is in the next listing's difference.
        lines = listing.lines(root, self._limits, self._shares) if trusted else None
        found = Scan()
        try:
            with self._store.writing() as writer:
                look = changed = None
                if former and lines:
                    look, changed = self._differing(root, former, lines, held, began=began, writer=writer)
                if look is None or changed is None:
                    self._shares = lines.again() if lines else self._shares
                    found = walk.scan(root, self._limits)
                    look, changed = self._everything(root, found, lines or NOTHING, held, began=began, writer=writer)
                removed, added = self._turned(changed, held, found)
                # A file in the place of a directory with protected paths must not replace them.
                put = [change for change in added if change[0] not in self._above_protected]
                tree = writer.tree(self._tree, removed, put) if removed or put else self._tree
        except BaseException:
            self._known = {}  # what was read may not be in the store
            raise
        for path in removed:
            del held[path]
        held.update((path, (mode, blob)) for path, mode, blob in added)
        self._tree = tree
        self._links = {path: target for path, target in self._links.items() if path in held}
        if lines and not found.reasons and not found.foreign:
            self._look = look
        return Snapshot(
            tree=tree,
            changes=self._between(self._base_tree, tree),
            complete=not found.reasons,
            why="; ".join(reason.text() for reason in found.reasons)[:WHY_CHARACTERS_MAX],
            files=len(look.entries),
            bytes=look.size,
            foreign=_shown(self._part.repository_path(path) for path in found.foreign),
            protected_changed=_shown(sorted(look.guarded)),
            ignored=_shown(sorted(look.ignored)),
            links_out=_shown(sorted(self._links)),
        )

    def _between(self, old: str, new: str) -> tuple[Change, ...]:
        """What differs; many looks find what one before found, and one goes back to a tree of a look."""
        if (old, new) not in self._compared:
            while len(self._compared) >= COMPARED_MAX:
                del self._compared[next(iter(self._compared))]
            self._compared[old, new] = self._store.diff(old, new)
        return self._compared[old, new]

    def _times_tell(self, root: int) -> bool:
        if self._times is None:
            self._times = filetimes.tell(self._state, os.fstat(root).st_dev)
        return self._times

    # -- the whole workspace

    def _everything(
        self, root: int, found: Scan, lines: Listing, held: Held, *, began: int, writer: ObjectWriter
    ) -> tuple["_Look", list[str]]:
        """Read what is not known of all that a scan found; with every path that is in the workspace or in `held`."""
        found.reasons = [reason._replace(path=self._part.repository_path(reason.path)) for reason in found.reasons]
        entries = {self._part.repository_path(path): entry for path, entry in found.entries.items()}
        fresh = [path for path, entry in entries.items() if not self._unchanged(path, entry)]
        ignored = self._ignored_among([path for path in fresh if path not in self._base and path not in held])
        for path in fresh:
            if path not in ignored:
                self._read(root, path, entries[path], began=began, writer=writer, found=found)
        for path in [path for path in self._known if path not in entries]:
            del self._known[path]
        look = _Look(lines, entries, found.bytes, ignored)
        look.guarded = {path for path in {**self._base, **entries} if self._part.guards(path) and self._guarded(path)}
        look.racy = {path for path, known in self._known.items() if not _settled(known)}
        return look, [*self._known, *(path for path in held if path not in self._known)]

    def _unchanged(self, path: str, entry: Entry) -> bool:
        known = self._known.get(path)
        if known is None:
            return False
        # [1:] leaves out the path, which is relative to another directory where the file was exported
        return known[0][1:] == entry[1:] and _settled(known)

    # -- what is not as it was at the former look

    def _differing(
        self, root: int, former: "_Look", lines: Listing, held: Held, *, began: int, writer: ObjectWriter
    ) -> tuple["_Look | None", list[str]]:
        """Look at what two listings don't share and read it; the former look made the present one, and these paths.

        None where a scan is needed: for anything that is no plain file, link or directory within the limits, or that
        did not hold still. Whatever was read by then is no less true.
        """
        fresh = self._seen(root, former, lines)
        if fresh is None:
            return None, []
        entries, gone = fresh
        unknown = [path for path in entries if path not in self._known]
        ignored = self._ignored_among([path for path in unknown if path not in self._base and path not in held])
        found = Scan()
        for path, entry in entries.items():
            if path not in ignored:
                self._read(root, path, entry, began=began, writer=writer, found=found)
        if found.reasons:
            return None, []
        former.take(entries, gone, lines)
        if former.size > self._limits.bytes_max:
            return None, []
        for path in gone:
            self._known.pop(path, None)
        former.ignored |= ignored
        for path in (*entries, *gone):
            (former.guarded.add if self._part.guards(path) and self._guarded(path) else former.guarded.discard)(path)
        former.racy = {path for path in entries.keys() - ignored if not _settled(self._known[path])}
        return former, [*entries, *gone]

    def _seen(self, root: int, former: "_Look", lines: Listing) -> tuple[dict[str, Entry], list[str]] | None:
        """The files that must be read, as they are now, and the paths where none is any more; None: scan."""
        delta = lines.since(former.lines)
        if len(delta.gone) + len(delta.come) > DELTA_MAX or len(lines) > self._limits.entries_max + 1:
            return None
        kinds = delta.kinds()
        kinds.pop("", None)  # the workspace itself: what it holds counts
        if not all(map(_is_text, kinds)):
            return None
        own = len(self._part.repository_path(""))
        for path in former.racy:
            kinds.setdefault(path[own:], "l" if former.entries[path].mode == LINK else "f")
        found, directories = walk.look(root, kinds, self._limits)
        if found.reasons or found.foreign:
            return None
        for path, kind in kinds.items():
            entry = found.entries.get(path)
            now = "d" if path in directories else "" if entry is None else "l" if entry.mode == LINK else "f"
            if now != kind:
                return None
        named = self._part.repository_path
        return {named(path): entry for path, entry in found.entries.items()}, [
            named(path) for path, kind in kinds.items() if kind in ("", "d") and named(path) in former.entries
        ]

    # -- both

    def _guarded(self, path: str) -> bool:
        """Whether a protected path differs from the base."""
        known = self._known.get(path)
        return self._base.get(path) != (known and (known[0].mode, known[1]))

    def _read(self, root: int, path: str, entry: Entry, *, began: int, writer: ObjectWriter, found: Scan) -> None:
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
        blob = writer.add(content, stored=before[1] if before else "")
        self.stored += len(content) if before is None or before[1] != blob else 0
        self._known[path] = (entry, blob, began)
        self._links.pop(path, None)
        if entry.mode == LINK:
            self._link(path, blob, content)

    def _link(self, path: str, blob: str, target: bytes) -> None:
        """Note a link that leads out, unless it is the base's."""
        if self._base.get(path) != (LINK, blob) and _leads_out(path, os.fsdecode(target)):
            self._links[path] = os.fsdecode(target)

    def _turned(self, paths: Iterable[str], held: Held, found: Scan) -> tuple[list[str], list[tuple[str, int, str]]]:
        """Of these paths, what must be taken out of the tree that is held and what put in.

        Names that are not UTF-8 can't be shown, journalled or signed: they stay as they were, with a reason.
        """
        removed, added, undecodable = [], [], []
        for path in paths:
            known, before = self._known.get(path), held.get(path)
            value = (known[0].mode, known[1]) if known and not self._part.guards(path) else None
            if value == before:
                continue
            if not _is_text(path):
                undecodable.append(path)
            elif value is None:
                removed.append(path)
            else:
                added.append((path, *value))
        for path in sorted(undecodable):
            found.lacks("name is not UTF-8", path)
        return removed, added

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


class _Wanted:
    """The files of a tree and their directories, by what it has otherwise than the base."""

    def __init__(self, base: Held, below: Counter[str], otherwise: dict[str, tuple[int, str] | None]) -> None:
        """`below`: how many files of the base each directory has below it."""
        self._base, self._below, self._otherwise = base, below, otherwise
        self._more = Counter[str]()
        for path, value in otherwise.items():
            change = (value is not None) - (path in base)
            self._more.update(dict.fromkeys(_parents(path), change))

    def file(self, path: str) -> tuple[int, str] | None:
        """Mode and blob of the file at `path`."""
        return self._otherwise[path] if path in self._otherwise else self._base.get(path)

    def directory(self, path: str) -> bool:
        """Whether `path` has files below it."""
        return self._below[path] + self._more[path] > 0


def _settled(known: Known) -> bool:
    """Whether every change behind the reading shows in the file's times."""
    entry, _, at = known
    return entry.ctime_ns + TICK_NS < at


def _files_below(files: Iterable[str]) -> Counter[str]:
    """How many files each directory has below it."""
    below = Counter[str]()
    for directory, count in Counter(path.rpartition("/")[0] for path in files).items():
        below.update(dict.fromkeys((directory, *_parents(directory)), count))
    return below


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


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
