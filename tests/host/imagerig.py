"""A slot's image in a scratch directory, users to try it with, and a proof that nothing of it is left behind.

Knows nothing of the service that drives images.
"""

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inbounds.host import fscrypt, handles, image
from inbounds.host.image import Image

SLOT, OPERATOR, STRANGER = 61190, 64242, 64243  # beyond the slots of a host that has the service
FOREIGN_S_MAX = 120.0
SIZE, INODES = 32 << 20, 512


def lacking() -> str:
    """Why images can't be tested here, or ""."""
    if os.geteuid():
        return "images of slots are made by root alone"
    if not any(os.path.exists(program) for program in image._MKFS):
        return "mkfs.ext4 is not installed"
    if not os.path.exists("/dev/loop-control"):
        return "this kernel offers no loop devices"
    return ""


def without_fscrypt() -> str:
    """Why encryption can't be tested here, or ""."""
    if why := lacking():
        return why
    try:
        fscrypt.draw("inbounds-probe")
    except OSError as fault:
        return f"this kernel has no ext4 encryption: {fault}"
    fscrypt.forget("inbounds-probe")
    return ""


needs_images = pytest.mark.skipif(bool(lacking()), reason=lacking() or "-")


def where(base: str) -> tuple[str, str, str]:
    return f"{base}/slot", f"{base}/custody/raw", f"{base}/desk/view"


def opened(base: str) -> Image:
    return Image.open(*where(base), uid=SLOT, gid=SLOT, operator_uid=OPERATOR, operator_gid=OPERATOR)


def made(base: str, size: int = SIZE, inodes: int = INODES, *, encrypt: bool = False) -> Image:
    return Image.make(
        *where(base),
        size=size,
        inodes=inodes,
        uid=SLOT,
        gid=SLOT,
        operator_uid=OPERATOR,
        operator_gid=OPERATOR,
        encrypt=encrypt,
    )


@contextlib.contextmanager
def scratch() -> Iterator[str]:
    """A directory that everybody may pass through; whatever is mounted in it is gone behind, and that is asserted."""
    base = tempfile.mkdtemp(prefix="inbounds-image-", dir="/var/tmp")
    os.chmod(base, 0o755)
    try:
        yield base
    finally:
        try:
            if os.path.exists(f"{base}/slot"):
                os.chmod(f"{base}/slot", 0o700)
                opened(base).destroy()
        finally:
            try:
                assert_nothing_left(base)
            finally:
                shutil.rmtree(base)


def traces(base: str) -> list[str]:
    """Mounts, loop devices, keys and files that name this directory."""
    found = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if base in line]
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # released between the two
            found += [f"{backing}: {text}" for text in [backing.read_text()] if base in text]
    if fscrypt.held(f"inbounds:{base}/slot") is not None:
        found.append("a key")
    return found + [str(path) for name in ("slot", "custody", "desk") if (path := Path(base, name)).exists()]


def assert_nothing_left(base: str) -> None:
    """Soon: other processes of this machine may have copied our mounts into namespaces of theirs for a while."""
    until = time.monotonic() + FOREIGN_S_MAX
    while (left := traces(base)) and all("/loop/" in trace for trace in left) and time.monotonic() < until:
        time.sleep(0.05)
    for path in where(base)[1:]:
        while handles.mounts_at(path):  # so that a failure here does not become one of every test after it
            handles.unmount(path, handles.MNT_DETACH)
    assert not left, left


def as_user(uid: int, code: str, *argv: str, pass_fds: tuple[int, ...] = ()) -> "subprocess.CompletedProcess[str]":
    """Python source run as an ordinary user with no group but its own."""
    return subprocess.run(
        ["/usr/bin/setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups", *python(code), *argv],
        capture_output=True,
        text=True,
        timeout=60,
        pass_fds=pass_fds,
        check=False,
        cwd="/",
    )


def python(code: str) -> list[str]:
    """An interpreter that an ordinary user may execute: the virtual environment may be root's alone."""
    return [_interpreter(), "-I", "-c", code]


@functools.cache
def _interpreter() -> str:
    for program in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            subprocess.run([program, "-I", "-c", "import os"], user=OPERATOR, group=OPERATOR, check=True, cwd="/")
            return program
    return pytest.skip("no Python interpreter here may be executed by an ordinary user")


def on_volume(image: Image, uid: int, action: Callable[[int], None]) -> None:
    """Do something as a user with a descriptor of the volume's root, as a process in a jail would; its fault is ours."""
    root = image.raw_fd()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            action(root)
            code = 0
        except OSError as fault:
            code = fault.errno or 1
        finally:
            os._exit(code)
    os.close(root)
    _, status = os.waitpid(child, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise OSError(code, os.strerror(abs(code)))
