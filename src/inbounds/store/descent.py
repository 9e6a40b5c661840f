"""Go through a directory of any depth with one open descriptor: delete it, make it inert, measure it.

A tree of 5,000 levels has no path that fits PATH_MAX and no room in a descriptor table (shutil.rmtree and os.walk give
up on it); this goes down by name and up by "..", and checks where it arrives. Never crosses a mount or a link.
"""

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from inbounds.contracts.errors import HostError
from inbounds.store.walk import DIRECTORY, is_dotgit

OWNER_ALL = stat.S_IRWXU
MOUNT_ID = re.compile(rb"^mnt_id:\s*(\d+)$", re.MULTILINE)


class MovedError(HostError):
    """A directory was moved while it was gone through: somebody still writes there."""


class Usage(NamedTuple):
    """What a directory occupies: allocated bytes and inodes; not `exact` if it changed under the measurement."""

    bytes: int
    inodes: int
    exact: bool


@dataclass(slots=True)
class _Level:
    name: str
    identity: tuple[int, int]
    pending: list[str]
    mode: int | None = None  # to be given back on leaving


class Step(NamedTuple):
    """One directory, entered or (`entries` is None) about to be left: then `handle` is its parent and `name` it."""

    handle: int
    name: str
    entries: list[tuple[str, os.stat_result]] | None
    depth: int


def descend(root: int, *, hidden: list[str] | None = None) -> Iterator[Step]:
    """Yield every directory below the open directory `root` (itself first), in and out, depth first.

    Gives the owner back the permission bits that reading and deleting need; with a list `hidden` it does so for its own
    visit only, and appends the names of what it could not read all the same. MovedError if a ".." leads somewhere else
    than it came from; HostError for a directory that can't be read although mended.
    """
    handle = os.dup(root)
    mount = _mount_of(handle)
    try:
        levels = [_Level("", _identity(handle), [])]
        entries = _entries(handle, hidden)
        levels[0].pending = _directories(entries)
        yield Step(handle, "", entries, 0)
        while levels:
            level = levels[-1]
            if level.pending:
                name = level.pending.pop()
                below, mode = _visit(handle, name, hidden)
                if below is None:
                    continue
                if _mount_of(below) != mount:
                    os.close(below)
                    raise HostError(f"{name!r} is a mount point", expected="a directory without mounts", where=name)
                os.close(handle)
                handle = below
                entries = _entries(handle, hidden)
                levels.append(_Level(name, _identity(handle), _directories(entries), mode))
                yield Step(handle, name, entries, len(levels) - 1)
                continue
            mode = levels.pop().mode
            if levels:
                above = os.open("..", DIRECTORY, dir_fd=handle)
                if mode is not None:
                    os.fchmod(handle, mode)
                os.close(handle)
                handle = above
                if _identity(handle) != levels[-1].identity:
                    raise MovedError(f"{level.name!r} was moved while it was gone through", where=level.name)
                yield Step(handle, level.name, None, len(levels))
    finally:
        os.close(handle)


def _identity(handle: int) -> tuple[int, int]:
    info = os.fstat(handle)
    return info.st_dev, info.st_ino


def _mount_of(handle: int) -> int:
    """The id of the mount that a descriptor lies on: bind mounts of one file system differ only in this."""
    with open(f"/proc/self/fdinfo/{handle}", "rb") as file:
        match = MOUNT_ID.search(file.read(4096))
    if not match:
        raise HostError("/proc/self/fdinfo has no mnt_id", expected="Linux 3.15 or newer with /proc mounted")
    return int(match[1])


def _visit(parent: int, name: str, hidden: list[str] | None) -> tuple[int | None, int | None]:
    """Open a subdirectory (as `_open_below`), and the mode that it gets back afterwards: None where it is unchanged.

    An agent of the same user could hide any number of bytes from a measurement behind a chmod.
    """
    if hidden is None or os.geteuid() == 0:
        return _open_below(parent, name, hidden), None
    try:
        mode = stat.S_IMODE(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        if mode & OWNER_ALL == OWNER_ALL:
            return _open_below(parent, name, hidden), None
        _mend(parent, name)
        return os.open(name, DIRECTORY, dir_fd=parent), mode
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except PermissionError:
        hidden.append(name)
        return None, None


def _open_below(parent: int, name: str, hidden: list[str] | None) -> int | None:
    """Open a subdirectory; None if it is gone, no directory any more, or noted as hidden."""
    try:
        return os.open(name, DIRECTORY, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        if hidden is not None:
            hidden.append(name)
            return None
    try:
        _mend(parent, name)
        return os.open(name, DIRECTORY, dir_fd=parent)
    except OSError as error:
        raise HostError(f"{name!r} cannot be opened: {error.strerror}", where=name) from error


def _mend(parent: int, name: str) -> None:
    """Give the owner its bits back, on the inode itself (O_PATH, then its magic link), never through a link."""
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{handle}", OWNER_ALL)
    finally:
        os.close(handle)


def _entries(handle: int, hidden: list[str] | None) -> list[tuple[str, os.stat_result]]:
    if hidden is None and os.fstat(handle).st_mode & OWNER_ALL != OWNER_ALL:
        os.fchmod(handle, OWNER_ALL)
    found = []
    try:
        with os.scandir(handle) as names:
            for item in names:
                with contextlib.suppress(FileNotFoundError):  # gone since it was listed: nothing to see
                    found.append((item.name, item.stat(follow_symlinks=False)))
    except PermissionError as error:
        if hidden is None:
            raise HostError(f"a directory cannot be listed: {error.strerror}") from error
        hidden.append("")
    return found


def _directories(entries: list[tuple[str, os.stat_result]]) -> list[str]:
    return [name for name, info in entries if stat.S_ISDIR(info.st_mode)]


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[int, int, str]]:
    """The directory at `path`, its parent, and its name; the path up to the parent is the operator's own."""
    parent_path, name = os.path.split(os.path.normpath(path))
    parent = os.open(parent_path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        handle = _open_below(parent, name, None)
        if handle is None:
            raise HostError(f"{path} is no directory", where=path)
        try:
            yield handle, parent, name
        finally:
            os.close(handle)
    finally:
        os.close(parent)


def delete_tree(path: str) -> None:
    """Delete the directory at `path` with all below it, at any depth; nothing happens if it does not exist.

    HostError if something below is a mount point (nothing of it is touched) or can't be removed.
    """
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(info.st_mode):
        raise HostError(f"{path} is no directory", expected="a directory to delete", where=path)
    try:
        with _opened(path) as (handle, parent, name):
            if _mount_of(handle) != _mount_of(parent):
                raise HostError(f"{path} is a mount point", expected="a directory without mounts", where=path)
            for step in descend(handle):
                if step.entries is None:
                    os.rmdir(step.name, dir_fd=step.handle)
                    continue
                for entry, about in step.entries:
                    if not stat.S_ISDIR(about.st_mode):
                        os.unlink(entry, dir_fd=step.handle)
            os.rmdir(name, dir_fd=parent)
    except OSError as error:
        raise HostError(f"{path} cannot be deleted: {error}", where=path) from error


def make_inert(path: str) -> int:
    """Make everything below `path` harmless to look at: nothing executable, nothing set-id, no git repository.

    A shell prompt or an editor that runs `git status` in a quarantined directory would execute the repository's own
    configuration, so ".git" (and what file systems take for it) is renamed, as is the HEAD of a bare repository.
    Returns how many entries were changed.
    """
    changed = 0
    with _opened(path) as (handle, _, _):
        for step in descend(handle):
            if step.entries is None:
                if is_dotgit(step.name):
                    changed += _set_aside(step.handle, step.name)
                continue
            names = {name for name, _ in step.entries}
            for name, info in step.entries:
                if stat.S_ISREG(info.st_mode) and info.st_mode & 0o7111:
                    changed += _plain(step.handle, name)
                bare = name == "HEAD" and {"objects", "refs"} <= names
                if not stat.S_ISDIR(info.st_mode) and (is_dotgit(name) or bare):
                    changed += _set_aside(step.handle, name)
            os.fchmod(step.handle, OWNER_ALL)
    return changed


def _plain(parent: int, name: str) -> int:
    """Take the execute and set-id bits from a regular file."""
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode):
            return 0
        os.chmod(f"/proc/self/fd/{handle}", stat.S_IMODE(info.st_mode) & 0o666)
    finally:
        os.close(handle)
    return 1


def _set_aside(parent: int, name: str) -> int:
    """Rename to a name that git does not know; the first that is free, since an agent may have taken some."""
    number = 0
    while True:
        aside = f"inert-{number}-{name.replace('.', '_').replace('~', '_')}"[:200]
        try:
            os.stat(aside, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(name, aside, src_dir_fd=parent, dst_dir_fd=parent)
            return 1
        number += 1


def usage(path: str) -> Usage:
    """Measure what `path` occupies while an agent is still at work in it; changes nothing for longer than its visit.

    A directory moved meanwhile makes the measurement start over, three times at most; one that can't be read makes it
    inexact.
    """
    total = nodes = 0
    for _ in range(3):
        total = nodes = 0
        hidden: list[str] = []
        with _opened(path) as (handle, _, _):
            try:
                for step in descend(handle, hidden=hidden):
                    if step.entries is not None:
                        nodes += len(step.entries)
                        total += sum(info.st_blocks for _, info in step.entries) * 512
            except (MovedError, FileNotFoundError):  # the next attempt, or the inexact answer below
                continue
            return Usage(total, nodes, exact=not hidden)
    return Usage(total, nodes, exact=False)
