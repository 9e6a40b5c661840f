"""A look at what changed says exactly what a look at everything says, whatever an agent did in between."""

import contextlib
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from storerepo import make

from inbounds.contracts.errors import HostError
from inbounds.store import blobs, descent, listing, snapshot, walk
from inbounds.store.snapshot import Part, Snapshots
from inbounds.store.store import Store
from inbounds.store.walk import Limits

FILES = {
    "t/a": "a\n",
    "t/b": "b\n",
    "t/dir/a": "in dir\n",
    "t/dir/deep/b": "deeper\n",
    "t/.inbounds/config": "limits: {}\n",
    "t/kept/test": "assert False\n",
    "u/other": "x\n",
    ".gitignore": "*.log\nbuild/\n",
}
PROTECTED = ("t/.inbounds", "t/kept/test", "t/never")
LIMITS = Limits(depth_max=5, file_bytes_max=5_000, bytes_max=20_000, entries_max=60)
DIRECTORIES = ("", "dir", "dir/deep", "kept", ".inbounds", "build", "new", "new/a/b")
NAMES = (
    "a",
    "b",
    "test",
    "config",
    "x.log",
    "build",
    "dir",
    "kept",
    "new",
    ".git",
    ".GIT",
    "never",
    "caf\udce9",
    "é\n",
)


class World:
    """A workspace, and two that look at it: one may use what it saw before, the other looks at everything."""

    def __init__(self, place: Path) -> None:
        make(place / "source", FILES)
        store = Store.create(str(place / "store.git"))
        self.store, self.tree = store, store.tree_of(store.fetch(str(place / "source")))
        self.place, self.root = place, place / "rw" / "t"
        (place / "rw").mkdir()
        self.outside = place / "outside"
        self.outside.write_text("o")
        written = store.export(self.tree, str(place / "rw"), ("t",))
        self.handle = os.open(self.root, walk.DIRECTORY)
        self.quick, self.whole = (self.looking(name) for name in ("quick", "whole"))
        self.quick.seed(self.handle, self.tree, written)
        self.scans = 0

    def looking(self, name: str) -> Snapshots:
        (self.place / name).mkdir()
        return Snapshots(self.store, self.tree, Part("t", PROTECTED), str(self.place / name), LIMITS)

    def agree(self, *, alive: bool = False) -> snapshot.Snapshot:
        whole = self.whole
        whole._look = None  # it never remembers
        quick = self.quick.take(self.handle, alive=alive)
        assert quick == whole.take(self.handle)
        return quick


@pytest.fixture
def world(place, monkeypatch):
    made = World(place)
    real = walk.scan

    def counted(root, limits):
        made.scans += 1
        return real(root, limits)

    monkeypatch.setattr(snapshot.walk, "scan", counted)
    yield made
    os.close(made.handle)


def act(world: World, action: str, one: str, two: str, size: int) -> None:
    """Do one thing that an agent may do; what can't be done is nothing."""
    here, there = world.root / one, world.root / two
    with contextlib.suppress(OSError, HostError):
        match action:
            case "write":
                here.parent.mkdir(parents=True, exist_ok=True)
                here.write_bytes(os.urandom(size))
            case "overwrite":
                about = here.stat()
                here.write_bytes(os.urandom(about.st_size))
                os.utime(here, ns=(about.st_atime_ns, about.st_mtime_ns))
            case "delete" if here != world.root:
                descent.delete_tree(str(here)) if here.is_dir() and not here.is_symlink() else here.unlink()
            case "rename":
                os.rename(here, there)
            case "mode":
                here.chmod((0o644, 0o755, 0o600, 0o4755, 0o2755)[size % 5])
            case "link":
                here.symlink_to((two, "../../outside", "/etc/passwd", ".")[size % 4])
            case "hard link":
                os.link(world.outside if size % 2 else there, here)
            case "pipe":
                os.mkfifo(here)
            case "directory":
                here.mkdir(parents=True)
            case "swap" if here.is_file():
                here.unlink()
                here.mkdir()
                (here / "a").write_text("inside")
            case "wait":
                time.sleep(2.5 * snapshot.TICK_NS / 1e9)


PATHS = st.builds(lambda directory, name: f"{directory}/{name}".lstrip("/"), st.sampled_from(DIRECTORIES), st.sampled_from(NAMES))  # fmt: skip
EXISTING = st.sampled_from([name[2:] for name in FILES if name.startswith("t/")] + ["dir", "kept", "dir/deep"])
ACTIONS = ("write", "overwrite", "delete", "rename", "mode", "link", "hard link", "pipe", "directory", "swap", "wait")
# What needs no scan comes three times as often, so that a look builds on looks.
STEPS = st.tuples(
    st.sampled_from(("write", "overwrite", "delete", "rename", "wait", "write", "overwrite", "swap", *ACTIONS)),
    st.one_of(EXISTING, PATHS),
    st.one_of(EXISTING, PATHS),
    st.integers(0, 6_000),
)


@settings(
    max_examples=30,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(st.tuples(st.booleans(), st.lists(STEPS, min_size=1, max_size=4)), min_size=1, max_size=6))
def test_a_look_at_what_changed_is_a_look_at_everything(tmp_path_factory, rounds):
    place = tmp_path_factory.mktemp("looks")
    world = World(place)
    try:
        for alive, steps in rounds:
            for step in steps:
                act(world, *step)
            world.agree(alive=alive)
            # Whatever was in these directories then, by processes of their own from now on.
            world.quick._shares = listing.Shares("", (("dir", "kept"), ("new", "build", "a")))
    finally:
        os.close(world.handle)
        descent.delete_tree(str(place))


def test_plain_changes_need_no_scan_and_odd_ones_do(world):
    """Or the property above would be one of two scans."""
    if not listing.available():
        pytest.skip("GNU find is not installed here: every look is a scan")
    plain = (
        ("write", "a", "", 10), ("overwrite", "a", "", 0), ("write", "new/x.log", "", 5), ("rename", "dir", "moved", 0),
        ("link", "l", "", 1), ("mode", "b", "", 1), ("swap", "b", "", 0), ("delete", "kept/test", "", 0),
        ("write", ".inbounds/config", "", 3), ("delete", "moved", "", 0), ("delete", "new", "", 0),
    )  # fmt: skip
    for step in plain:
        act(world, *step)
        scans = world.scans
        assert world.agree().complete
        assert world.scans == scans + 1, step  # the other's
    assert world.agree().protected_changed == ("t/.inbounds/config", "t/kept/test")
    odd = ("pipe", ".GIT", "caf\udce9", "s", "h", "large")
    for number, name in enumerate(odd):
        match name:
            case "pipe":
                act(world, "pipe", name, "", 0)
            case "s":
                act(world, "write", name, "", 1), act(world, "mode", name, "", 3)
            case "h":
                act(world, "hard link", name, "", 1)
            case _:
                act(world, "write", name, "", 5_001 if name == "large" else 1)
        scans = world.scans
        taken = world.agree()
        assert world.scans == scans + 2, (number, name)
        assert not taken.complete or taken.foreign
        act(world, "delete", name, "", 0)
        world.agree()


@pytest.mark.req("I1")
def test_a_rewrite_within_a_tick_of_the_look_is_read_again(world, monkeypatch):
    """With all times as they were: the set of files looked at twice is what sees it."""
    path = world.root / "a"
    for number in range(5):
        path.write_text(f"{number}\n")
        first = world.agree()
        real = listing.lines
        before = real(world.handle, LIMITS)
        path.write_text(f"{number + 5}\n")
        with monkeypatch.context() as patch:  # as if the file system's clock had not moved since
            patch.setattr(snapshot.listing, "lines", lambda root, limits, shares, before=before: before)
            second = world.quick.take(world.handle)
        assert second.tree != first.tree
        assert world.store.read_blob(second.changes[0].new_blob) == f"{number + 5}\n".encode()
    assert world.agree().complete


def test_without_gnu_find_every_look_is_a_scan(world, monkeypatch, tmp_path):
    for number, script in enumerate(("exit 1", "echo usage: find", "printf 'GNU findutils'; [ $1 = --version ]")):
        program = tmp_path / f"find{number}"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(listing, "FIND", str(program))
        listing.available.cache_clear()
        try:
            assert listing.lines(world.handle, LIMITS) is None
            act(world, "write", "a", "", 100 + number)
            scans = world.scans
            assert world.agree().complete
            assert world.scans == scans + 2
        finally:
            listing.available.cache_clear()


def test_a_listing_has_limits(world, monkeypatch):
    """More than it may print or last is no answer; and none is left running."""
    assert listing.lines(world.handle, LIMITS)
    with monkeypatch.context() as patch:
        patch.setattr(listing, "LINE_BYTES", 1)
        assert listing.lines(world.handle, LIMITS) is None
    with monkeypatch.context() as patch:
        patch.setattr(listing, "TIMEOUT_S", 0.0)
        assert listing.lines(world.handle, LIMITS) is None
    (world.root / "d1" / "d2" / "d3" / "d4" / "d5" / "d6").mkdir(parents=True)
    listed = listing.lines(world.handle, LIMITS)
    assert listed
    seen = set(listed.seen())
    assert ("d", "d1/d2/d3/d4/d5") in seen
    assert not any(path.endswith("d6") for _, path in seen)
    assert "too deep" in world.agree().why


def test_what_came_and_went_behind_the_origin_can_come_again(world):
    """It is in no listing when the workspace goes back: only the tree of the look in between had it."""
    (world.root / "new").write_text("new\n")
    assert len(world.agree().changes) == 1
    (world.root / "new").unlink()
    assert world.quick.rewind(world.handle, world.tree, str(world.root.parent), None, kept="t/.inbounds")
    assert world.agree().changes == ()
    (world.root / "new").write_text("new\n")
    assert [change.path for change in world.agree().changes] == ["t/new"]


def test_a_look_that_could_not_be_stored_is_made_again(world, monkeypatch):
    """What was read then is in no pack: nothing of it may be taken for known."""
    (world.root / "a").write_text("lost\n")
    real = blobs.ObjectWriter.add

    def full(*args, **how):
        real(*args, **how)
        raise HostError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(blobs.ObjectWriter, "add", full)
        with pytest.raises(HostError):
            world.quick.take(world.handle, alive=False)
    taken = world.agree()
    assert world.store.read_blob(taken.changes[0].new_blob) == b"lost\n"
