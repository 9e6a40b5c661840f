"""What is written through a memory map shows in no time of the file, or not always: the looks see it all the same."""

import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from storerepo import make

from inbounds.store import descent, filetimes, snapshot, walk
from inbounds.store.snapshot import Part, Snapshots
from inbounds.store.store import Store
from inbounds.store.walk import Limits

# Maps the file, writes a sign into it for each one that it is told, and says so.
WRITER = """
import mmap, sys
with open(sys.argv[1], "r+b") as file:
    mapped = mmap.mmap(file.fileno(), 0)
mapped[0]
for sign in iter(lambda: sys.stdin.buffer.read(1), b""):
    mapped[0:1] = sign
    sys.stdout.write("written\\n")
    sys.stdout.flush()
"""
SHM = Path("/dev/shm")  # the one place where an ordinary user finds a file system in memory


class World:
    """A workspace that was just written, looked at by one who remembers."""

    def __init__(self, place: Path) -> None:
        make(place / "source", {"t/a": "a\n", "t/b": "b\n"})
        self.store = Store.create(str(place / "store.git"))
        self.tree = self.store.tree_of(self.store.fetch(str(place / "source")))
        (place / "rw").mkdir()
        (place / "state").mkdir()
        written = self.store.export(self.tree, str(place / "rw"), ("t",))
        self.path = place / "rw" / "t" / "a"
        self.handle = os.open(place / "rw" / "t", walk.DIRECTORY)
        self.looks = Snapshots(self.store, self.tree, Part("t", ()), str(place / "state"), Limits())
        self.looks.seed(self.handle, self.tree, written)
        self.writers: list[subprocess.Popen[bytes]] = []

    def writer(self) -> "subprocess.Popen[bytes]":
        argv = [sys.executable, "-I", "-S", "-c", WRITER, str(self.path)]
        self.writers.append(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0))
        return self.writers[-1]

    def seen(self, *, alive: bool) -> str:
        """What the tree of a look has in the file, more than a tick behind what was done before."""
        time.sleep(2.5 * snapshot.TICK_NS / 1e9)
        taken = self.looks.take(self.handle, alive=alive)
        assert taken.complete
        blob = next(node.blob for node in self.store.ls(taken.tree) if node.path == "t/a")
        return self.store.read_blob(blob).decode()

    def changed(self) -> int:
        return self.path.stat().st_ctime_ns

    def close(self) -> None:
        for writer in self.writers:
            writer.kill()
            writer.wait()
            for pipe in (writer.stdin, writer.stdout):
                if pipe is not None:
                    pipe.close()
        os.close(self.handle)


@pytest.fixture
def world(place):
    made = World(place)
    yield made
    made.close()


@pytest.fixture
def in_memory():
    if not SHM.is_dir() or not os.access(SHM, os.W_OK) or f" {SHM} tmpfs " not in Path("/proc/mounts").read_text():
        pytest.skip("no file system in memory at /dev/shm that this user may write to")
    place = Path(tempfile.mkdtemp(prefix="inbounds-filetimes-", dir=SHM))
    try:
        made = World(place)
        try:
            yield made
        finally:
            made.close()
    finally:
        descent.delete_tree(str(place))


def write(writer, sign: bytes) -> None:
    writer.stdin.write(sign)
    assert writer.stdout.readline() == b"written\n"


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "running"])
def test_a_map_that_a_living_process_wrote_through_is_read_again(world, frozen):
    if not world.looks._times_tell(world.handle):
        pytest.skip("the times tell of no map on this file system: another test's")
    writer = world.writer()
    write(writer, b"b")
    if frozen:
        os.kill(writer.pid, signal.SIGSTOP)
    assert world.seen(alive=True) == "b\n"
    before = world.changed()
    os.kill(writer.pid, signal.SIGCONT)
    write(writer, b"c")
    if world.changed() != before:
        pytest.skip("the kernel has written the page out in between: this writing showed")
    writer.kill()
    writer.wait()
    assert world.changed() == before
    assert world.seen(alive=False) == "c\n"


def test_without_being_told_that_one_lives_the_writing_is_missed(world):
    """The control: it is the reading again that sees it, and a look must say the truth about who lives."""
    if not world.looks._times_tell(world.handle):
        pytest.skip("every look reads everything on this file system")
    writer = world.writer()
    write(writer, b"b")
    assert world.seen(alive=False) == "b\n"
    before = world.changed()
    write(writer, b"c")
    if world.changed() != before:
        pytest.skip("the kernel has written the page out in between: this writing showed")
    assert world.seen(alive=False) == "b\n"


def test_a_map_that_is_made_behind_the_look_shows(world):
    """Why a look with nobody alive needs no reading again, the page being as dirty as it is."""
    if not world.looks._times_tell(world.handle):
        pytest.skip("every look reads everything on this file system")
    for sign in (b"b", b"c", b"d"):
        before, writer = world.changed(), world.writer()
        write(writer, sign)
        assert world.changed() != before
        writer.kill()
        writer.wait()
        assert world.seen(alive=False) == sign.decode() + "\n"


def test_what_lived_through_several_looks_is_settled_by_one_that_nobody_lived_through(world, monkeypatch):
    read: list[str] = []
    real = walk.read_entry
    monkeypatch.setattr(snapshot.walk, "read_entry", lambda root, entry: read.append(entry.path) or real(root, entry))
    if not world.looks._times_tell(world.handle):
        pytest.skip("every look reads everything on this file system")
    world.path.write_text("b\n")
    for alive in (True, True, False):
        read.clear()
        assert world.seen(alive=alive) == "b\n"
        assert read == ["a"]
    read.clear()
    assert world.seen(alive=False) == "b\n"
    assert read == []


def test_in_memory_no_time_tells_and_every_look_reads_everything(in_memory):
    world = in_memory
    with open(world.path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        assert mapped[0:1] == b"a"
        before = world.changed()
        mapped[0:1] = b"b"
        if world.changed() != before:
            pytest.skip("this kernel's file system in memory shows what is written through a map")
    assert not world.looks._times_tell(world.handle)
    assert world.seen(alive=False) == "b\n"
    assert not world.looks.rewind(world.handle, world.tree, str(world.path.parent.parent), None, kept="t/kept")


def test_the_trial_tells_file_systems_apart_and_leaves_nothing(place, in_memory):
    device = place.stat().st_dev
    kinds = {line.split()[1]: line.split()[2] for line in Path("/proc/mounts").read_text().splitlines()}
    mount = next(str(above) for above in (place, *place.parents) if str(above) in kinds)
    if kinds[mount] in ("ext4", "xfs", "btrfs"):
        assert filetimes.tell(str(place), device)
    assert not filetimes.tell(str(place), device + 1)  # it says nothing of another
    assert not filetimes.tell(str(in_memory.path.parent), in_memory.path.stat().st_dev)
    assert os.listdir(place) == []
    assert sorted(os.listdir(in_memory.path.parent)) == ["a", "b"]
    missing = place / "missing"
    with pytest.raises(FileNotFoundError):
        missing.stat()
    assert not filetimes.tell(str(missing), device)
