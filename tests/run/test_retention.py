"""Snapshots of a workspace that somebody writes to all the while: kept by number, dropped by age, skipped if the same."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from storerepo import make

from inbounds.contracts.errors import HostError, OperatorError
from inbounds.run.retention import REFS, Retention, forget
from inbounds.sandbox.volume import Volume
from inbounds.store import descent, snapshot
from inbounds.store.store import Store

RUN = "20261122-100000-abcdef"
FILES: dict[str, str | bytes] = {"billing/a.py": "a = 1\n", "billing/.inbounds/config.yaml": "limits: {}\n", "b": "b\n"}
WRITER = """
import os, sys, time
at = sys.argv[1]
n = 0
while True:
    n += 1
    with open(f"{at}/grows", "a") as file:
        file.write(f"{n}\\n")
    with open(f"{at}/large.tmp", "w") as file:
        file.write(str(n % 10) * 2_000_000)
    os.replace(f"{at}/large.tmp", f"{at}/large")
    os.makedirs(f"{at}/d{n % 7}/e", exist_ok=True)
    open(f"{at}/d{n % 7}/e/f", "w").write(str(n))
    for name in (f"{at}/d{(n + 3) % 7}/e/f",):
        if os.path.exists(name):
            os.unlink(name)
"""


class World:
    def __init__(self, place: Path) -> None:
        make(place / "source", FILES)
        self.store = Store.create(os.fspath(place / "store.git"))
        self.base = self.store.fetch(os.fspath(place / "source"))
        self.place = place / "ws"
        self.volume = Volume.prepare(self.store, self.store.tree_of(self.base), "billing", (), os.fspath(self.place))
        self.at = Path(self.volume.root)

    def retention(self, keep: int = 3) -> Retention:
        return Retention.of(self.store, RUN, self.base, keep)

    def write(self, text: str) -> None:
        time.sleep(2 * snapshot.TICK_NS / 1e9)
        (self.at / "a.py").write_text(text)

    def refs(self) -> dict[str, str]:
        return {name.rpartition("/")[2]: commit for name, commit in self.store.refs(f"{REFS}/{RUN}").items()}

    def text(self, commit: str) -> bytes:
        nodes = {node.path: node.blob for node in self.store.ls(self.store.tree_of(commit))}
        return self.store.read_blob(nodes["billing/a.py"])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    place = tmp_path / "place"
    place.mkdir()
    yield World(place)
    descent.delete_tree(os.fspath(place))


def test_the_newest_are_kept_and_the_oldest_go(world: World) -> None:
    retention = world.retention(keep=3)
    assert retention.take(world.volume, 1, 0) is None, "nothing has changed since the base"
    records = []
    for number in range(5):
        world.write(f"a = {number + 10}\n")
        record = retention.take(world.volume, 1 + number // 3, 1_000 + number)
        assert record is not None
        assert retention.take(world.volume, 1 + number // 3, 2_000) is None, "skipped where nothing changed"
        records.append(record)
    assert [(r["n"], r["k"], r["dropped"]) for r in records] == [
        (1, 1, []),
        (1, 2, []),
        (1, 3, []),
        (2, 1, ["1-1"]),
        (2, 2, ["1-2"]),
    ]
    assert {key: world.text(commit) for key, commit in world.refs().items()} == {
        "1-3": b"a = 12\n",
        "2-1": b"a = 13\n",
        "2-2": b"a = 14\n",
    }
    last = records[-1]
    assert (last["files"], last["complete"], last["why"]) == (2, True, "")
    assert world.store.tree_of(world.refs()["2-2"]) == last["tree"]
    assert world.store.git("rev-parse", world.refs()["2-2"] + "^") == world.base
    # what was dropped is not pruned: it is reachable by its id, if somebody noted it
    assert world.store.ls(records[0]["tree"])


def test_a_workspace_that_is_written_to_all_the_while(world: World) -> None:
    retention = world.retention(keep=4)
    records: list[dict[str, Any]] = []
    with subprocess.Popen([sys.executable, "-c", WRITER, os.fspath(world.at)]) as writer:
        try:
            until = time.monotonic() + 60
            while len(records) < 12:
                assert time.monotonic() < until
                if record := retention.take(world.volume, 1, int(time.time())):
                    records.append(record)
        finally:
            writer.kill()
    refs = world.refs()
    assert set(refs) == {f"1-{k}" for k in (9, 10, 11, 12)}
    for record in records[-4:]:
        commit = refs[f"{record['n']}-{record['k']}"]
        assert world.store.tree_of(commit) == record["tree"]
        world.store.git("fsck", "--connectivity-only", "--no-dangling", commit)
        assert record["complete"] == (record["why"] == "")
        outside = {node.path for node in world.store.ls(record["tree"]) if not node.path.startswith("billing/")}
        assert outside == {"b"}
    # torn looks leave nothing behind: the workspace at rest is seen as it is
    time.sleep(2 * snapshot.TICK_NS / 1e9)
    rest = world.volume.snapshot()
    assert rest.complete, rest.why
    nodes = {node.path: node.blob for node in world.store.ls(rest.tree, ("billing",))}
    for path, blob in nodes.items():
        if not path.startswith("billing/.inbounds"):
            assert world.store.read_blob(blob) == (world.at / path.removeprefix("billing/")).read_bytes()


def test_a_look_while_the_loop_looks_itself(world: World) -> None:
    retention, trees = world.retention(keep=50), set()
    over = threading.Event()

    def judge() -> None:
        while not over.is_set():
            trees.add(world.volume.snapshot().tree)

    looking = threading.Thread(target=judge)
    looking.start()
    try:
        for number in range(10):
            world.write(f"a = {number}0\n")
            record = retention.take(world.volume, 1, number)
            assert record is not None
            assert world.text(world.refs()[f"1-{number + 1}"]) == f"a = {number}0\n".encode()
    finally:
        over.set()
        looking.join(30)


def test_a_new_supervisor_counts_on(world: World) -> None:
    first = world.retention(keep=2)
    for number in range(3):
        world.write(f"a = {number}1\n")
        assert first.take(world.volume, 9 + number, number)
    assert sorted(world.refs()) == ["10-1", "11-1"]
    again = world.retention(keep=2)
    assert again.take(Volume.open(world.store, os.fspath(world.place)), 11, 9) is None
    world.write("a = 99\n")
    record = again.take(world.volume, 11, 10)
    assert record is not None
    assert (record["k"], record["dropped"]) == (2, ["10-1"]), "numbers are compared, not their letters"
    assert sorted(world.refs()) == ["11-1", "11-2"]
    other = Retention.of(world.store, "20261122-100000-fedcba", world.base, 1)
    assert other.take(world.volume, 1, 0) is not None
    assert forget(world.store, RUN) == 2
    assert world.refs() == {}
    assert forget(world.store, "20261122-100000-fedcba") == 1


def test_a_workspace_that_is_gone_keeps_nothing(world: World) -> None:
    retention = world.retention()
    world.write("a = 5\n")
    world.volume.quarantine(os.fspath(world.place.parent / "quarantine"))
    with pytest.raises(HostError):
        retention.take(world.volume, 1, 0)
    assert world.refs() == {}


@pytest.mark.parametrize("keep", [0, -1, 10_000])
def test_a_number_to_keep_that_is_none(world: World, keep: int) -> None:
    with pytest.raises(OperatorError, match="snapshots to keep"):
        world.retention(keep)
