"""Files that a jailed process opens are told, by whatever way it opens them; and when that is not all, it is said."""

import os
import time
from pathlib import Path

import pytest
from jailrig import Rig

from inbounds.sandbox import reads
from inbounds.sandbox.reads import Reads, Seen
from inbounds.sandbox.spec import Bind

WORK = "/work"
NAMES = ("plain", "mapped", "linked", "moved", "by_symlink", "by_descriptor", "script", "written")
UNOPENED = ("never", "only_stat", "sub/never", "listed/never", ".git/config", "sub/.git/config")

EVERY_WAY = """
import mmap, os, subprocess, sys
open("plain").read()
with open("mapped", "r+b") as file:
    mmap.mmap(file.fileno(), 0)[:]
os.link("linked", "other name")
os.mkdir("new")
os.rename("moved", "new/name")
os.symlink("../by_symlink", "new/link")
for path in ("other name", "new/name", "new/link", "ro/shown", ".git/config", "sub/.git/config"):
    open(path).read()
fd = os.open("by_descriptor", os.O_PATH)
os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
open("written", "w").close()
os.stat("only_stat"); os.listdir("listed"); os.open("sub/never", os.O_PATH)
os.mkdir("made"); open("made/own", "w").write("x"); open("made/own").read()
subprocess.run([sys.executable, "script"], check=True)
"""


@pytest.fixture
def workspace(rig: Rig) -> Path:
    place = rig.directory("workspace")
    for name in (*NAMES, *UNOPENED):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("pass\n")
    (rig.scratch / "ro").mkdir()
    (rig.scratch / "ro" / "shown").write_text("x")
    for directory, _, files in os.walk(place):
        for path in (directory, *(os.path.join(directory, name) for name in files)):
            os.chown(path, rig.identity.uid, rig.identity.gid)
    (place / "ro").mkdir()
    return place


def shown(rig: Rig, workspace: Path) -> list[tuple[str, str]]:
    return [(str(workspace), f"{WORK}/billing"), (str(rig.scratch / "ro"), f"{WORK}/billing/ro")]


def watched(rig: Rig, workspace: Path, code: str) -> Seen:
    places = shown(rig, workspace)
    found = Reads(places)
    try:
        binds = tuple(Bind(source, target, writable=not n) for n, (source, target) in enumerate(places))
        ended = rig.python(code, binds=binds, cwd=f"{WORK}/billing")
    finally:
        seen = found.end()
    assert ended.end.exit_code == 0, ended.stderr
    return seen


@pytest.mark.req("H5")
def test_every_way_to_open_a_file_is_seen_and_nothing_else(rig: Rig, workspace: Path) -> None:
    seen = watched(rig, workspace, EVERY_WAY)
    assert seen.paths == tuple(sorted(f"billing/{name}" for name in (*NAMES, "ro/shown")))
    assert (seen.complete, seen.why) == (True, "")
    assert seen.watched == len(NAMES) + 5  # the two below .git are not
    assert watched(rig, workspace, "pass").paths == ()


@pytest.mark.req("H5")
def test_what_was_not_watched_is_said(rig: Rig, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = shown(rig, workspace)

    def after(opened: str = "", **limits: int) -> Seen:
        found = Reads(everything, **limits)
        if opened:
            (workspace / opened).read_text()
        return found.end()

    assert after("plain").complete
    few = after(files_max=3)
    assert (few.watched, few.complete, few.why) == (3, False, "not watched: beyond the first 3 files")
    monkeypatch.setattr(reads, "ENTRIES_MAX", 2)
    assert "beyond the first 2 entries" in after().why
    monkeypatch.undo()
    deep = workspace
    for _ in range(18):
        deep = deep / ("d" * 250)
    down = os.open(workspace, os.O_DIRECTORY)
    for _ in range(18):
        os.mkdir("d" * 250, dir_fd=down)
        below = os.open("d" * 250, os.O_DIRECTORY, dir_fd=down)
        os.close(down)
        down = below
    os.close(down)
    assert "a directory: File name too long" in after("plain").why
    monkeypatch.setattr(reads, "LIMIT", "/nowhere")
    none = after("plain")
    assert (none.paths, none.watched, none.complete) == ((), 0, False)


def test_a_full_queue_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "PAUSE_S", 60)
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 20_000:
        pytest.skip(f"the queue of this host takes {limit} events: too many files to make")
    for number in range(limit // 2 + 500):
        (tmp_path / str(number)).touch()
    found = Reads([(str(tmp_path), WORK)], files_max=limit)
    if len(found._files) * 2 <= limit:
        found.end()
        pytest.skip(f"this host lets a user watch too few files to fill a queue of {limit} events")
    for number in range(len(found._files)):
        (tmp_path / str(number)).read_bytes()
    seen = found.end()
    assert not seen.complete
    assert seen.why == "the kernel's queue was full"


def test_a_record_has_its_limits_and_counts_the_rest() -> None:
    many = Seen(tuple(f"{n:05}" for n in range(reads.LISTED_MAX + 7)), 9_000)
    record = many.as_record(3, str)
    assert (record["n"], len(record["files"]), record["more"], record["complete"]) == (3, reads.LISTED_MAX, 7, True)
    long = Seen(tuple(str(n) + "x" * 4_000 for n in range(1_000)), 1_000, "why").as_record(1, str.upper)
    assert sum(len(one["path"]) for one in long["files"]) <= reads.LISTED_CHARS_MAX
    assert long["more"] == 1_000 - len(long["files"]) > 0
    assert long["files"][0]["path"].endswith("XXX")
    assert (long["complete"], long["why"]) == (False, "why")


def test_nothing_of_the_watch_is_left(rig: Rig, workspace: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        found = Reads(shown(rig, workspace))
        found.end()
        assert found.end().watched  # again says the same
    assert set(os.listdir("/proc/self/fd")) == before


def test_watching_costs_little(tmp_path: Path) -> None:
    for number in range(2_000):
        (tmp_path / str(number)).touch()
    began = time.process_time()
    found = Reads([(str(tmp_path), WORK)])
    assert time.process_time() - began < 0.2  # 0.02 s alone: 6 to 10 microseconds a file
    assert found.end().complete
