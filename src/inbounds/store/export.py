"""Write files of a tree into a directory without git's checkout: no filters, no attributes, no hooks, no index.

Every name is created against an open directory, never through a symbolic link. Knows nothing of why.
"""

import contextlib
import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass

from inbounds.contracts.errors import HostError, OperatorError
from inbounds.store import git
from inbounds.store.tree import GITLINK, Node
from inbounds.store.walk import DIRECTORY, EXECUTABLE, FILE, LINK, Entry, is_foreign

# A file is held in memory once while it is written; forges refuse larger ones than this.
FILE_BYTES_MAX = 1 << 30
# What must stay free beside the files themselves: journal, objects of the run, the operator's other work.
RESERVE_BYTES, RESERVE_INODES = 64 << 20, 1_000
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom the files shall belong to; only root can give files away."""

    uid: int
    gid: int


def check_space(directory: str, nodes: Iterable[Node]) -> None:
    """HostError before the first write if the file system of `directory` can't take these files."""
    sizes = [max(node.size, 0) + 4096 for node in nodes]  # whole blocks, and directories come on top
    room = os.statvfs(directory)
    free = room.f_bavail * room.f_frsize
    if free < sum(sizes) + RESERVE_BYTES:
        raise HostError(
            f"{free >> 20} MiB are free at {directory}",
            expected=f"{(sum(sizes) + RESERVE_BYTES) >> 20} MiB for {len(sizes)} files",
            fix=f"free some space there, or set INBOUNDS_HOME to a larger disk (df -h {directory})",
        )
    if room.f_files and room.f_favail < len(sizes) + RESERVE_INODES:
        raise HostError(
            f"{room.f_favail} inodes are free at {directory}",
            expected=f"{len(sizes) + RESERVE_INODES}",
            fix=f"df -i {directory}",
        )


def export(git_dir: str, nodes: Iterable[Node], directory: str, owner: Owner | None) -> list[tuple[Entry, str]]:
    """Write `nodes` (blobs, in listing order) below `directory` and return each as (entry as written, blob id).

    Files get 644 or 755, directories 755. OperatorError for a submodule or a name that no checkout may create,
    HostError for a full disk and for anything already standing in a file's place.
    """
    wanted = list(nodes)
    for node in wanted:
        _check(node)
    writer = _Writer(directory, owner)
    try:
        with git.Batch(git_dir, FILE_BYTES_MAX, buffered=True) as batch:
            contents = batch.read_all([node.blob for node in wanted])
            with contextlib.closing(contents):
                return [(writer.write(*pair), pair[0].blob) for pair in zip(wanted, contents, strict=True)]
    except OSError as error:
        fix = "free some disk space" if error.errno in FULL else ""
        raise HostError(f"a tree could not be written: {error}", where=directory, fix=fix) from error
    finally:
        writer.close()


def _check(node: Node) -> None:
    """Refuse what no checkout may create, before the first file is written."""
    if node.mode == GITLINK:
        raise OperatorError(f"{node.path!r} is a submodule", expected="files only", where=node.path)
    if node.mode not in (FILE, EXECUTABLE, LINK):
        raise HostError(f"{node.path!r} has mode {node.mode:o}", expected="a file or symbolic link")
    if any(part in ("", ".", "..") or is_foreign(part, 0) for part in node.path.split("/")):
        raise OperatorError(f"the tree names {node.path!r}", expected="names that a checkout may create")


class _Writer:
    """Keeps the directory of the file before open: in listing order most files share it with the next."""

    def __init__(self, directory: str, owner: Owner | None) -> None:
        self._root = os.open(directory, DIRECTORY)
        self._handle, self._parents = os.dup(self._root), ""
        self._owner = owner

    def close(self) -> None:
        os.close(self._handle)
        os.close(self._root)

    def write(self, node: Node, content: bytes) -> Entry:
        parents, _, name = node.path.rpartition("/")
        self._enter(parents)
        if node.mode == LINK:
            os.symlink(content, os.fsencode(name), dir_fd=self._handle)
            if self._owner:
                os.chown(name, self._owner.uid, self._owner.gid, dir_fd=self._handle, follow_symlinks=False)
            info = os.stat(name, dir_fd=self._handle, follow_symlinks=False)
        else:
            info = self._file(name, content, 0o755 if node.mode == EXECUTABLE else 0o644)
        return Entry(node.path, node.mode, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_nlink)

    def _file(self, name: str, content: bytes, mode: int) -> os.stat_result:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(name, flags, 0o600, dir_fd=self._handle)
        with os.fdopen(handle, "wb", buffering=0) as file:
            rest = memoryview(content)
            while rest:
                rest = rest[file.write(rest) :]
            if self._owner:
                os.fchown(handle, self._owner.uid, self._owner.gid)
            os.fchmod(handle, mode)
            return os.fstat(handle)

    def _enter(self, parents: str) -> None:
        """Make `parents` the open directory, creating what is missing."""
        if parents == self._parents:
            return
        os.close(self._handle)
        self._handle, self._parents = os.dup(self._root), ""
        for part in parents.split("/") if parents else ():
            with contextlib.suppress(FileExistsError):  # made for a file before; opening it checks what it is
                os.mkdir(part, 0o755, dir_fd=self._handle)
                if self._owner:
                    os.chown(part, self._owner.uid, self._owner.gid, dir_fd=self._handle, follow_symlinks=False)
                os.chmod(part, 0o755, dir_fd=self._handle)  # noqa: S103 - the jail's user must get in, whatever the umask
            below = os.open(part, DIRECTORY, dir_fd=self._handle)
            os.close(self._handle)
            self._handle = below
        self._parents = parents
