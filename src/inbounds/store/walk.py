"""Look over a directory that an agent wrote, by descriptor, without following or opening anything in it.

A name is only ever resolved against an open directory, never as a path, so that nothing can be swapped for a symbolic
link between the look and the use. Knows nothing of git stores or of what is allowed to change.
"""

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

FILE, EXECUTABLE, LINK = 0o100644, 0o100755, 0o120000
# As many reasons as a person would read; the rest is counted.
REASONS_MAX = 100
# A path that isn't there, or has a link or a file where its directory was.
ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# HFS+ drops these from names (git's utf8.c is the list's source: CVE-2014-9390), so ".g<U+200C>it" is ".git" there.
PREFIXES = frozenset({".git", "git~1", *(".git" + sign for sign in map(chr, range(128)))})
HFS_IGNORED = re.compile("[\u200c-\u200f\u202a-\u202e\u206a-\u206f\ufeff]")

# ".gitmodules" with its NTFS short names; git refuses more of the hashed ones than can exist, and so does this.
MODULES = re.compile(r"(\.gitmodules|gitmod~[1-4]|gi7eba~[1-9]|gi7eb[a-z0-9]*~[0-9]+)[. ]*(:.*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a workspace may hold before its snapshot is INCONCLUSIVE; deletion has no such limits."""

    depth_max: int = 64  # the deepest public trees (nested node_modules) stay below 40; one descriptor per level
    entries_max: int = 500_000  # five times the Linux kernel's; about 100 MB of memory here
    file_bytes_max: int = 100 << 20  # the size that public forges refuse; a file is hashed in memory
    path_bytes_max: int = 3_800  # PATH_MAX is 4,096 and a checkout's own directory comes before it
    bytes_max: int = 16 << 30  # more than this can't be hashed within one iteration's patience


Linked = dict[int, list[str]]  # inode -> its names here, for files with more than one


class Entry(NamedTuple):
    """A regular file or symbolic link: `mode` is git's (100644, 100755, 120000), times in nanoseconds."""

    path: str
    mode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    links: int


class Reason(NamedTuple):
    """Why a scan says less than everything: `kind` is a stable word such as "unreadable", `path` is relative."""

    kind: str
    path: str
    detail: str = ""

    def text(self) -> str:
        """One line without control characters."""
        return f"{self.kind}: {self.path!r}" + (f" ({self.detail})" if self.detail else "")


@dataclass(slots=True)
class Scan:
    """What stood in a directory; `reasons` empty means that this is all of it.

    `foreign` are repositories and names that no git tree may hold: never entered, never part of a tree.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    reasons: list[Reason] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    directories: int = 0
    bytes: int = 0

    def lacks(self, kind: str, path: str, detail: str = "") -> None:
        """Note a reason; beyond the limit only that there were more."""
        if len(self.reasons) < REASONS_MAX:
            self.reasons.append(Reason(kind, path, detail))
        elif len(self.reasons) == REASONS_MAX:
            self.reasons.append(Reason("more", "", f"more than {REASONS_MAX} entries like these"))


def is_dotgit(name: str) -> bool:
    """Whether some file system or git itself would take this name for ".git" (CVE-2014-9390, CVE-2019-1353)."""
    if name.isascii() and "\\" not in name and name[:5].lower() not in PREFIXES:
        return False  # nearly every name, at a tenth of the price
    pieces = HFS_IGNORED.sub("", name).lower().split("\\")
    return any(piece.split(":", 1)[0].rstrip(". ") in (".git", "git~1") for piece in pieces)


def is_foreign(name: str, mode: int) -> bool:
    """Whether git refuses this name in a tree; a symbolic link may not pose as .gitmodules either (CVE-2018-11235)."""
    return is_dotgit(name) or (mode == LINK and bool(MODULES.fullmatch(HFS_IGNORED.sub("", name))))


def scan(root: int, limits: Limits, *, own_git: bool = True) -> Scan:
    """Walk below the open directory `root`, depth first, never through a symbolic link or onto another file system.

    `own_git`: the top-level ".git" is the throw-away repository made for the agent, so it is passed over in silence.
    """
    found = Scan()
    device = os.fstat(root).st_dev
    linked: Linked = {}
    stack = [("", _list(root, "", found))]
    handles = [os.dup(root)]
    try:
        while stack:
            prefix, names = stack[-1]
            item = next(names, None)
            if item is None:
                stack.pop()
                os.close(handles.pop())
                continue
            path = prefix + item.name
            if len(path) * 4 > limits.path_bytes_max < len(os.fsencode(path)):
                found.lacks("path too long", path[:200], f"limit {limits.path_bytes_max} bytes")
                continue
            if is_dotgit(item.name):
                if not (own_git and path == ".git"):
                    found.foreign.append(path)
                continue
            if len(found.entries) + found.directories >= limits.entries_max:
                found.lacks("too many entries", path, f"limit {limits.entries_max}")
                break
            child = _entry(item, path, found, limits, device=device, linked=linked, depth=len(stack))
            if child and (handle := _enter(item.name, handles[-1], path, found)) is not None:
                handles.append(handle)
                stack.append((path + "/", _list(handle, path, found)))
    finally:
        for handle in handles:
            os.close(handle)
    for paths in linked.values():
        if found.entries[paths[0]].links > len(paths):
            found.lacks("hard link", paths[0], "the file has another name outside the workspace")
    return found


def look(root: int, paths: Iterable[str], limits: Limits) -> tuple[Scan, set[str]]:
    """What `scan` would say of these paths alone, and which of them are directories; what isn't there is in neither.

    Any file with several names is a reason here: whether all of them are inside, only a whole scan can tell. Nor are
    the limits on the sum of entries and bytes applied.
    """
    found, directories, linked = Scan(), set[str](), Linked()
    device = os.fstat(root).st_dev
    for path in paths:
        name = path.rpartition("/")[2]
        if len(os.fsencode(path)) > limits.path_bytes_max:
            found.lacks("path too long", path[:200], f"limit {limits.path_bytes_max} bytes")
            continue
        if is_dotgit(name):
            found.foreign.append(path)
            continue
        try:
            parent, name = open_parent(root, path)
            try:
                info = os.stat(name, dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(parent)
        except OSError as error:
            if error.errno not in ABSENT:
                found.lacks("unreadable", path, error.strerror or "")
            continue
        depth = path.count("/") + 1
        if _note(info, name, path, found, limits, device=device, linked=linked, depth=depth):
            directories.add(path)
    for names in linked.values():
        found.lacks("hard link", names[0])
    return found, directories


def _list(handle: int, path: str, found: Scan) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(handle) as names:
            return iter(sorted(names, key=lambda item: item.name))
    except OSError as error:
        found.lacks("unreadable", path, error.strerror or "")
        return iter(())


def _enter(name: str, parent: int, path: str, found: Scan) -> int | None:
    try:
        return os.open(name, DIRECTORY, dir_fd=parent)
    except OSError as error:
        found.lacks("unreadable", path, error.strerror or "")
        return None


def _entry(
    item: "os.DirEntry[str]", path: str, found: Scan, limits: Limits, *, device: int, linked: Linked, depth: int
) -> bool:
    """Note one directory entry; True for a directory to enter."""
    try:
        info = item.stat(follow_symlinks=False)
    except OSError as error:
        found.lacks("unreadable", path, error.strerror or "")
        return False
    return _note(info, item.name, path, found, limits, device=device, linked=linked, depth=depth)


def _note(
    info: os.stat_result, name: str, path: str, found: Scan, limits: Limits, *, device: int, linked: Linked, depth: int
) -> bool:
    """As `_entry`, of what was seen of it."""
    mode = info.st_mode
    kind = stat.S_IFMT(mode)
    if kind != stat.S_IFLNK and mode & (stat.S_ISUID | stat.S_ISGID):
        found.lacks("set-id mode", path, f"{stat.S_IMODE(mode):04o}")
    if kind == stat.S_IFDIR:
        found.directories += 1
        if info.st_dev != device:
            found.lacks("other file system", path)
            return False
        if depth >= limits.depth_max:
            found.lacks("too deep", path, f"limit {limits.depth_max} levels")
            return False
        return True
    if kind not in (stat.S_IFREG, stat.S_IFLNK):
        found.lacks("no regular file", path, KINDS.get(kind, "unknown kind"))
        return False
    if info.st_size > limits.file_bytes_max:
        found.lacks("too large", path, f"{info.st_size} bytes, limit {limits.file_bytes_max}")
        return False
    found.bytes += info.st_size
    if found.bytes > limits.bytes_max:
        found.lacks("too much", path, f"more than {limits.bytes_max} bytes in all")
        return False
    git_mode = LINK if kind == stat.S_IFLNK else EXECUTABLE if mode & stat.S_IXUSR else FILE
    if git_mode == LINK and is_foreign(name, LINK):
        found.foreign.append(path)
        return False
    found.entries[path] = Entry(
        path, git_mode, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_nlink
    )
    if info.st_nlink > 1:
        linked.setdefault(info.st_ino, []).append(path)
    return False


KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def open_parent(root: int, path: str) -> tuple[int, str]:
    """Open the directory that holds `path` below `root`, component by component; the caller closes it.

    OSError (ELOOP, ENOTDIR) where a component is a symbolic link or no directory.
    """
    *parents, name = path.split("/")
    handle = os.dup(root)
    try:
        for part in parents:
            below = os.open(part, DIRECTORY, dir_fd=handle)
            os.close(handle)
            handle = below
    except OSError:
        os.close(handle)
        raise
    return handle, name


def read_entry(root: int, entry: Entry) -> bytes | None:
    """The content of a scanned file or the target of a scanned link; None if it is not what was scanned any more.

    OSError where it can't be read. Never follows a link, never blocks on a pipe put in the file's place.
    """
    parent, name = open_parent(root, entry.path)
    try:
        if entry.mode == LINK:
            target = os.readlink(name, dir_fd=parent)
            return os.fsencode(target)
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    finally:
        os.close(parent)
    with os.fdopen(handle, "rb", buffering=0) as file:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode) or (info.st_ino, info.st_size, info.st_mtime_ns) != (
            entry.inode,
            entry.size,
            entry.mtime_ns,
        ):
            return None
        content = bytearray()
        while len(content) <= entry.size and (piece := file.read(entry.size + 1 - len(content))):
            content += piece
        return bytes(content) if len(content) == entry.size else None
