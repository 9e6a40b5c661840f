"""An agent chooses when its tests are run and when it ends: looks at one workspace from two threads must not collide.

What is at stake is evidence: a stop's own snapshot that fails because run_tests is taking one.
"""

import os
import threading
from pathlib import Path

import pytest
from made_repository import repository

from inbounds.contracts.errors import InboundsError
from inbounds.sandbox.volume import Volume
from inbounds.store.store import Store

LOOKS = 12


@pytest.mark.req("E12")
def test_two_looks_at_once_both_see_everything(tmp_path: Path) -> None:
    top = repository(tmp_path / "top", {"t/a": "1\n", "u/b": "2\n"})
    store = Store.create(str(tmp_path / "state" / "store.git"))
    tree = store.tree_of(store.fetch(str(top)))
    volume = Volume.prepare(store, tree, "t", [], str(tmp_path / "workspace"))
    over, problems, trees = threading.Event(), [], []

    def agent() -> None:
        count = 0
        while not over.is_set():
            count += 1
            place = Path(volume.root) / f"new-{count % 20}"
            place.unlink() if place.exists() else place.write_text(str(count))

    def look() -> None:
        for _ in range(LOOKS):
            try:
                trees.append(volume.snapshot().tree)
            except InboundsError as error:
                problems.append(error.one_line())

    working = threading.Thread(target=agent)
    looking = [threading.Thread(target=look) for _ in range(2)]
    working.start()
    for thread in looking:
        thread.start()
    for thread in looking:
        thread.join()
    over.set()
    working.join()
    assert not problems, problems[:3]
    assert len(set(trees)) > 1, "the agent wrote nothing meanwhile: this test shows nothing"
    (Path(volume.root) / "last").write_text("x")
    assert volume.snapshot().tree == Volume.open(store, os.fspath(tmp_path / "workspace")).snapshot().tree


def test_content_that_is_overwritten_between_looks_is_counted(tmp_path: Path) -> None:
    """Every look keeps what it saw in the store, which no measuring of the workspace shows."""
    top = repository(tmp_path / "top", {"t/a": "1\n"})
    store = Store.create(str(tmp_path / "state" / "store.git"))
    tree = store.tree_of(store.fetch(str(top)))
    volume = Volume.prepare(store, tree, "t", [], str(tmp_path / "workspace"))
    volume.snapshot()
    assert volume.stored == 0
    for _ in range(3):
        (Path(volume.root) / "big").write_bytes(os.urandom(1 << 20))
        volume.snapshot()
    assert volume.stored == 3 << 20
    assert volume.usage().bytes < 2 << 20
    os.utime(Path(volume.root) / "big")  # read again, and nothing new
    volume.snapshot()
    assert volume.stored == 3 << 20
