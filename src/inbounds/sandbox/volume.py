"""The rootless volume: a private checkout that is a run's only writable place (ADR 0003).

`rw/` holds the thread's directory, `ro/` the declared interfaces and the protected files as they were at the base,
`state/` what snapshots remember. Answers binds as data; knows nothing of namespaces, and never runs what it holds.
"""

import contextlib
import errno
import json
import os
import posixpath
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from inbounds.contracts.errors import HostError, OperatorError
from inbounds.contracts.job import WORK
from inbounds.store import descent, rewind
from inbounds.store.export import Owner
from inbounds.store.salvage import Room, copy_out
from inbounds.store.snapshot import TICK_NS, Part, Snapshot, Snapshots
from inbounds.store.store import Store
from inbounds.store.throwaway import Throwaway
from inbounds.store.walk import DIRECTORY, LINK, Limits

WRITABLE, READ_ONLY = "rw", "ro"  # below a volume's directory
CONTRACTS = ".inbounds"  # a thread's own contract files: never writable by its run (B8)
STATE_VERSION = 1
DECLARED_MAX = 1_000  # interfaces and protected paths: each is a mount, and the kernel allows 100,000 in a namespace
PATH_BYTES_MAX = 1_024


@dataclass(frozen=True, slots=True)
class Bind:
    """One mount of a jail: `source` on the host, `target` inside it; in the given order, later ones on top."""

    source: str
    target: str
    writable: bool


class Volume:
    """A run's workspace; `prepare` makes one, `open` finds it again after a crash."""

    def __init__(
        self, store: Store, directory: str, *, base_tree: str, part: Part, interfaces: Sequence[str],
        owner: Owner | None, limits: Limits,
    ) -> None:  # fmt: skip
        """Use `prepare` or `open`."""
        self.store, self.directory, self.base_tree = store, directory, base_tree
        self._part, self._interfaces, self._owner = part, tuple(interfaces), owner
        # An agent can have its tests run at the very moment it ends: two looks at once would spoil each other.
        self._one_at_a_time = threading.RLock()
        os.makedirs(self._at("state"), mode=0o700, exist_ok=True)
        self._snapshots = Snapshots(store, base_tree, part, self._at("state"), limits)
        self._throwaway = Throwaway(store, part.thread, self.root, owner, self._at("state", "throwaway"))

    @classmethod
    def prepare(
        cls,
        store: Store,
        base_tree: str,
        thread: str,
        interfaces: Sequence[str],
        directory: str,
        *,
        uid: int | None = None,
        gid: int | None = None,
        protected: Sequence[str] = (),
        limits: Limits | None = None,
        watched: bool = True,
    ) -> "Volume":
        """Write the thread's files below `directory`, which must not exist yet or be empty.

        `thread` and the other paths are repository-relative; `protected` are acceptance tests and other files below
        the thread that the run may read only (the contracts always are). `uid`, `gid`: the jail's user, root only.
        `watched`: snapshots will be taken, the first of them fast. OperatorError for a path that is missing at the
        base or a symbolic link; HostError for a full disk; on either, nothing is left behind.
        """
        thread = _clean(thread)
        declared = [_clean(path) for path in (*interfaces, *protected)]
        if len(declared) > DECLARED_MAX:
            raise OperatorError(f"{len(declared)} paths are declared", expected=f"at most {DECLARED_MAX}")
        inside = [path for path in declared if thread == "." or path.startswith(thread + "/")]
        outside = [path for path in declared[: len(interfaces)] if path not in inside]
        contracts = CONTRACTS if thread == "." else f"{thread}/{CONTRACTS}"
        part = Part(thread, tuple(dict.fromkeys([contracts, *inside])))
        owner = None if uid is None else Owner(uid, uid if gid is None else gid)
        _check_paths(store, base_tree, [thread, *declared[: len(interfaces)]], part.protected)
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            os.chmod(directory, 0o700)
            if os.listdir(directory):
                raise HostError(f"{directory} is not empty", expected="a directory for a new workspace")
        except OSError as error:
            raise HostError(f"no workspace can be made: {error}", where=directory) from error
        try:
            volume = cls(
                store, directory, base_tree=base_tree, part=part, interfaces=outside, owner=owner,
                limits=limits or Limits(),
            )  # fmt: skip
            volume._fill(base_tree, watched=watched)
            volume._fill_read_only()
            volume._remember()
        except BaseException:
            descent.delete_tree(directory)
            raise
        return volume

    @classmethod
    def open(cls, store: Store, directory: str, *, limits: Limits | None = None) -> "Volume":
        """A workspace that `prepare` finished; its first snapshot reads every file again."""
        try:
            with open(os.path.join(directory, "state", "volume.json"), encoding="utf-8") as file:
                kept = json.load(file)
        except (OSError, ValueError) as error:
            raise HostError(f"{directory} holds no workspace: {error}", expected="one made by inbounds") from error
        if kept["version"] != STATE_VERSION:
            raise HostError(f"workspace version {kept['version']}", expected=str(STATE_VERSION), where=directory)
        return cls(
            store, directory, base_tree=kept["base_tree"], part=Part(kept["thread"], tuple(kept["protected"])),
            interfaces=kept["interfaces"], owner=Owner(*kept["owner"]) if kept["owner"] else None,
            limits=limits or Limits(),
        )  # fmt: skip

    def _at(self, *parts: str) -> str:
        return os.path.normpath(os.path.join(self.directory, *parts))

    @property
    def root(self) -> str:
        """The thread's directory on the host: what is writable."""
        return self._at("rw", self._part.thread)

    @property
    def protected(self) -> tuple[str, ...]:
        """Repository paths in the thread that the run may not change; snapshots take them from the base."""
        return self._part.protected

    @property
    def exists(self) -> bool:
        """Whether what the run may write is still in its place."""
        return os.path.lexists(self._at("rw"))

    @property
    def owner(self) -> int | None:
        """The user number that its files have, None where it is the caller's own."""
        return self._owner.uid if self._owner else None

    def binds(self) -> tuple[Bind, ...]:
        """What a jail shows of the repository: the thread writable, interfaces and protected paths read-only."""
        shown = [path for path in (*self._interfaces, *self._part.protected) if os.path.lexists(self._at("ro", path))]
        return (
            Bind(self.root, posixpath.normpath(posixpath.join(WORK, self._part.thread)), writable=True),
            *(Bind(self._at("ro", path), posixpath.join(WORK, path), writable=False) for path in shown),
        )

    # -- making it

    def _fill(self, tree: str, *, watched: bool = True) -> None:
        """Write the thread's files of `tree` into a new `rw/` and make the agent's own repository there."""
        target = self._at("rw")
        os.mkdir(target, 0o755)
        written = self.store.export(tree, target, (self._part.thread,), self._owner)
        os.makedirs(self.root, mode=0o755, exist_ok=True)
        contracts = self._at("rw", self._part.protected[0])
        os.makedirs(contracts, mode=0o755, exist_ok=True)  # where the read-only one is mounted
        if self._owner:
            for path in {target, self.root, contracts}:
                os.chown(path, self._owner.uid, self._owner.gid, follow_symlinks=False)
        self._throwaway.make(tree)
        if watched:
            with self._opened() as root:
                self._snapshots.seed(root, tree, written)
            self._throwaway.mark()

    def _fill_read_only(self) -> None:
        target = self._at("ro")
        os.mkdir(target, 0o755)
        wanted = (*self._interfaces, *self._part.protected)
        self.store.export(self.base_tree, target, wanted, self._owner)
        os.makedirs(self._at("ro", self._part.protected[0]), mode=0o755, exist_ok=True)

    def _remember(self) -> None:
        kept = {
            "version": STATE_VERSION,
            "base_tree": self.base_tree,
            "thread": self._part.thread,
            "protected": self._part.protected,
            "interfaces": self._interfaces,
            "owner": [self._owner.uid, self._owner.gid] if self._owner else None,
        }
        with open(self._at("state", "volume.json"), "w", encoding="utf-8") as file:
            json.dump(kept, file)
            file.flush()
            os.fsync(file.fileno())

    # -- during the run

    def snapshot(self, *, alive: bool = True) -> Snapshot:
        """The workspace as a repository-wide tree in the store, compared with the base; INCONCLUSIVE has a reason.

        `alive` False: no process that can write there lives, frozen or not. Else what is read is read again next time.
        """
        with self._one_at_a_time:
            with self._opened() as root:
                try:
                    return self._snapshots.take(root, alive=alive)
                except OSError as error:
                    raise HostError(f"the workspace cannot be looked over: {error}", where=self.root) from error

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        """The thread's directory."""
        try:
            root = os.open(self.root, DIRECTORY)
        except OSError as error:
            raise HostError(f"the workspace cannot be opened: {error.strerror}", where=self.root) from error
        try:
            yield root
        finally:
            os.close(root)

    def usage(self) -> descent.Usage:
        """Bytes and inodes in use now; the agent may be at work."""
        return descent.usage(self._at("rw"))

    @property
    def stored(self) -> int:
        """Bytes of content that this workspace's snapshots have added to the store, whatever became of them."""
        return self._snapshots.stored

    # -- after the run, or between two iterations: no process of the run may be alive

    def restore(self, tree: str) -> None:
        """Make the workspace hold exactly `tree` (one of its snapshots, or the base), the agent's repository included.

        What nobody touched since it was written stays. A workspace that was opened again is written anew, and so is
        one with anything odd: the binds' sources are new directories then, and jails that still run keep the old ones.
        """
        with self._one_at_a_time:
            self._snapshots.refuse_beyond(tree)
            try:
                done = not os.path.lexists(self._at("state", "replaced")) and self._rewound(tree)
            except (HostError, OSError):  # something stands where it can't: if all anew fails, too, that says why
                done = False
            if not done:
                self._replace(tree)

    def _rewound(self, tree: str) -> bool:
        """Whether writing what was touched is enough; where not, all is to be replaced."""
        if not os.path.isdir(self.root):
            return False
        from concurrent.futures import ThreadPoolExecutor

        with self._opened() as root:
            with ThreadPoolExecutor(1) as meanwhile:  # they have nothing in common, and each is many short processes
                renewed = meanwhile.submit(self._throwaway.renew, tree)
                kept = self._part.protected[0]
                done = self._snapshots.rewind(root, tree, self._at("rw"), self._owner, kept=kept)
            if not done:
                return False
            if not renewed.result():
                rewind.clear(root, [".git"], lambda _: False, self._owner)
                self._throwaway.make(tree)
                time.sleep(2 * TICK_NS / 1e9)
                self._throwaway.mark()
        return True

    def _replace(self, tree: str) -> None:
        old = self._at("state", "replaced")
        descent.delete_tree(old)
        try:
            if os.path.lexists(self._at("rw")):
                os.rename(self._at("rw"), old)
            self._fill(tree)
        except OSError as error:
            raise HostError(f"the workspace cannot be restored: {error}", where=self.directory) from error
        descent.delete_tree(old)

    def quarantine(self, destination: str, room: Room | None = None) -> None:
        """Move what the run wrote to `destination` (made 0700), inert: nothing executable, no repository.

        To another file system it is copied, within `room`: the volume is the caller's to destroy then.
        """
        try:
            # Behind a crash between the steps it may have been moved already.
            if os.path.lexists(self._at("rw")) or not os.path.isdir(destination):
                self._move_out(destination, room)
            os.chmod(destination, 0o700)
            if os.geteuid() == 0:
                os.chown(destination, 0, 0)
        except OSError as error:
            raise HostError(f"the workspace cannot be quarantined: {error}", where=destination) from error
        descent.make_inert(destination)
        descent.delete_tree(self._at("ro"))
        descent.delete_tree(self._at("state"))

    def _move_out(self, destination: str, room: Room | None) -> None:
        try:
            os.rename(self._at("rw"), destination)
        except OSError as error:
            if error.errno != errno.EXDEV or room is None:
                raise
            copy_out(self._at("rw"), destination, room)
            descent.delete_tree(self._at("rw"))
        for moved in (self.directory, os.path.dirname(destination)):
            _sync(moved)  # before anybody writes down that it is done

    def discard(self) -> None:
        """Delete the workspace with all that is in it, at any depth."""
        with self._one_at_a_time:
            descent.delete_tree(self.directory)


def _sync(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _clean(path: str) -> str:
    """A repository path in its one form; OperatorError for one that leaves the repository or is none."""
    plain = posixpath.normpath(path) if path else ""
    parts = plain.split("/")
    if (
        not plain
        or plain.startswith("/")
        or ".." in parts
        or ".git" in parts
        or len(os.fsencode(plain)) > PATH_BYTES_MAX
    ):
        raise OperatorError(f"{path!r} is no path in the repository", expected="a relative path such as src/billing")
    if any(ord(sign) < ord(" ") for sign in plain):
        raise OperatorError(f"{path!r} has control characters", expected="a path that can be shown")
    return plain


def _check_paths(store: Store, tree: str, needed: Sequence[str], protected: Sequence[str]) -> None:
    """Paths that are needed exist at the base; a protected one that does not is kept out of every snapshot.

    A mount follows symbolic links on the host: none may be among what is mounted, nor above it (CVE-2026-39861).
    """
    wanted = [path for path in (*needed, *protected) if path != "."]
    above = {"/".join(path.split("/")[:n]) for path in wanted for n in range(1, path.count("/") + 2)}
    modes = store.modes(tree, sorted(above))
    links = [path for path, mode in modes.items() if mode == LINK]
    if links:
        raise OperatorError(f"{links[0]!r} is a symbolic link", expected="a file or directory of the repository itself")
    missing = [path for path in needed if path != "." and path not in modes]
    if missing:
        raise OperatorError(
            f"{missing[0]!r} does not exist at the base commit", expected="a committed file or directory"
        )
