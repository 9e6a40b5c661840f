"""Copying out of a volume: everything that can be looked at comes along, nothing that could run, and within its room."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from inbounds.contracts.errors import HostError
from inbounds.store.descent import delete_tree
from inbounds.store.salvage import HALF, Room, copy_out

MIB = 1 << 20


def room(size: int = 64 * MIB, entries: int = 10_000) -> Room:
    return Room(size, entries)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    (made / "a" / "b").mkdir(parents=True)
    (made / "a" / "tool").write_text("#!/bin/sh\n")
    (made / "a" / "tool").chmod(0o4755)
    (made / "a" / "b" / "shut").write_text("content")
    (made / "a" / "b" / "shut").chmod(0)
    (made / "link").symlink_to("/etc/passwd")
    return made


@pytest.mark.req("E13")
def test_files_come_along_and_none_can_be_executed(source: Path, tmp_path: Path) -> None:
    os.mkfifo(source / "pipe")
    target = tmp_path / "target"
    assert copy_out(str(source), str(target), room()) == 1  # the pipe is left out
    assert (target / "a" / "tool").read_text() == "#!/bin/sh\n"
    assert (target / "a" / "b" / "shut").read_text() == "content"
    assert os.readlink(target / "link") == "/etc/passwd"
    assert not (target / "pipe").exists()
    files = [path for path in target.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Source and target of a tree that nothing but our own code can delete."""
    yield tmp_path / "source", tmp_path / "target"
    for name in ("source", "target"):
        delete_tree(str(tmp_path / name))


def test_a_tree_deeper_than_a_path_can_be(deep: tuple[Path, Path]) -> None:
    levels, (source, target) = 3_000, deep
    source.mkdir()
    here = os.open(source, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("leaf", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    os.close(here)
    copy_out(str(source), str(target), room())
    there = os.open(target, os.O_RDONLY)
    for _ in range(levels):
        below = os.open("d", os.O_RDONLY, dir_fd=there)
        os.close(there)
        there = below
    assert os.listdir(there) == ["leaf"]
    os.close(there)


def test_holes_cost_nothing(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    with (source / "vast").open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 30)
        file.write(b"in the middle")
    copy_out(str(source), str(target), room(MIB))
    about = (target / "vast").stat()
    assert about.st_size == 1 << 40
    assert about.st_blocks * 512 < MIB
    with (target / "vast").open("rb") as file:
        file.seek(1 << 30)
        assert file.read(13) == b"in the middle"


@pytest.mark.parametrize("tight", [Room(MIB, 10_000), Room(64 * MIB, 3)])
def test_what_has_no_room_is_refused_and_the_next_attempt_succeeds(source: Path, tmp_path: Path, tight: Room) -> None:
    (source / "large").write_bytes(os.urandom(2 * MIB))
    target = tmp_path / "target"
    with pytest.raises(HostError, match="more than the run's limits"):
        copy_out(str(source), str(target), tight)
    assert not target.exists()
    copy_out(str(source), str(target), room())  # the control, over what the first one left half done
    assert (target / "large").stat().st_size == 2 * MIB
    assert not Path(f"{target}{HALF}").exists()
