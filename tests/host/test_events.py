"""File events on a real ext4 volume: what is told, of whom, and that nothing is lost without a word."""

import os
import select
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from groups_rig import ended, needs_root, start, uid_of

from inbounds.host import events
from inbounds.host.events import Events, Record, unpack

pytestmark = needs_root
UID = uid_of(75)
MANY = 30_000
QUEUE = Path("/proc/sys/fs/fanotify/max_queued_events")

ACTS = r"""
import mmap, os
def put(name, text):
    with open(name, "wb") as file:
        file.write(text)
put("made", b"x")
open("there", "rb").read()
os.link("there", "linked")
open("linked", "rb").read()
os.rename("made", "dir/moved")
os.mkdir("dir/young")
put(b"dir/young/a\nb\x01\xff", b"y")
os.rename("dir", "new")
put("new/later", b"z")
fd = os.open("mapped", os.O_RDWR)
view = mmap.mmap(fd, 4096)
os.close(fd)
view[0:1] = b"!"
view.close()
os.unlink("linked")
os.truncate("cut", 0)
"""


class Reader:
    """What session and supervisor are to `Events`: one thread that polls and reads the pipe meanwhile."""

    def __init__(self, volume: Path) -> None:
        fd = os.open(volume, os.O_RDONLY | os.O_DIRECTORY)
        self.reading, writing = os.pipe()
        self.events = Events(fd, writing, UID)
        os.close(fd)
        self.data, self.over = bytearray(), threading.Event()
        self.threads = [threading.Thread(target=one, daemon=True) for one in (self._pump, self._read)]

    def _pump(self) -> None:
        while not self.over.is_set():
            if select.select([self.events.fileno()], [], [], 0.05)[0]:
                self.events.handle()
        self.events.close()

    def _read(self) -> None:
        while part := os.read(self.reading, 1 << 16):
            self.data += part

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(60)
        os.close(self.reading)

    def records(self) -> list[Record]:
        found, rest = unpack(bytes(self.data))
        assert not rest
        return found


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """An empty ext4 of the slot's user."""
    image, place = tmp_path / "inbounds-image", tmp_path / "m"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-N", "60000", image], check=True)
    subprocess.run(["mount", "-o", "loop,nosuid,nodev,noexec", image, place], check=True)
    try:
        os.chown(place, UID, UID)
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def _act(volume: Path, code: str, uid: int = UID) -> None:
    with ended(start(None, code, uid=uid, cwd=volume)) as one:
        assert one.wait(120) == 0


def _whats(records: list[Record]) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    for one in records:
        found[one.path] = found.get(one.path, 0) | one.what
    return found


@pytest.mark.req("H5", "H6")
def test_files_read_and_written_are_told_by_name(volume: Path) -> None:
    assert events.mechanism() == "enforced", "every kernel that this suite runs on has it"
    for name in ("there", "mapped", "cut"):
        (volume / name).write_bytes(b"x" * 4096)
        os.chown(volume / name, UID, UID)
    (volume / "dir").mkdir()
    os.chown(volume / "dir", UID, UID)
    began = time.time_ns() // 1_000_000
    with Reader(volume) as reader:
        (volume / "root-made").write_bytes(b"not the slot's user")
        _act(volume, "import time; time.sleep(0.2)\n" + ACTS + "\ntime.sleep(0.5)")
    records = reader.records()
    assert records.pop().what == events.END
    found = _whats(records)
    wanted = {
        b"made": events.CREATED | events.WRITTEN | events.CLOSED | events.MOVED_FROM,
        b"there": events.OPENED | events.READ,
        b"linked": events.CREATED | events.OPENED | events.READ | events.DELETED,
        b"mapped": events.OPENED | events.CLOSED,
        b"cut": events.WRITTEN,
        b"dir": events.MOVED_FROM | events.DIRECTORY,
        b"new": events.MOVED_TO | events.DIRECTORY,
        b"new/later": events.CREATED | events.WRITTEN,
    }
    for path, what in wanted.items():
        assert found.get(path, 0) & what == what, (path, found)
    assert not found[b"there"] & (events.WRITTEN | events.CLOSED), "what was read only is not written"
    # a directory has the name of the moment at which the event is read
    moved = [path for path, what in found.items() if path.endswith(b"/moved") and what & events.MOVED_TO]
    odd = [path for path, what in found.items() if path.endswith(b"/young/a\nb\x01\xff") and what & events.WRITTEN]
    assert [path.split(b"/")[0] for path in moved + odd] in ([b"dir", b"dir"], [b"new", b"new"], [b"dir", b"new"])
    assert b"root-made" not in found
    assert len({one.process for one in records}) == 1
    assert all(began <= one.at_ms <= time.time_ns() // 1_000_000 for one in records)
    assert all(one.what & (events.GONE | events.PARTIAL | events.INCOMPLETE) == 0 for one in records)


@pytest.mark.req("H5", "H6")
@pytest.mark.parametrize("reading", [True, False], ids=["read meanwhile", "read too late"])
def test_a_burst_is_told_whole_or_as_incomplete(volume: Path, reading: bool) -> None:
    burst = f"import os\nfor n in range({MANY}): os.close(os.open(f'f{{n}}', os.O_CREAT | os.O_WRONLY))\n"
    assert int(QUEUE.read_text()) < MANY, "the control: the second case runs over"
    with Reader(volume) as reader:
        if not reading:
            full = threading.Lock()
            full.acquire()
            real, reader.events.handle = reader.events.handle, lambda: full.acquire(timeout=60) and real()  # type: ignore[method-assign]  # holds it back
        _act(volume, burst)
        if not reading:
            reader.events.handle = real  # type: ignore[method-assign]  # lets go
            full.release()
    records = reader.records()
    made = {one.path for one in records if one.what & events.CREATED}
    incomplete = any(one.what & events.INCOMPLETE for one in records)
    assert records[-1].what == events.END
    assert incomplete == (reader.events.lost > 0)
    assert len(made) == MANY or incomplete
    if not reading:
        assert incomplete
        assert 0 < len(made) < MANY


def test_a_supervisor_that_does_not_read_blocks_nobody(volume: Path) -> None:
    fd = os.open(volume, os.O_RDONLY | os.O_DIRECTORY)
    reading, writing = os.pipe()
    watched = Events(fd, writing, UID)
    os.close(fd)
    try:
        _act(volume, "import os\nfor n in range(8000): os.close(os.open(f'g{n}', os.O_CREAT | os.O_WRONLY))\n")
        began, rounds = time.monotonic(), 0
        while watched.handle() and rounds < 10_000:
            rounds += 1
        assert time.monotonic() - began < 10
        assert len(watched._out) < 4 << 20, "what waits is one batch"
        assert not select.select([watched.fileno()], [], [], 0)[0], "a full pipe does not keep the loop busy"
        data = os.read(reading, 1 << 20)
        assert select.select([watched.fileno()], [], [], 5)[0], "room again"
        while select.select([watched.fileno()], [], [], 0.2)[0]:
            watched.handle()
            data += os.read(reading, 1 << 20)
        records, rest = unpack(data)
        assert not rest
        assert len({one.path for one in records if one.what & events.CREATED}) == 8000
        os.close(reading)
        _act(volume, "open('h', 'w').close()")
        while watched.handle():  # nobody reads any more: that is the session's end, and no fault here
            pass
        assert not select.select([watched.fileno()], [], [], 0.2)[0], "nor does it keep the loop busy"
    finally:
        watched.close()


def test_a_directory_that_is_gone_leaves_the_name(volume: Path) -> None:
    fd = os.open(volume, os.O_RDONLY | os.O_DIRECTORY)
    reading, writing = os.pipe()
    watched = Events(fd, writing, UID)
    os.close(fd)
    _act(volume, "import os\nos.mkdir('d')\nopen('d/f', 'w').close()\nos.unlink('d/f')\nos.rmdir('d')")
    watched.close()
    found = _whats(unpack(os.read(reading, 1 << 20))[0])
    os.close(reading)
    assert found[b"f"] & events.PARTIAL
    assert found[b"f"] & events.GONE, "and its process, too"
    assert found[b"d"] & (events.CREATED | events.DELETED)


@pytest.mark.req("H6")
def test_what_the_slot_executes_elsewhere_is_told(volume: Path) -> None:
    with Reader(volume) as reader:
        place = os.open("/usr", os.O_PATH)
        reader.events.executed_on(place)
        reader.events.executed_on(place)  # once more is no fault
        os.close(place)
        _act(volume, "import subprocess; subprocess.run(['/bin/sleep', '0.7'])")
        subprocess.run(["/bin/sleep", "0.2"], check=True)
    executed = [one.path for one in reader.records() if one.what & events.EXECUTED]
    slept = os.path.realpath("/bin/sleep").encode()
    assert executed.count(slept) == 1, (executed, "the slot's and not root's")


def test_a_stream_is_read_in_any_parts() -> None:
    whole = b"".join(events.RECORD.pack(n, n, n, n) + b"\n" * n for n in range(40))
    for step in (1, 7, 1000):
        rest, found = b"", list[Record]()
        for at in range(0, len(whole), step):
            more, rest = unpack(rest + whole[at : at + step])
            found += more
        assert not rest
        assert found == [Record(n, n, n, b"\n" * n) for n in range(40)]


def test_nothing_is_left_open(volume: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    fd = os.open(volume, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(3):
        reading, writing = os.pipe()
        Events(fd, writing, UID).close()
        os.close(reading)
    os.close(fd)
    assert len(os.listdir("/proc/self/fd")) == before
    reading, writing = os.pipe()
    with pytest.raises(OSError, match="fanotify"):
        Events(reading, writing, UID)  # a pipe has no file system to watch
    os.close(reading)
    assert len(os.listdir("/proc/self/fd")) == before
    assert events.mechanism() == "enforced"
    assert len(os.listdir("/proc/self/fd")) == before
