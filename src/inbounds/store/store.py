"""The trusted git store: a bare repository outside every jail, in which trees are made, compared and committed.

Everything is done by git plumbing on objects; no work tree of an agent is ever given to git. Knows nothing of runs,
plans or policies; protected refs are not its to move (promote/ does).
"""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from inbounds.contracts.errors import HostError, OperatorError, RefusedError
from inbounds.store import git, hooks
from inbounds.store.blobs import ObjectWriter
from inbounds.store.export import Owner, check_space, export
from inbounds.store.index import Index
from inbounds.store.tree import GITLINK, Change, Lines, Node, changes, lines, nodes
from inbounds.store.walk import FILE, LINK, Entry

OBJECT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# A strict subset of git-check-ref-format(1): what this project makes itself.
REF = re.compile(r"refs/[A-Za-z0-9_-]+(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+")
FETCH_TIMEOUT_S = 1_800.0  # the first fetch copies a whole history
BLOB_BYTES_MAX = 100 << 20  # as walk.Limits.file_bytes_max
PATCH_BYTES_MAX = 8 << 20  # what a report shows; a person reads far less
RENAMES_MAX = 1_000  # candidates compared for renames: cost is their square
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
LFS_POINTER_BYTES_MAX = 1_024  # the LFS specification's own bound
NAMES_SHOWN = 10
NAMED_MAX = 500  # paths on one command line (ARG_MAX is 2 MiB); with more, the whole tree is listed


def repo_key(path: str) -> str:
    """The directory name of a repository's store: its own name, and 16 hex digits of its real path's hash."""
    real = os.path.realpath(path)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", os.path.basename(real)).strip("-")[:40] or "repository"
    return f"{name}-{hashlib.sha256(os.fsencode(real)).hexdigest()[:16]}"


def object_format_of(source: str) -> str:
    """sha1 or sha256: what the repository at `source` names its objects by, for `Store.create`."""
    env = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    args = ["rev-parse", "--show-object-format"]
    return git.run(args, git_dir=_repository(source, env), env=env).decode("ascii").strip()


class Store:
    """One bare repository; every method is a few git processes, and their cost grows with what changed."""

    def __init__(self, path: str, object_format: str) -> None:
        """Use `create` or `open`; `object_format` is sha1 or sha256."""
        self.path, self.object_format = path, object_format
        self.null_id = "0" * (40 if object_format == "sha1" else 64)

    @classmethod
    def create(cls, path: str, *, object_format: str = "sha1") -> "Store":
        """Make the store at `path` (…/store.git) with directories 0700, or open what is there."""
        if os.path.exists(os.path.join(path, "HEAD")):
            return cls.open(path)
        try:
            os.makedirs(path, mode=0o700, exist_ok=True)
            os.chmod(path, 0o700)
        except OSError as error:
            raise HostError(f"no store can be made at {path}: {error.strerror}", where=path) from error
        git.run(["init", "--quiet", "--bare", "--template=", f"--object-format={object_format}", path])
        store = cls.open(path)
        for key, value in (("receive.denyNonFastForwards", "true"), ("receive.denyDeletes", "true")):
            store.git("config", "--local", key, value)
        store.git("mktree")  # the empty tree, which comparisons start from
        return store

    @classmethod
    def open(cls, path: str) -> "Store":
        """Open an existing store and put its hooks in place; HostError if there is none."""
        if not os.path.exists(os.path.join(path, "HEAD")):
            raise HostError(f"there is no store at {path}", expected="a bare git repository", where=path)
        known = git.run(["rev-parse", "--show-object-format"], git_dir=path).decode("ascii").strip()
        hooks.install(path)
        return cls(os.path.realpath(path), known)

    def git(self, *args: str, stdin: bytes = b"", limit: int = git.OUTPUT_BYTES_MAX) -> str:
        """Run one hardened plumbing command on this store and return its text, stripped."""
        return git.run(args, git_dir=self.path, stdin=stdin, limit=limit).decode("utf-8", "surrogateescape").strip()

    # -- from the operator's repository

    def fetch(self, source: str, rev: str = "HEAD") -> str:
        """Copy the objects of `rev` from the repository at `source`, by local path; return the commit id.

        Shallow histories are copied as they are; a partial clone is refused by name, since its missing objects would
        be fetched from the network.
        """
        env = self._trusting()
        git_dir = _repository(source, env)
        _check_complete(source, git_dir, env)
        known = git.run(["rev-parse", "--show-object-format"], git_dir=git_dir, env=env).decode("ascii").strip()
        if known != self.object_format:
            raise OperatorError(
                f"the repository's objects are {known} now, its store's are {self.object_format}",
                expected="the object format that the store was made for",
                fix=f"move {self.path} away",
                where=source,
            )
        asked = ["rev-parse", "--verify", "--quiet", "--end-of-options", rev + "^{commit}"]
        code, out = git.status(asked, git_dir=git_dir, env=env, ok=frozenset({0, 1, 128}))
        commit = out.decode("ascii", "replace").strip()
        if code or not OBJECT_ID.fullmatch(commit):
            raise OperatorError(
                f"{rev!r} names no commit",
                expected="a commit, a branch or HEAD with a first commit",
                fix=f"git -C {source} add . && git -C {source} commit -m start",
                where=source,
            )
        _fetch(git_dir, f"+{commit}:refs/inbounds/base/{commit}", self.path, env)
        return commit

    def lend(self, commit: str, git_dir: str, ref: str) -> None:
        """Copy a commit's objects from the store into the repository `git_dir` and set `ref` there."""
        _fetch(self.path, f"+{_object(commit)}:{_ref(ref)}", git_dir, self._trusting())

    def _trusting(self) -> dict[str, str]:
        """Environment in which git reads repositories of other owners: root may run on a user's repository.

        It was named by the operator; git's own question (safe.directory) is about repositories that were come upon.
        """
        return {"GIT_CONFIG_GLOBAL": os.path.join(self.path, hooks.TRUST)}

    def refuse_unsupported(self, tree: str) -> None:
        """OperatorError, naming the paths, if the tree has submodules or files whose content is elsewhere (LFS)."""
        listed = self.ls(tree)
        modules = [node.path for node in listed if node.mode == GITLINK]
        if modules:
            raise OperatorError(
                f"submodules are not supported: {_some(modules)}",
                expected="a repository whose files are all its own",
                fix="git rm --cached them on a branch of their own, or vendor their files",
            )
        attributes = [node for node in listed if node.path.rpartition("/")[2] == ".gitattributes" and node.mode != LINK]
        with git.Batch(self.path, BLOB_BYTES_MAX) as batch:
            if not any(b"filter=lfs" in batch.read(node.blob) for node in attributes):
                return
            small = [n for n in listed if n.mode != LINK and len(LFS_POINTER) <= n.size < LFS_POINTER_BYTES_MAX]
            pointers = [n.path for n in small if batch.read(n.blob).startswith(LFS_POINTER)]
        if pointers:
            raise OperatorError(
                f"Git LFS files are not supported: {_some(pointers)}",
                expected="a repository that contains its files",
                fix="git lfs migrate export --include='*' on a branch of its own",
            )

    # -- reading

    def tree_of(self, commit: str) -> str:
        """The tree id of a commit (or of a tree); HostError if the store has neither."""
        return self.git("rev-parse", "--verify", "--end-of-options", _object(commit) + "^{tree}")

    def subtree(self, tree: str, path: str) -> str:
        """The tree id of a directory of a tree ("." is the tree itself); HostError if there is no such directory."""
        if path == ".":
            return self.tree_of(tree)
        return self.tree_of(self.git("rev-parse", "--verify", "--end-of-options", f"{_object(tree)}:{path}"))

    def ls(self, tree: str, prefixes: Sequence[str] = ()) -> tuple[Node, ...]:
        """All files of a tree in git's order, or those at or below the given paths ("." is all)."""
        wanted = () if "." in prefixes else tuple(prefixes)
        args = ["ls-tree", "-r", "-z", "-l", "--full-tree", _object(tree), *(["--", *wanted] if wanted else [])]
        return nodes(git.run(args, git_dir=self.path))

    def modes(self, tree: str, paths: Sequence[str]) -> dict[str, int]:
        """Git's mode of each of these paths (files, links, directories) that exists; no link is followed."""
        if not paths:
            return {}
        args = ["ls-tree", "-t", "-z", "-l", "--full-tree", _object(tree), "--", *paths]
        wanted = set(paths)
        return {node.path: node.mode for node in nodes(git.run(args, git_dir=self.path)) if node.path in wanted}

    def read_blob(self, blob: str, limit: int = BLOB_BYTES_MAX) -> bytes:
        """The content of a blob; HostError if it is larger than `limit` bytes or missing."""
        with git.Batch(self.path, limit) as batch:
            return batch.read(_object(blob))

    def is_ancestor(self, old: str, new: str) -> bool:
        """Whether `new` contains `old` (a commit contains itself)."""
        args = ["merge-base", "--is-ancestor", _object(old), _object(new)]
        return git.status(args, git_dir=self.path, ok=frozenset({0, 1}))[0] == 0

    def diff(self, old_tree: str, new_tree: str) -> tuple[Change, ...]:
        """What differs between two trees, renames found; ordered by path as git orders it."""
        args = ["diff-tree", "-r", "-z", "-M", f"-l{RENAMES_MAX}", "--raw", "--no-ext-diff", "--no-textconv"]
        return changes(git.run([*args, _object(old_tree), _object(new_tree)], git_dir=self.path))

    def numstat(self, old_tree: str, new_tree: str) -> tuple[Lines, ...]:
        """Lines added and deleted by file; a rename counts as a deletion and an addition."""
        args = ["diff-tree", "-r", "-z", "--no-renames", "--numstat", "--no-ext-diff", "--no-textconv"]
        return lines(git.run([*args, _object(old_tree), _object(new_tree)], git_dir=self.path))

    def patch(self, old_tree: str, new_tree: str, limit_bytes: int = PATCH_BYTES_MAX) -> bytes:
        """A unified diff of at most `limit_bytes`, cut without a mark: longer means `len == limit_bytes`."""
        args = ["diff-tree", "-r", "-p", "-M", f"-l{RENAMES_MAX}", "--full-index", "--no-color", "--no-ext-diff"]
        args += ["--no-textconv", _object(old_tree), _object(new_tree)]
        return git.run(args, git_dir=self.path, limit=limit_bytes, cut=True)

    # -- writing objects

    def write_blob(self, content: bytes) -> str:
        """Store one content, return its id."""
        with self.writing() as writer:
            return writer.add(content)

    def writing(self) -> ObjectWriter:
        """A context in which many blobs, and trees of them, are stored by one process."""
        return ObjectWriter(self.path, self.object_format)

    def index(self, path: str) -> Index:
        """An index file at `path` for making trees of this store."""
        return Index(self.path, path, self.null_id)

    def replace(self, tree: str, wanted: Mapping[str, str | None]) -> str:
        """The tree with the given paths set to blobs (the mode kept, 644 for a new one) or, with None, without them."""
        if not wanted:
            return self.tree_of(tree)
        few = tuple(wanted) if len(wanted) <= NAMED_MAX else ()
        modes = {node.path: node.mode for node in self.ls(tree, few) if node.mode != LINK}
        with self._scratch_index() as index:
            index.load(_object(tree))
            index.update(
                [path for path, blob in wanted.items() if blob is None],
                [(path, modes.get(path, FILE), _object(blob)) for path, blob in wanted.items() if blob is not None],
            )
            return index.write()

    @contextmanager
    def _scratch_index(self) -> Iterator[Index]:
        with tempfile.TemporaryDirectory(prefix="inbounds-index-", dir=self.path) as directory:
            yield self.index(os.path.join(directory, "index"))

    def commit(self, tree: str, parents: Sequence[str], message: str, author: str, when: int) -> str:
        """Store a commit; `author` is "Name <address>", `when` in seconds since 1970 UTC. Same input, same id."""
        match = re.fullmatch(r"([^<>\n]+) <([^<>\n]*)>", author)
        if not match:
            raise OperatorError(f"{author!r} is no author", expected="Name <address>")
        env = {
            f"GIT_{who}_{part}": value
            for who in ("AUTHOR", "COMMITTER")
            for part, value in (("NAME", match[1]), ("EMAIL", match[2]), ("DATE", f"@{when} +0000"))
        }
        args = ["commit-tree", _object(tree)]
        for parent in parents:
            args += ["-p", _object(parent)]
        text = message.encode("utf-8", "backslashreplace").replace(b"\0", b"?")
        return git.run(args, git_dir=self.path, stdin=text, env=env).decode("ascii").strip()

    # -- refs

    def ref(self, name: str) -> str | None:
        """The commit that a full ref name stands at, or None."""
        args = ["rev-parse", "--verify", "--quiet", "--end-of-options", _ref(name)]
        code, out = git.status(args, git_dir=self.path, ok=frozenset({0, 1}))
        return None if code else out.decode("ascii").strip()

    def refs(self, below: str) -> dict[str, str]:
        """Every ref below a full prefix such as refs/inbounds/base, and what it stands at."""
        listed = self.git("for-each-ref", "--format=%(objectname) %(refname)", _ref(below) + "/")
        pairs = (line.split(" ", 1) for line in listed.splitlines())
        return {name: commit for commit, name in pairs}

    def set_ref(self, name: str, new: str, old: str | None) -> bool:
        """Move a ref from `old` (None: it must not exist) to `new`; False if it stands elsewhere (somebody was faster).

        RefusedError for a protected ref: the promoter alone moves these.
        """
        return self.compare_and_swap(_unprotected(name), _object(new), old)

    def delete_ref(self, name: str, old: str) -> bool:
        """Delete a ref that stands at `old`; False if it stands elsewhere."""
        return self.compare_and_swap(_unprotected(name), self.null_id, old)

    def compare_and_swap(self, name: str, new: str, old: str | None) -> bool:
        """As `set_ref`, protected refs included: for the promoter alone, which has checked what it lands."""
        args = ["update-ref", "--no-deref", _ref(name), new, self.null_id if old is None else _object(old)]
        code, _ = git.status(args, git_dir=self.path, ok=frozenset({0, 1, 128}))
        if code == 0:
            return True
        if (found := self.ref(name)) == old:
            raise HostError(f"{name} could not be moved from {found} to {new}", where=self.path)
        return False

    # -- into directories

    def export(
        self, tree: str, directory: str, prefixes: Sequence[str] = (".",), owner: Owner | None = None
    ) -> list[tuple[Entry, str]]:
        """Write the tree's files at or below `prefixes` to `directory`; see `export.export`."""
        listed = self.ls(tree, prefixes)
        check_space(directory, listed)
        return export(self.path, listed, directory, owner)


def _object(name: str) -> str:
    """Nothing but a full object id reaches a command line."""
    if not OBJECT_ID.fullmatch(name):
        raise HostError(f"{name!r} is no object id", expected="40 or 64 hex digits", where="store")
    return name


def _ref(name: str) -> str:
    if not REF.fullmatch(name) or ".." in name or name.endswith((".lock", ".")) or ".lock/" in name:
        raise OperatorError(f"{name!r} is no ref name used here", expected="refs/heads/NAME", where="store")
    return name


def _unprotected(name: str) -> str:
    if name.lower() in hooks.PROTECTED:
        raise RefusedError(f"{name} is protected", expected="an agent branch", fix="inbounds promote")
    return name


def _some(paths: Sequence[str]) -> str:
    shown = ", ".join(repr(path) for path in paths[:NAMES_SHOWN])
    return shown + (f" and {len(paths) - NAMES_SHOWN} more" if len(paths) > NAMES_SHOWN else "")


def _repository(source: str, env: Mapping[str, str]) -> str:
    """The directory of the repository's objects and refs, work trees' pointer files resolved."""
    if not os.path.isdir(source):
        raise OperatorError(f"{source} is no directory", expected="a git repository", where=source)
    args = ["-C", os.path.realpath(source), "rev-parse", "--path-format=absolute", "--git-dir"]
    code, out = git.status(args, env=env, ok=frozenset({0, 128}))
    if code:
        raise OperatorError("this is no git repository", expected="one with a commit", fix="git init", where=source)
    return os.fsdecode(out.rstrip(b"\n"))


def _fetch(source: str, refspec: str, git_dir: str, env: Mapping[str, str]) -> None:
    """Copy objects between two repositories of this machine: no tags, no hooks, no submodules, no maintenance."""
    args = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--update-shallow"]
    args += ["--no-recurse-submodules", "--update-head-ok", "--end-of-options", source, refspec]
    config = {"protocol.file.allow": "always", "protocol.version": "2"}
    env = {**env, "GIT_ALLOW_PROTOCOL": "file"}
    git.run(args, git_dir=git_dir, env=env, config=config, timeout_s=FETCH_TIMEOUT_S)


def _check_complete(source: str, git_dir: str, env: Mapping[str, str]) -> None:
    args = ["config", "--get-regexp", r"^(remote\..*\.promisor|extensions\.partialclone)$"]
    if git.status(args, git_dir=git_dir, env=env, ok=frozenset({0, 1}))[0] == 0:
        raise OperatorError(
            "this is a partial clone: some of its objects are only at its remote",
            expected="a clone that has all its objects",
            fix="git clone without --filter, and run there",
            where=source,
        )
