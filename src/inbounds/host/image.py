"""The disk image of a slot: made, mounted, seen through an id map, shut down, unmounted, destroyed.

Every step may be repeated, by another process too, after a death in any place: what is found decides, no memory does.
Knows nothing of slots, users' accounts, jails or the protocol. ADR 12; F2, F3, F4, F8.
"""

import contextlib
import errno
import fcntl
import os
import stat
import struct
import subprocess
import time
from dataclasses import dataclass
from typing import NamedTuple

from inbounds.host import fscrypt, handles, loop

SIZE_MIN = 8 << 20  # ext4 with a journal needs no less
SIZE_MAX = 1 << 40  # beyond it one slot could hold any host's disk
HOST_KEEPS = 256 << 20  # on the disk below, for state, journals and stores of the other runs
INODES_MIN = 64
BYTES_PER_INODE_MIN = 1024  # 256 bytes are the inode itself; denser, and little is left for contents
RESERVED_INODES = 13  # ext4's own 11, its lost+found and the volume's root

_MKFS = ("/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4")
_MKFS_S_MAX = 120  # 1 TiB on a slow disk; the usual is well below a second
_RELEASE_S_MAX = 2.0  # a namespace that ends lets go of its mounts a little later
_POLL_S = 0.005
_COMPLAINT_BYTES_MAX = 2000

# Named one by one, so that a distribution's mke2fs.conf changes nothing that an older kernel then refuses.
_FEATURES = (
    "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,"
    "extra_isize,metadata_csum"
)
_ATTRIBUTES = handles.NOSUID | handles.NODEV | handles.NOEXEC | handles.NOATIME
# noinit_itable: the kernel would punch holes into the preallocated file to zero what is zero already.
_OPTIONS = ("errors=remount-ro", "noinit_itable")

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32)
_KEEPING, _AT_ONCE = 0, 2  # write out what is there, then stop; or stop, whatever a writer holds locked or unwritten
_ROOT = "volume"  # below ext4's own root, which can't be encrypted, is root's for ever and has a lost+found

_SUPER_AT, _SUPER_BYTES = 1024, 104
_MAGIC, _ENCRYPTED = 0xEF53, 0x10000
_ACL_USER_OBJ, _ACL_USER, _ACL_GROUP_OBJ, _ACL_GROUP, _ACL_MASK, _ACL_OTHER = 1, 2, 4, 8, 16, 32


@dataclass(frozen=True, slots=True)
class Image:
    """One slot's image: `directory`/image, mounted at `raw`, and seen by its operator at `view`.

    The parent of `directory` is root's; those of `raw` and `view` are made here and differ: one is root's alone, the
    other's ACL lets the operator and the slot's group pass. On disk all is `uid`:`gid`. `operator_gid` is the group
    of the operator's processes: whom the id map does not name can make no file. All errors are OSError.
    """

    directory: str
    raw: str
    view: str
    uid: int
    gid: int
    operator_uid: int
    operator_gid: int

    def __post_init__(self) -> None:
        """Refuse what could not be told apart later."""
        if os.path.dirname(self.raw) == os.path.dirname(self.view):
            raise OSError(errno.EINVAL, "raw and view need directories of their own: who may pass differs")
        if min(self.uid, self.gid) <= 0 or self.uid == self.operator_uid:
            raise OSError(errno.EINVAL, f"{self.uid}:{self.gid} is no user of a slot's own")

    @property
    def file(self) -> str:
        """Where the image lies: root:root 0600."""
        return f"{self.directory}/image"

    @property
    def half(self) -> str:
        """Where an image lies that is not whole: being made, copied or destroyed. The next `open` removes it."""
        return f"{self.file}.part"

    @property
    def key(self) -> str:
        """The name of the volume's key in the kernel's keyring."""
        return f"inbounds:{self.directory}"

    # ---- make and destroy

    @classmethod
    def make(
        cls,
        directory: str,
        raw: str,
        view: str,
        *,
        size: int,
        inodes: int,
        uid: int,
        gid: int,
        operator_uid: int,
        operator_gid: int,
        encrypt: bool = False,
    ) -> "Image":
        """Preallocate `size` bytes and put a file system with `inodes` files on them.

        OSError: EINVAL for sizes out of bounds, ENOSPC where the disk has no such room, EEXIST where an image with
        other limits is there already (the same is adopted), ENOENT without mkfs.ext4, ENODEV without fscrypt.
        """
        if not SIZE_MIN <= size <= SIZE_MAX or not INODES_MIN <= inodes <= size // BYTES_PER_INODE_MIN:
            raise OSError(errno.EINVAL, f"{size} bytes and {inodes} files are out of bounds")
        size -= size % 4096
        made = cls.open(directory, raw, view, uid=uid, gid=gid, operator_uid=operator_uid, operator_gid=operator_gid)
        if made.exists:
            there = made.limits()
            if (there.encrypted, there.size) != (encrypt, size) or there.inodes < inodes:
                raise OSError(errno.EEXIST, f"{made.file} is there with other limits")
            return made
        _refuse_without_room(directory, size)
        if encrypt:
            fscrypt.draw(made.key)
        fd = os.open(made.half, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(fd, 0o600)  # whatever the umask was
            os.posix_fallocate(fd, 0, size)
            _make_file_system(fd, inodes + RESERVED_INODES, encrypt=encrypt)
            os.fsync(fd)
            os.rename(made.half, made.file)
            _sync(directory)
        except BaseException:
            made.destroy()
            raise
        finally:
            os.close(fd)
        return made

    @classmethod
    def open(
        cls, directory: str, raw: str, view: str, *, uid: int, gid: int, operator_uid: int, operator_gid: int
    ) -> "Image":
        """What is there, after whatever death: a half-made image is removed, `exists` tells of a whole one.

        OSError EPERM where the directory or the image is not, or no longer, in root's custody.
        """
        found = cls(directory, raw, view, uid, gid, operator_uid, operator_gid)
        _own_directory(directory)
        found._remove_half()
        if found.exists:
            os.close(found._custody())
        return found

    def destroy(self) -> bool:
        """No key, no mount, no content, no file is left.

        False where another mount namespace has a copy of the mount: it keeps a dead device of no bytes until it ends.
        """
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.file, self.half)
        fscrypt.forget(self.key)
        released = self._remove_half()
        for path in (self.view, os.path.dirname(self.view), self.raw, os.path.dirname(self.raw), self.directory):
            _rmdir(path)
        return released

    @property
    def exists(self) -> bool:
        """Whether there is a whole image."""
        return os.path.lexists(self.file)

    def limits(self) -> "Limits":
        """What the image was made with, by its own superblock. OSError EUCLEAN where it has none."""
        fd = self._custody()
        try:
            block = os.pread(fd, _SUPER_BYTES, _SUPER_AT)
            size = os.fstat(fd).st_size
        finally:
            os.close(fd)
        if len(block) != _SUPER_BYTES or struct.unpack_from("<H", block, 56)[0] != _MAGIC:
            raise OSError(errno.EUCLEAN, f"{self.file} holds no file system")
        (features,) = struct.unpack_from("<I", block, 96)
        return Limits(size, struct.unpack_from("<I", block)[0], bool(features & _ENCRYPTED))

    # ---- mount and unmount

    def mount(self) -> None:
        """Attach what is not attached: the volume at `raw`, its id-mapped clone at `view`.

        OSError: EBUSY or ENODEV where something else is mounted there, ENOKEY where an encrypted volume's key is gone.
        """
        self._gates()
        if handles.mounts_at(self.raw) and self._is_dead():
            self._detach(handles.MNT_DETACH)
        if not self._is_at(self.raw):
            self._mount_raw()
        if not self._is_at(self.view):
            self._mount_view()

    def unmount(self, *, writers_may_live: bool = False) -> bool:
        """Detach view and volume; True where the file system was closed in order.

        `writers_may_live` first shuts the file system down: from then on no write by any descriptor or memory map
        reaches the image (F3), and what no sync has written yet (30 s at most) is lost, as in a power cut. Where only
        another mount namespace holds a copy of the mount, it is written out and then shut down. Both return False.
        OSError EBUSY without `writers_may_live`: files on `raw` or `view` are open.
        """
        if not self.exists:
            return True
        if writers_may_live:
            self._cut(_AT_ONCE)
            self._detach(handles.MNT_DETACH)
            return False
        self._detach(0)
        if self._released():
            return True
        self._cut(_KEEPING)
        return False

    @property
    def mounted(self) -> bool:
        """Whether volume and view are both there."""
        return self.exists and self._is_at(self.raw) and self._is_at(self.view)

    def raw_fd(self) -> int:
        """A descriptor of the volume's root on `raw`, the caller's to close: while it is open, `unmount` is busy."""
        fd = os.open(self.raw, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if os.fstat(fd).st_dev not in self._devices():
            os.close(fd)
            raise OSError(errno.ENODEV, f"{self.raw} is not the volume")
        return fd

    def used(self) -> tuple[int, int]:
        """(bytes, files) that stand on the volume, its own root among them."""
        fd = self.raw_fd()
        try:
            told = os.fstatvfs(fd)
        finally:
            os.close(fd)
        return (told.f_blocks - told.f_bfree) * told.f_frsize, told.f_files - told.f_ffree

    # ---- how

    def _custody(self) -> int:
        """The image's descriptor; EPERM where its file could have been somebody else's meanwhile."""
        fd = os.open(self.file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        about = os.fstat(fd)
        if (about.st_mode, about.st_uid, about.st_gid, about.st_nlink) != (stat.S_IFREG | 0o600, 0, 0, 1):
            os.close(fd)
            raise OSError(errno.EPERM, f"{self.file} has left root's custody and is mounted no more")
        return fd

    def _remove_half(self) -> bool:
        if not os.path.lexists(self.half):
            return True
        self._cut(_AT_ONCE)
        self._detach(handles.MNT_DETACH)
        released = self._released()
        os.truncate(self.half, 0)  # an open device would keep the content of a file without a name
        os.unlink(self.half)
        return released

    def _files(self) -> list[os.stat_result]:
        """The image, under whichever of its names."""
        return [os.lstat(path) for path in (self.file, self.half) if os.path.lexists(path)]

    def _devices(self) -> set[int]:
        with loop.behind(*self._files()) as found:
            return {os.fstat(one).st_rdev for one in found}

    def _is_at(self, path: str) -> bool:
        """Whether the topmost mount at this path is the volume (and not the file system around it)."""
        there = handles.mounts_at(path)
        return bool(there) and there[-1].root == f"/{_ROOT}" and there[-1].device in self._devices()

    def _is_dead(self) -> bool:
        """Whether the mounted file system was shut down: somebody died between that and the unmounting."""
        fd = self.raw_fd()
        try:
            os.fsync(fd)
        except OSError as fault:
            if fault.errno != errno.EIO:
                raise
            return True
        finally:
            os.close(fd)
        return False

    def _mount_raw(self) -> None:
        """In the order that a death may break anywhere: the file system at `raw`, and over it the volume within it."""
        if not handles.mounts_at(self.raw):
            self._detach(handles.MNT_DETACH)  # a view without its volume
            self._attach_file_system()
        whole = self.raw_fd()
        try:
            self._prepare(whole)
            tree = handles.clone_tree(whole, _ROOT)
            try:
                handles.attach(tree, self.raw)
            finally:
                os.close(tree)
        finally:
            os.close(whole)

    def _attach_file_system(self) -> None:
        if self._devices():
            self._leave_behind()
        fd = self._custody()
        try:
            os.posix_fallocate(fd, 0, os.fstat(fd).st_size)  # whatever holes its file system has made by zeroing
            device = loop.attach(fd, self.file)
        finally:
            os.close(fd)
        try:
            mount = handles.new_mount("ext4", loop.path_of(os.fstat(device).st_rdev), _ATTRIBUTES, *_OPTIONS)
        finally:
            os.close(device)
        try:
            handles.attach(mount, self.raw)
        finally:
            os.close(mount)

    def _leave_behind(self) -> None:
        """Go on with a copy where a mount namespace of somebody else's keeps the file system, shut down, from ending.

        Any user's new namespace copies every mount there is; a second device over the same file would see it change
        when the first one ends.
        """
        self._cut(_KEEPING)
        old = self._custody()
        try:
            size = os.fstat(old).st_size
            _refuse_without_room(self.directory, size)
            new = os.open(self.half, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.fchmod(new, 0o600)
                os.posix_fallocate(new, 0, size)
                _copy_data(old, new, size)
                os.fsync(new)
            finally:
                os.close(new)
        finally:
            os.close(old)
        os.rename(self.half, self.file)
        _sync(self.directory)

    def _prepare(self, whole: int) -> None:
        """The volume's root: made once, encrypted while it is empty, and then the slot's user's."""
        identifier = fscrypt.unlock(whole, self.key) if self.limits().encrypted else b""
        with contextlib.suppress(FileExistsError):
            os.mkdir(_ROOT, 0o700, dir_fd=whole)
        root = os.open(_ROOT, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=whole)
        try:
            owner = os.fstat(root).st_uid
            if owner not in (0, self.uid):
                raise OSError(errno.EPERM, f"the volume is of user {owner}, not {self.uid}")
            if owner == 0:
                if identifier:
                    fscrypt.encrypt(root, identifier)
                os.fchown(root, self.uid, self.gid)
        finally:
            os.close(root)

    def _mount_view(self) -> None:
        """What the slot's user owns on disk, the operator owns here, and the other way round; nobody else exists."""
        maps = [f"{slot} {theirs} 1" for slot, theirs in ((self.uid, self.operator_uid), (self.gid, self.operator_gid))]
        raw = self.raw_fd()
        try:
            tree = handles.clone_tree(raw)
        finally:
            os.close(raw)
        try:
            namespace = handles.user_namespace(*maps)
            try:
                on = _ATTRIBUTES | handles.IDMAP
                handles.set_attributes(tree, on, handles.ATIME_MASK, id_map=namespace)
            finally:
                os.close(namespace)
            handles.attach(tree, self.view)
        finally:
            os.close(tree)

    def _gates(self) -> None:
        """Who may reach the mount points: of `raw` root alone, of `view` the operator and the slot's group (F4)."""
        _own_directory(os.path.dirname(self.raw))
        gate = os.path.dirname(self.view)
        with contextlib.suppress(FileExistsError):
            os.mkdir(gate, 0o700)
        os.setxattr(gate, "system.posix_acl_access", _acl(self.operator_uid, self.gid), follow_symlinks=False)
        for path in (self.raw, self.view):
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)

    def _cut(self, how: int) -> None:
        """Shut the file system down, whoever has it mounted; nothing where nobody has."""
        with loop.behind(*self._files()) as devices:
            for device in devices:
                number = os.fstat(device).st_rdev
                if any(one.device == number for one in handles.mounts_at(self.raw)[-1:]):
                    fd = self.raw_fd()
                else:  # the same file system once more: the kernel has only one of a device
                    mount = handles.new_mount("ext4", loop.path_of(number), _ATTRIBUTES, *_OPTIONS)
                    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
                    os.close(mount)
                try:
                    fcntl.ioctl(fd, _SHUTDOWN, struct.pack("=I", how))
                finally:
                    os.close(fd)

    def _detach(self, flags: int) -> None:
        ours = self._devices()
        for path in (self.view, self.raw):
            while there := handles.mounts_at(path):
                if there[-1].device not in ours:
                    raise OSError(errno.EBUSY, f"something that is not the volume is mounted on {path}")
                handles.unmount(path, flags)

    def _released(self) -> bool:
        """Whether, within a bounded time, no loop device has the image any more: then no byte can reach it."""
        until = time.monotonic() + _RELEASE_S_MAX
        while self._devices():
            if time.monotonic() > until:
                return False
            time.sleep(_POLL_S)
        return True


class Limits(NamedTuple):
    """Bytes of the image, files that its file system can have (ext4's own among them), encrypted or not."""

    size: int
    inodes: int
    encrypted: bool


def _make_file_system(fd: int, inodes: int, *, encrypt: bool) -> None:
    program = next((path for path in _MKFS if os.path.exists(path)), None)
    if program is None:
        raise OSError(errno.ENOENT, f"{' or '.join(_MKFS)} is missing: install e2fsprogs")
    features = _FEATURES + (",encrypt" if encrypt else "")
    # By its descriptor: a mkfs that outlives this process writes to no later image of the same name.
    argv = [program, "-q", "-F", "-m", "0", "-b", "4096", "-I", "256", "-N", str(inodes), "-O", features, "-e"]
    argv += ["remount-ro", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1", f"/proc/self/fd/{fd}"]
    try:
        done = subprocess.run(
            argv,
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=(fd,),
            timeout=_MKFS_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired as fault:
        raise OSError(errno.ETIMEDOUT, f"mkfs.ext4 was not done after {_MKFS_S_MAX} s") from fault
    if done.returncode:
        said = done.stderr[:_COMPLAINT_BYTES_MAX].decode(errors="replace").strip()
        raise OSError(errno.EIO, f"mkfs.ext4 ended with {done.returncode}: {said}")


def _refuse_without_room(directory: str, size: int) -> None:
    free = os.statvfs(directory)
    if size > free.f_bavail * free.f_frsize - HOST_KEEPS:
        raise OSError(errno.ENOSPC, f"{directory} has no room for {size} bytes and {HOST_KEEPS} for the host")


def _copy_data(old: int, new: int, size: int) -> None:
    """What is written in one preallocated file, into another: what reads as zero there does so already."""
    at = 0
    while at < size:
        try:
            at = os.lseek(old, at, os.SEEK_DATA)
        except OSError as fault:
            if fault.errno == errno.ENXIO:  # no data behind this place
                return
            raise
        end = os.lseek(old, at, os.SEEK_HOLE)
        while at < end:
            if not (copied := os.copy_file_range(old, new, end - at, at, at)):
                raise OSError(errno.EIO, "an image became shorter while it was copied")
            at += copied


def _acl(operator_uid: int, group: int) -> bytes:
    """Root may do all, the operator and the group may pass, nobody else anything: as an xattr (posix_acl_xattr.h)."""
    nobody = 0xFFFFFFFF
    entries = [
        (_ACL_USER_OBJ, 7, nobody),
        (_ACL_USER, 1, operator_uid),
        (_ACL_GROUP_OBJ, 0, nobody),
        (_ACL_GROUP, 1, group),
        (_ACL_MASK, 1, nobody),
        (_ACL_OTHER, 0, nobody),
    ]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *one) for one in entries)


def _own_directory(path: str) -> None:
    """A directory of root's alone is there; EPERM where one stands there that is not."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    about = os.lstat(path)
    if not stat.S_ISDIR(about.st_mode) or about.st_uid or about.st_mode & 0o077:
        raise OSError(errno.EPERM, f"{path} is not root's alone")


def _rmdir(path: str) -> None:
    try:
        os.rmdir(path)
    except OSError as fault:
        if fault.errno not in (errno.ENOENT, errno.ENOTEMPTY):  # others' files beside ours: theirs to remove
            raise


def _sync(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
