"""The volume as the kill switch for writes (F3), and deaths of the service in any place of an image's life.

Writers are real: descriptors, memory maps, dd, and a mount namespace that keeps a clone as a jail does.
"""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest
from imagerig import SLOT, assert_nothing_left, made, needs_images, opened, python, scratch, traces, without_fscrypt

from inbounds.host import fscrypt, handles, image, loop
from inbounds.host.image import Image

pytestmark = needs_images

SIZE = 256 << 20  # dd, at a few thousand blocks of 512 bytes a second, never fills it
STOP_S_MAX = 5.0  # what a busy machine needs; the usual is a few ms, and bench/volume_bench.py says it

DESCRIPTOR = """
import os, sys, time
fd = os.open("fd", os.O_CREAT | os.O_RDWR, 0o600, dir_fd=int(sys.argv[1]))
n = 0
try:
    while True:
        n += 1
        os.pwrite(fd, b"%016d" % n * 256, n % 512 * 4096)
        if n % 64 == 0: os.fsync(fd)
        if n == 128: print("writing", flush=True)
except OSError as fault:
    print(time.monotonic_ns(), fault.errno, flush=True)
time.sleep(600)
"""
# A page is written to as before until the kernel takes it back for writing out; the map's owner syncs it all the time.
MAPPED = """
import ctypes, mmap, os, signal, sys, time
def gone(*_):
    os.write(1, b"%d %d\\n" % (time.monotonic_ns(), signal.SIGBUS)); time.sleep(600)
signal.signal(signal.SIGBUS, gone)
fd = os.open("map", os.O_CREAT | os.O_RDWR, 0o600, dir_fd=int(sys.argv[1]))
os.ftruncate(fd, 4 << 20)
area = mmap.mmap(fd, 4 << 20, mmap.MAP_SHARED)
n = 0
try:
    while True:
        n += 1
        area[n % 1024 * 4096 : n % 1024 * 4096 + 16] = b"%016d" % n
        if n % 256 == 0: area.flush()
        if n == 1024: print("writing", flush=True)
except OSError as fault:
    print(time.monotonic_ns(), fault.errno, flush=True)
time.sleep(600)
"""
BOTH_CLOSED = (errno.EIO, int(signal.SIGBUS), errno.EROFS)


@pytest.fixture
def base() -> Iterator[str]:
    with scratch() as path:
        yield path


@pytest.fixture
def volume(base: str) -> Image:
    fresh = made(base, SIZE)
    fresh.mount()
    return fresh


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Writers:
    """Processes of the slot's user that write to the volume until it is taken from them."""

    def __init__(self, volume: Image) -> None:
        root = volume.raw_fd()
        as_slot = ["/usr/bin/setpriv", "--reuid", str(SLOT), "--regid", str(SLOT), "--clear-groups"]
        self.told = [
            subprocess.Popen([*as_slot, *python(code), str(root)], pass_fds=(root,), stdout=subprocess.PIPE, text=True)
            for code in (DESCRIPTOR, MAPPED)
        ]
        os.fchdir(root)  # so that dd begins on the volume
        try:
            copy = [*as_slot, "/bin/dd", "if=/dev/zero", "of=dd", "bs=512", "oflag=sync"]
            self.dd = subprocess.Popen(copy, stderr=subprocess.DEVNULL)
        finally:
            os.chdir("/")
            os.close(root)
        for one in self.told:
            assert _line(one) == "writing\n"
        wait_for(lambda: os.path.exists(f"{volume.raw}/dd") and os.stat(f"{volume.raw}/dd").st_size > 0)

    def stopped(self) -> list[tuple[int, int]]:
        """(monotonic ns, errno or signal) at which each writer that can tell was stopped."""
        return [(int(when), int(why)) for when, why in (_line(one).split() for one in self.told)]

    def end(self) -> None:
        self.dd.kill()
        self.dd.wait()
        for one in self.told:
            one.kill()
            one.wait()
            assert one.stdout is not None
            one.stdout.close()


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def wait_for(true: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.01)


@pytest.fixture
def writers(volume: Image) -> Iterator[Writers]:
    running = Writers(volume)
    try:
        yield running
    finally:
        running.end()


# ---- the kill switch


@pytest.mark.req("F3")
def test_detaching_stops_every_writer_at_once_and_no_byte_reaches_the_image_after_it(
    volume: Image, writers: Writers
) -> None:
    asked = time.monotonic_ns()
    volume.unmount(writers_may_live=True)
    shown = _digest(volume.file)
    for when, why in writers.stopped():
        assert why in BOTH_CLOSED
        assert when - asked < STOP_S_MAX * 1e9
    assert writers.dd.wait(STOP_S_MAX) == 1, "dd was not refused"
    time.sleep(1.0)
    assert _digest(volume.file) == shown
    assert all(one.poll() is None for one in writers.told), "they live, and hold their files open"
    assert not volume.mounted


def test_control_a_lazy_unmount_alone_leaves_writers_writing(volume: Image, writers: Writers) -> None:
    shown = _digest(volume.file)
    volume._detach(handles.MNT_DETACH)
    assert not handles.mounts_at(volume.raw)
    wait_for(lambda: _digest(volume.file) != shown)
    again = _digest(volume.file)
    wait_for(lambda: _digest(volume.file) != again)
    assert writers.dd.poll() is None
    volume.unmount(writers_may_live=True)  # and the switch still works where there is no path to the volume any more
    assert {why for _, why in writers.stopped()} <= set(BOTH_CLOSED)
    shown = _digest(volume.file)
    time.sleep(1.0)
    assert _digest(volume.file) == shown


@pytest.mark.req("F3")
def test_after_the_switch_the_volume_is_whole_and_holds_what_was_synced(
    volume: Image, writers: Writers, base: str
) -> None:
    with open(f"{volume.raw}/kept", "w") as file:
        file.write("synced")
        file.flush()
        os.fsync(file.fileno())
    volume.unmount(writers_may_live=True)
    writers.end()
    wait_for(lambda: not volume._devices())
    checked = subprocess.run(["/sbin/e2fsck", "-fp", volume.file], capture_output=True, check=False)
    assert checked.returncode in (0, 1), checked.stdout  # 1: the journal was replayed
    opened(base).mount()
    assert Path(volume.raw, "kept").read_text() == "synced"


@pytest.mark.req("F3")
def test_a_mount_namespace_that_keeps_a_clone_keeps_no_way_to_write(volume: Image, base: str) -> None:
    code = DESCRIPTOR.replace("int(sys.argv[1])", "os.open(sys.argv[1], os.O_RDONLY)")
    apart = ["/usr/bin/unshare", "--mount", "--propagation", "private", *python(code), volume.raw]
    jail = subprocess.Popen(apart, stdout=subprocess.PIPE, text=True)
    try:
        assert _line(jail) == "writing\n"
        Path(volume.raw, "before").write_text("kept")
        assert volume.unmount() is False
        assert int(_line(jail).split()[1]) in BOTH_CLOSED
        shown = _digest(volume.file)
        time.sleep(0.5)
        assert _digest(volume.file) == shown
        # The dead file system is there still, and the run can go on nevertheless, with what it had.
        held = os.stat(volume.file)
        opened(base).mount()
        assert volume.mounted
        assert not os.path.samestat(os.stat(volume.file), held)
        assert os.stat(volume.file).st_size == held.st_size
        assert Path(volume.raw, "before").read_text() == "kept"
        assert volume.destroy() is True
    finally:
        jail.kill()
        jail.wait()
        assert jail.stdout is not None
        jail.stdout.close()
    wait_for(lambda: not traces(base))


@pytest.mark.req("F3", "I2")
def test_a_mount_namespace_that_keeps_a_clone_keeps_no_content(volume: Image, base: str) -> None:
    code = "import os, sys, time; os.chdir(sys.argv[1]); print('in', flush=True); time.sleep(600)"
    apart = ["/usr/bin/unshare", "--mount", "--propagation", "private", *python(code), volume.raw]
    jail = subprocess.Popen(apart, stdout=subprocess.PIPE, text=True)
    try:
        assert _line(jail) == "in\n"
        image_fd = os.open(volume.file, os.O_RDONLY)
        try:
            assert volume.destroy() is False
            assert os.fstat(image_fd).st_size == 0
        finally:
            os.close(image_fd)
        assert not os.path.exists(f"{base}/slot")
        assert traces(base)  # a dead device, until its holder ends
    finally:
        jail.kill()
        jail.wait()
        assert jail.stdout is not None
        jail.stdout.close()
    wait_for(lambda: not traces(base))


# ---- deaths


def _life(base: str, *, encrypt: bool) -> None:
    one = made(base, 8 << 20, 64, encrypt=encrypt)
    one.mount()
    Path(one.raw, "file").write_text("x")
    one.unmount()
    one.mount()
    one.unmount(writers_may_live=True)
    one.destroy()


def _dies_after(lines: int, base: str, *, encrypt: bool) -> bool:
    """Whether a process that kills itself after so many lines of the code under test died in the middle of a life."""
    ours = {image.__file__, handles.__file__, loop.__file__, fscrypt.__file__}
    left = lines

    def traced(frame: FrameType, event: str, _: object) -> object:
        nonlocal left
        if frame.f_code.co_filename not in ours:
            return None
        left -= event == "line"
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return traced

    child = os.fork()
    if not child:
        try:
            sys.settrace(traced)  # type: ignore[arg-type]  # the stub wants a recursive type that mypy has no word for
            _life(base, encrypt=encrypt)
        finally:
            os._exit(7 if sys.exc_info()[0] else 0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), f"a life with nobody to disturb it failed after {lines} lines"
    return code != 0


@pytest.mark.parametrize(
    "encrypt",
    [False, pytest.param(True, marks=pytest.mark.skipif(bool(without_fscrypt()), reason=without_fscrypt() or "-"))],
)
def test_after_a_death_at_any_line_the_next_process_cleans_up_or_goes_on(base: str, encrypt: bool) -> None:
    died = line = 0
    while _dies_after(line, base, encrypt=encrypt):
        found = opened(base)
        if died % 2:  # go on: what is whole can be used, what is not is made anew
            again = made(base, 8 << 20, 64, encrypt=encrypt)
            again.mount()
            assert again.mounted
            Path(again.raw, "after").write_text("alive")
            again.unmount()
        found.destroy()
        assert_nothing_left(base)
        died += 1
        line += STRIDE
    assert died > 600 // STRIDE, "too few places to die in: does the tracing work?"


STRIDE = int(os.environ.get("INBOUNDS_TEST_DEATHS_EVERY", "37"))  # lines; every line takes ten minutes


def test_a_volume_that_was_shut_down_and_not_unmounted_is_mounted_anew(volume: Image, base: str) -> None:
    Path(volume.raw, "kept").write_text("x")
    with open(f"{volume.raw}/kept", "rb") as file:
        os.fsync(file.fileno())
    volume._cut(image._AT_ONCE)  # and here the service dies
    with pytest.raises(OSError, check=lambda fault: fault.errno == errno.EIO):
        Path(volume.raw, "more").write_text("x")
    opened(base).mount()
    Path(volume.raw, "more").write_text("x")
    assert Path(volume.raw, "kept").read_text() == "x"


def test_a_half_made_file_system_is_begun_anew(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(fd: int, *_: object, **__: object) -> None:
        os.pwrite(fd, b"half", 1024)
        os._exit(9)

    child = os.fork()
    if not child:
        monkeypatch.setattr(image, "_make_file_system", half)
        try:
            made(base)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert os.listdir(f"{base}/slot") == ["image.part"]  # the control
    assert not opened(base).exists
    assert os.listdir(f"{base}/slot") == []
    made(base).mount()
    assert opened(base).mounted


@pytest.mark.parametrize("fault", [OSError(errno.EIO, "disk"), KeyboardInterrupt()])
def test_a_failure_while_making_leaves_nothing(
    base: str, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    def failing(*_: object, **__: object) -> None:
        assert traces(base)  # the control
        raise fault

    monkeypatch.setattr(image, "_make_file_system", failing)
    with pytest.raises(type(fault)):
        made(base)
    assert not traces(base)
