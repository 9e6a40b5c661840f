"""A slot's disk image on this kernel: custody, who reaches what, hard limits, no privilege from it, its encryption."""

import ctypes
import errno
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from imagerig import (
    INODES,
    OPERATOR,
    SIZE,
    SLOT,
    STRANGER,
    as_user,
    made,
    needs_images,
    on_volume,
    opened,
    python,
    scratch,
    traces,
    where,
    without_fscrypt,
)

from inbounds.host import fscrypt, handles
from inbounds.host.image import RESERVED_INODES, SIZE_MAX, Image

pytestmark = needs_images

WRITE = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"
READ = "import sys; print(open(sys.argv[1]).read(), end='')"
KEYCTL_READ = 11
LIST = "import os, sys; print(os.listdir(sys.argv[1]))"


@pytest.fixture
def base() -> Iterator[str]:
    with scratch() as path:
        yield path


@pytest.fixture
def volume(base: str) -> Image:
    image = made(base)
    image.mount()
    return image


def _create(root: int, name: str, mode: int = 0o600, content: bytes = b"") -> None:
    fd = os.open(name, os.O_CREAT | os.O_WRONLY, mode, dir_fd=root)
    os.write(fd, content)
    os.fchmod(fd, mode)
    os.close(fd)


def _refused(number: int) -> "pytest.RaisesExc[OSError]":
    return pytest.raises(OSError, check=lambda fault: fault.errno == number)


# ---- custody


@pytest.mark.req("F2")
def test_the_image_is_roots_alone_and_all_of_it_is_allocated(base: str) -> None:
    image = made(base)
    about, around = os.stat(image.file), os.stat(image.directory)
    assert (about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode), about.st_size) == (0, 0, 0o600, SIZE)
    assert (around.st_uid, stat.S_IMODE(around.st_mode)) == (0, 0o700)
    assert about.st_blocks * 512 >= SIZE
    assert image.limits().encrypted is False
    assert image.limits().inodes >= INODES + RESERVED_INODES


@pytest.mark.parametrize(("size", "inodes"), [(4096, 512), (SIZE_MAX * 2, 512), (SIZE, 1), (SIZE, SIZE)])
def test_sizes_out_of_bounds_are_refused(base: str, size: int, inodes: int) -> None:
    with _refused(errno.EINVAL):
        made(base, size, inodes)
    assert not traces(base)


def test_a_disk_without_room_is_not_filled(base: str) -> None:
    free = os.statvfs(base)
    if free.f_bavail * free.f_frsize > SIZE_MAX:
        pytest.skip("this disk has room for the largest image that there is")
    with _refused(errno.ENOSPC):
        made(base, SIZE_MAX)
    assert os.listdir(where(base)[0]) == []


def test_the_same_image_is_adopted_and_another_is_not(base: str) -> None:
    first = os.stat(made(base).file)
    assert os.path.samestat(os.stat(made(base).file), first)
    for other in ({"size": SIZE * 2}, {"inodes": INODES * 16}, {"encrypt": True}):
        with _refused(errno.EEXIST):
            made(base, **other)


def test_what_has_left_roots_custody_is_mounted_no_more(base: str) -> None:
    image = made(base)
    opened(base)  # the control: untouched, it is taken
    os.chmod(image.file, 0o640)
    with _refused(errno.EPERM):
        image.mount()
    os.chmod(image.file, 0o600)
    os.link(image.file, f"{base}/also")
    with _refused(errno.EPERM):
        opened(base)
    os.rename(f"{base}/also", f"{base}/away")
    os.unlink(image.file)
    os.symlink(f"{base}/away", image.file)
    with _refused(errno.ELOOP):
        opened(base)
    os.unlink(image.file)
    os.rename(f"{base}/away", image.file)
    os.chmod(image.directory, 0o755)
    with _refused(errno.EPERM):
        opened(base)
    os.chmod(image.directory, 0o700)
    opened(base).mount()


def test_two_gates_are_needed() -> None:
    with _refused(errno.EINVAL):
        Image("/nowhere/slot", "/nowhere/raw", "/nowhere/view", SLOT, SLOT, OPERATOR, OPERATOR)
    with _refused(errno.EINVAL):
        Image("/nowhere/slot", "/nowhere/a/raw", "/nowhere/b/view", 0, SLOT, OPERATOR, OPERATOR)


# ---- who reaches what


@pytest.mark.req("F4")
def test_the_operator_works_on_the_view_and_the_slots_user_owns_it_on_disk(volume: Image) -> None:
    path = f"{volume.view}/made-by-the-operator"
    assert as_user(OPERATOR, WRITE, path, "text").returncode == 0
    assert as_user(OPERATOR, READ, path).stdout == "text"
    there = os.stat(f"{volume.raw}/made-by-the-operator")
    assert (there.st_uid, there.st_gid) == (SLOT, SLOT)
    seen = as_user(OPERATOR, "import os, sys; s = os.stat(sys.argv[1]); print(s.st_uid, s.st_gid)", path).stdout
    assert seen.split() == [str(OPERATOR), str(OPERATOR)]


@pytest.mark.req("F4")
def test_the_operator_reads_and_removes_what_the_agent_made_private(volume: Image) -> None:
    def agent(root: int) -> None:
        os.mkdir("closed", 0o700, dir_fd=root)
        _create(os.open("closed", os.O_RDONLY, dir_fd=root), "private", 0o600, b"mine")

    on_volume(volume, SLOT, agent)
    assert as_user(OPERATOR, READ, f"{volume.view}/closed/private").stdout == "mine"
    gone = as_user(OPERATOR, "import shutil, sys; shutil.rmtree(sys.argv[1])", f"{volume.view}/closed")
    assert gone.returncode == 0, gone.stderr
    assert os.listdir(volume.raw) == []


@pytest.mark.req("F4")
@pytest.mark.parametrize("user", [STRANGER, SLOT])
def test_nobody_else_reaches_volume_or_view(volume: Image, user: int) -> None:
    on_volume(volume, SLOT, lambda root: _create(root, "open", 0o666, b"x"))
    assert as_user(OPERATOR, LIST, volume.view).returncode == 0  # the control: it is there for whom it is for
    for path in (volume.raw, volume.view, f"{volume.view}/open", volume.file):
        tried = as_user(user, READ if path.endswith("open") else LIST, path)
        assert "PermissionError: [Errno 13]" in tried.stderr, (path, tried)


@pytest.mark.req("F4")
def test_an_agent_that_opens_its_volume_to_all_opens_it_to_nobody_outside(volume: Image) -> None:
    on_volume(volume, SLOT, lambda root: os.fchmod(root, 0o777))
    assert "Errno 13" in as_user(STRANGER, LIST, volume.view).stderr
    assert "Errno 13" in as_user(OPERATOR, LIST, volume.raw).stderr
    assert "Errno 13" in as_user(SLOT, LIST, volume.raw).stderr
    os.removexattr(os.path.dirname(volume.view), "system.posix_acl_access")
    os.chmod(os.path.dirname(volume.view), 0o755)
    assert as_user(STRANGER, LIST, volume.view).returncode == 0  # the control: it was the gate that held


def test_nobody_without_a_place_in_the_id_map_can_make_a_file_on_the_view(volume: Image) -> None:
    with _refused(errno.EOVERFLOW):
        os.mkdir(f"{volume.view}/roots")
    os.mkdir(f"{volume.raw}/roots")  # the control
    assert os.lstat(f"{volume.view}/roots").st_uid == 65534


def test_a_descriptor_on_the_view_leads_to_the_same_inode_on_the_volume(volume: Image) -> None:
    on_volume(volume, SLOT, lambda root: _create(root, "file"))
    os.mkdir(f"{volume.raw}/tree")
    root = volume.raw_fd()
    try:
        for name in ("file", "tree"):
            seen = os.open(f"{volume.view}/{name}", os.O_PATH)
            found = handles.twin(seen, root)
            assert os.path.samestat(os.fstat(found), os.stat(f"{volume.raw}/{name}"))
            assert os.fstat(found).st_uid == os.stat(f"{volume.raw}/{name}").st_uid != os.fstat(seen).st_uid
            for fd in (seen, found):
                os.close(fd)
        elsewhere = os.open("/etc", os.O_PATH)
        with _refused(errno.EXDEV):
            handles.twin(elsewhere, root)
        os.close(elsewhere)
    finally:
        os.close(root)


# ---- no privilege from it


@pytest.mark.req("F5")
def test_nothing_on_volume_or_view_can_be_executed(volume: Image, base: str) -> None:
    for directory in (volume.raw, base):
        Path(directory, "true").write_bytes(Path("/bin/true").read_bytes())
        os.chmod(f"{directory}/true", 0o777)
    assert subprocess.run([f"{base}/true"], check=False).returncode == 0  # the control
    for directory in (volume.raw, volume.view):
        with _refused(errno.EACCES):
            subprocess.run([f"{directory}/true"], check=False)


@pytest.mark.req("F1")
def test_set_id_bits_do_nothing_even_where_a_jail_may_execute(volume: Image, base: str) -> None:
    program = "import os; print(os.geteuid())"
    shell = Path(python("")[0]).read_bytes()
    for directory in (volume.raw, base):
        Path(directory, "interpreter").write_bytes(shell)
        os.chown(f"{directory}/interpreter", SLOT, SLOT)
        os.chmod(f"{directory}/interpreter", 0o4755)
    run = "import os, sys; os.execv(sys.argv[1], [sys.argv[2], '-I', '-c', sys.argv[3]])"
    real = python("")[0]
    assert as_user(STRANGER, run, f"{base}/interpreter", real, program).stdout.strip() == str(SLOT)  # the control
    os.mkdir(f"{base}/build", 0o755)
    root = volume.raw_fd()
    tree = handles.clone_tree(root)  # as a jail gets it whose policy declares its build directory executable
    os.fchmod(root, 0o755)
    os.close(root)
    handles.set_attributes(tree, handles.NOSUID, handles.NOEXEC)
    handles.attach(tree, f"{base}/build")
    os.close(tree)
    try:
        told = as_user(STRANGER, run, f"{base}/build/interpreter", real, program)
        assert told.stdout.strip() == str(STRANGER), told.stderr
    finally:
        handles.unmount(f"{base}/build")


@pytest.mark.req("F1")
def test_device_nodes_are_dead(volume: Image, base: str) -> None:
    for directory in (volume.raw, base):
        os.mknod(f"{directory}/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.close(os.open(f"{base}/null", os.O_WRONLY))  # the control
    for directory in (volume.raw, volume.view):
        with _refused(errno.EACCES):
            os.open(f"{directory}/null", os.O_WRONLY)


# ---- hard limits


@pytest.mark.req("F2", "F7")
def test_bytes_and_files_end_at_the_limit_and_the_image_does_not_grow(volume: Image) -> None:
    before = os.stat(volume.file)
    fill = "import os, sys\nf = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)\nwhile True: os.write(f, b'x' * 65536)"
    assert "[Errno 28]" in as_user(OPERATOR, fill, f"{volume.view}/big").stderr
    size, _ = volume.used()
    assert SIZE // 2 < size < SIZE
    assert "[Errno 28]" in as_user(OPERATOR, WRITE, f"{volume.view}/more", "x" * 65536).stderr
    for name in ("big", "more"):
        os.unlink(f"{volume.raw}/{name}")
    many = "import sys\nfor n in range(100_000): open(f'{sys.argv[1]}/{n}', 'x').close()"
    assert "[Errno 28]" in as_user(OPERATOR, many, volume.view).stderr
    files = len(os.listdir(volume.raw))
    assert INODES <= files <= volume.limits().inodes
    assert volume.used()[1] == volume.limits().inodes
    volume.unmount()
    after = os.stat(volume.file)
    assert after.st_size == before.st_size == SIZE


def test_holes_that_the_file_system_made_are_filled_before_the_next_mount(volume: Image) -> None:
    volume.unmount()
    subprocess.run(["/usr/bin/fallocate", "--punch-hole", "-o", "16M", "-l", "8M", volume.file], check=True)
    assert os.stat(volume.file).st_blocks * 512 < SIZE  # the control
    volume.mount()
    assert os.stat(volume.file).st_blocks * 512 >= SIZE


# ---- the life of an image


@pytest.mark.req("I1")
def test_content_outlives_detaching_and_attaching_by_another_process(volume: Image, base: str) -> None:
    as_user(OPERATOR, WRITE, f"{volume.view}/kept", "through it all")
    for _ in range(3):
        assert opened(base).unmount() is True
        assert not opened(base).mounted
        assert as_user(OPERATOR, READ, f"{volume.view}/kept").returncode == 1
        again = opened(base)
        again.mount()
        again.mount()
        assert again.mounted
        assert as_user(OPERATOR, READ, f"{volume.view}/kept").stdout == "through it all"


def test_an_open_file_keeps_the_volume_from_being_unmounted_in_order(volume: Image) -> None:
    held = os.open(volume.raw, os.O_RDONLY)
    with _refused(errno.EBUSY):
        volume.unmount()
    os.close(held)
    assert volume.unmount() is True
    assert volume.unmount() is True  # and again


def test_what_is_not_the_volume_is_left_alone(volume: Image, base: str) -> None:
    tree = handles.new_mount("tmpfs", "inbounds-test", handles.NOSUID)
    handles.attach(tree, volume.view)
    os.close(tree)
    try:
        assert not volume.mounted
        with _refused(errno.EBUSY):
            volume.unmount()
    finally:
        handles.unmount(volume.view)
    assert volume.mounted


@pytest.mark.req("I2", "F3")
def test_destroying_leaves_nothing_and_may_be_repeated(volume: Image, base: str) -> None:
    assert traces(base)  # the control
    volume.destroy()
    assert not traces(base)
    volume.destroy()
    opened(base).destroy()
    assert not traces(base)


def test_a_service_that_lives_long_loses_no_descriptor_and_no_child(base: str) -> None:
    def life() -> None:
        image = made(base)
        image.mount()
        image.used()
        tree = handles.new_mount("tmpfs", "inbounds-test", handles.NOSUID)
        handles.attach(tree, image.view)
        os.close(tree)
        with _refused(errno.EBUSY):
            image.unmount()
        handles.unmount(image.view)
        os.chmod(image.file, 0o640)
        with _refused(errno.EPERM):
            image.limits()
        with _refused(errno.ENOENT):
            handles.new_mount("ext4", f"{base}/nothing", 0)
        with _refused(errno.EINVAL):
            handles.user_namespace("no map", "no map")
        image.destroy()

    def held() -> tuple[int, str]:
        return len(os.listdir("/proc/self/fd")), Path("/proc/thread-self/children").read_text()

    life()
    before = held()
    life()
    assert held() == before


def test_mounts_are_found_whatever_their_path_is_called(base: str) -> None:
    place = f"{base}/a b\tc\\040"
    os.mkdir(place)
    assert handles.mounts_at(place) == []
    tree = handles.new_mount("tmpfs", "inbounds-test", handles.NOSUID, "size=4k")
    handles.attach(tree, place)
    try:
        assert [mount.device for mount in handles.mounts_at(place)] == [os.fstat(tree).st_dev]
    finally:
        os.close(tree)
        handles.unmount(place)


# ---- encryption at rest


@pytest.mark.req("F8")
@pytest.mark.skipif(bool(without_fscrypt()), reason=without_fscrypt() or "-")
def test_an_encrypted_image_shows_neither_contents_nor_names_nor_after_the_run_anything(base: str) -> None:
    secret, name = b"inbounds-plain-text-" * 400, b"inbounds-name-of-a-file"

    def image_of(*, encrypt: bool) -> bytes:
        image = made(base, encrypt=encrypt)
        image.mount()
        on_volume(image, SLOT, lambda root: _create(root, name.decode(), 0o600, secret))
        image.unmount()
        found = Path(image.file).read_bytes()
        opened(base).mount()  # another process's turn: the key is in the kernel
        assert Path(image.raw, name.decode()).read_bytes() == secret
        return found

    plain = image_of(encrypt=False)
    opened(base).destroy()
    assert secret[:20] in plain  # the control
    assert name in plain
    sealed = image_of(encrypt=True)
    assert secret[:20] not in sealed
    assert name not in sealed
    assert opened(base).limits().encrypted
    image = opened(base)
    image.unmount()
    copy = Path(image.file).read_bytes()
    image.destroy()
    Path(made(base).file).write_bytes(copy)  # somebody kept a copy of the disk
    with _refused(errno.ENOKEY):
        opened(base).mount()
    opened(base).destroy()
    image = made(base, encrypt=True)
    Path(image.file).write_bytes(copy)  # and the next run's key opens it no more than none
    image.mount()
    assert name.decode() not in os.listdir(image.raw)
    with _refused(errno.ENOKEY):
        Path(image.raw, os.listdir(image.raw)[0]).read_bytes()


@pytest.mark.req("F8")
@pytest.mark.skipif(bool(without_fscrypt()), reason=without_fscrypt() or "-")
def test_nobody_can_read_the_key_not_even_root(base: str) -> None:
    def read(number: int) -> bytes:
        room = ctypes.create_string_buffer(256)
        length = fscrypt._call(1, KEYCTL_READ, number, room, 256)
        return room.raw[:length]

    ordinary = fscrypt._call(0, b"user", b"inbounds-control", b"readable", 8, fscrypt._USER_KEYRING)
    try:
        assert read(ordinary) == b"readable"  # the control
    finally:
        fscrypt._call(1, fscrypt._INVALIDATE, ordinary)
    number = fscrypt.held(made(base, encrypt=True).key)
    assert number is not None
    with _refused(errno.EOPNOTSUPP):
        read(number)
