"""Copy a checkout that nobody has touched, file by file as it was listed, and make git's index true for the copy.

Reading checks again what was listed: a file that is another now ends the copy. Imports next to nothing, since a person
waits for it. Knows nothing of what the checkout is for.
"""

from __future__ import annotations

import os
import stat
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    # path, mode, "belongs to the visit's user", and what tells that it is the same: size, mtime, ctime (ns), inode
    Listed = tuple[str, int, bool, tuple[int, int, int, int]]

CHUNK = 1 << 20
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
DEPTH_MAX = 200  # a checkout that is kept; a deeper one is made anew each time

# gitformat-index(5): a header of 12 bytes, entries of ten 32-bit numbers, the object's name, 16 bits of flags, the path
HEADER, STAT_BYTES, FLAGS_BYTES, ALIGN = 12, 40, 2, 8
EXTENDED = 0x4000
INDEX_VERSIONS = (2, 3)  # 4 writes paths as differences; git makes it where somebody asks for it
SUMS = {40: ("_sha1", "sha1", 20), 64: ("_sha256", "sha256", 32)}


class OtherError(Exception):
    """What stands there is not what was listed, or nothing that can be kept."""


def _same(about: os.stat_result) -> tuple[int, int, int, int]:
    directory = stat.S_ISDIR(about.st_mode)
    size, changed = (0, (0, 0)) if directory else (about.st_size, (about.st_mtime_ns, about.st_ctime_ns))
    return size, *changed, about.st_ino


def listed(root: str, owner: int) -> list[Listed]:
    """All that is below `root`, parents first; `owner` is the user whose copies become the next visit's user's."""
    found: list[Listed] = []
    for path, about in _walk(root, "", 0):
        if stat.S_IFMT(about.st_mode) not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            raise OtherError(path)
        found.append((path, about.st_mode, about.st_uid == owner, _same(about)))
    return found


def _walk(root: str, below: str, depth: int) -> Iterator[tuple[str, os.stat_result]]:
    if depth > DEPTH_MAX:
        raise OtherError(below)
    with os.scandir(os.path.join(root, below)) as entries:
        inside = sorted(entries, key=lambda entry: entry.name)
    for entry in inside:
        path = f"{below}/{entry.name}" if below else entry.name
        about = entry.stat(follow_symlinks=False)
        yield path, about
        if stat.S_ISDIR(about.st_mode):
            yield from _walk(root, path, depth + 1)


def copy(source: str, target: str, files: list[Listed], uid: int, gid: int) -> dict[str, os.stat_result]:
    """Make `target` (which exists, and is empty) a copy of what was listed; what each file and link is like there.

    Contents, modes and times of change are the same; what was the visit's user's is `uid`'s and `gid`'s (-1: ours).
    OtherError where the source is not as it was listed; OSError. The caller deletes what was made till then.
    """
    made: dict[str, os.stat_result] = {}
    old, new = os.open(source, DIRECTORY), os.open(target, DIRECTORY)
    try:
        for path, mode, given, same in files:
            owner = (uid, gid) if given else (-1, -1)
            if stat.S_ISDIR(mode):
                os.mkdir(path, stat.S_IMODE(mode), dir_fd=new)
                os.chmod(path, stat.S_IMODE(mode), dir_fd=new)  # whatever the umask
                if owner[0] != -1:
                    os.chown(path, *owner, dir_fd=new, follow_symlinks=False)
            elif stat.S_ISLNK(mode):
                made[path] = _copy_link(path, same, owner, old, new)
            else:
                made[path] = _copy_file(path, mode, same, owner, old, new)
    finally:
        os.close(old)
        os.close(new)
    return made


def _copy_link(path: str, same: tuple[int, ...], owner: tuple[int, int], old: int, new: int) -> os.stat_result:
    about = os.stat(path, dir_fd=old, follow_symlinks=False)
    if _same(about) != same:
        raise OtherError(path)
    os.symlink(os.readlink(path, dir_fd=old), path, dir_fd=new)
    if owner[0] != -1:
        os.chown(path, *owner, dir_fd=new, follow_symlinks=False)
    os.utime(path, ns=(about.st_mtime_ns, about.st_mtime_ns), dir_fd=new, follow_symlinks=False)
    return os.stat(path, dir_fd=new, follow_symlinks=False)


def _copy_file(
    path: str, mode: int, same: tuple[int, ...], owner: tuple[int, int], old: int, new: int
) -> os.stat_result:
    reading = os.open(path, READ, dir_fd=old)
    try:
        about = os.fstat(reading)
        if _same(about) != same or about.st_mode != mode:
            raise OtherError(path)
        writing = os.open(path, MAKE, 0o600, dir_fd=new)
        try:
            _pour(reading, writing, about.st_size)
            if owner[0] != -1:
                os.fchown(writing, *owner)
            os.fchmod(writing, stat.S_IMODE(mode))
            os.utime(writing, ns=(about.st_mtime_ns, about.st_mtime_ns))
            return os.fstat(writing)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _pour(reading: int, writing: int, size: int) -> None:
    """Exactly `size` bytes; the kernel shares them where the file system can (btrfs, XFS)."""
    left = size
    while left > CHUNK:
        try:
            done = os.copy_file_range(reading, writing, left)
        except OSError:
            break  # not on this file system: by reading and writing
        if not done:
            break
        left -= done
    while left:
        part = os.read(reading, min(left, CHUNK))
        if not part:
            raise OtherError("a file became shorter")
        left -= len(part)
        view = memoryview(part)
        while view:
            view = view[os.write(writing, view) :]


def true_index(index: str, name_length: int, below: str, made: dict[str, os.stat_result]) -> bool:
    """Write what files are like now into the index of git at `index`, whose paths are those of `made` below `below`.

    Without it git would read every file once to see that it is unchanged, and what asks it of the index alone would be
    told otherwise. `name_length`: hexadecimal digits of an object's name. False where it is left as it is: of another
    version, or about files that were not copied.
    """
    module, name, digest = SUMS[name_length]
    with open(index, "rb") as file:
        raw = bytearray(file.read())
    signature, version, count = struct.unpack_from(">4sII", raw)
    if signature != b"DIRC" or version not in INDEX_VERSIONS:
        return False
    at = HEADER
    for _ in range(count):
        flags_at = at + STAT_BYTES + digest
        path_at = flags_at + FLAGS_BYTES
        if struct.unpack_from(">H", raw, flags_at)[0] & EXTENDED:
            path_at += FLAGS_BYTES
        end = raw.index(0, path_at)
        about = made.get(os.fsdecode(bytes(below.encode() + raw[path_at:end])))
        if about is None:
            return False
        _put_stat(raw, at, about)
        at += (end - at + ALIGN) // ALIGN * ALIGN
    raw[-digest:] = _sum(module, name, bytes(raw[:-digest]))
    with open(index, "r+b") as file:
        file.write(raw)
    return True


def _put_stat(raw: bytearray, at: int, about: os.stat_result) -> None:
    """The numbers of one entry but for its mode, which stands in their middle and is git's own."""
    seconds = (*divmod(about.st_ctime_ns, 10**9), *divmod(about.st_mtime_ns, 10**9))
    first = [number & 0xFFFFFFFF for number in (*seconds, about.st_dev, about.st_ino)]
    last = [number & 0xFFFFFFFF for number in (about.st_uid, about.st_gid, about.st_size)]
    struct.pack_into(">6I", raw, at, *first)
    struct.pack_into(">3I", raw, at + 28, *last)


def _sum(module: str, name: str, content: bytes) -> bytes:
    """Without OpenSSL's library where Python has its own: 2 ms of the start."""
    try:
        found = getattr(__import__(module), name)(content)
    except ImportError:
        import hashlib

        found = hashlib.new(name, content)
    made = found.digest()
    assert isinstance(made, bytes)
    return made
