"""Clear away what was done in a directory since it was listed: whatever a new listing shows otherwise.

All that can be done to a file shows in its change time, but the first writing through a memory map is the only one that
does: so what was touched once holds anything, and is to be written anew. Knows nothing of trees or repositories.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable

from inbounds.store import descent, walk
from inbounds.store.export import Owner
from inbounds.store.walk import ABSENT, DIRECTORY

# Every file of such a host has it, and no agent can set it.
BY_POLICY = frozenset({"security.selinux"})


def clear(root: int, paths: Iterable[str], stays: Callable[[str], bool], owner: Owner | None) -> bool:
    """Delete what stands at `paths` below `root`; directories that are to stay get their mode and owner back instead.

    By descriptor, never through a link; nobody else may be at work there.
    False where such a directory has extended attributes: access lists among them would be inherited by what is written
    there. HostError for a mount, OSError for what can't be deleted.
    """
    for path in sorted(paths):  # a directory before what is in it
        if not path:
            if not _as_made(root, owner):
                return False
            continue
        try:
            parent, name = walk.open_parent(root, path)
        except OSError as error:
            if error.errno not in ABSENT:
                raise
            continue  # gone with its directory
        try:
            if not _cleared(parent, name, stay=stays(path), owner=owner):
                return False
        finally:
            os.close(parent)
    return True


def make_directory(root: int, name: str, owner: Owner | None) -> None:
    """Have a directory `name` in `root`, as all are made."""
    with contextlib.suppress(FileExistsError):  # opening it says whether it is one
        os.mkdir(name, dir_fd=root)
    handle = os.open(name, DIRECTORY, dir_fd=root)
    try:
        _as_made(handle, owner)
    finally:
        os.close(handle)


def _cleared(parent: int, name: str, *, stay: bool, owner: Owner | None) -> bool:
    try:
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return True
    if not stat.S_ISDIR(mode):
        os.unlink(name, dir_fd=parent)
        return True
    if not stay:
        descent.delete_tree(f"/proc/self/fd/{parent}/{name}")
        return True
    handle = os.open(name, DIRECTORY, dir_fd=parent)
    try:
        return _as_made(handle, owner)
    finally:
        os.close(handle)


def _as_made(directory: int, owner: Owner | None) -> bool:
    try:
        if set(os.listxattr(directory)) - BY_POLICY:
            return False
    except OSError as error:
        if error.errno != errno.ENOTSUP:  # then there are none
            raise
    if owner:
        os.fchown(directory, owner.uid, owner.gid)
    os.fchmod(directory, 0o755)
    return True
