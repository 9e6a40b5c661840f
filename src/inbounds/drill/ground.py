"""Where the drill's jails stand: the policy's part of a jail, and a small repository of the drill's own below it.

The repository is made anew, so that cases know what is in it and a large one costs nothing; thread, limits, layer and
anomaly rules are the operator's. Knows nothing of cases.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inbounds.contracts.job import WORK
from inbounds.judges.anomalies import judge as anomalies
from inbounds.sandbox.identity import Identity
from inbounds.sandbox.spec import Bind, JailLimits
from inbounds.sandbox.volume import Volume
from inbounds.store.store import Store

# The drill's own paths; below the thread unless they say otherwise.
INTERFACE, OTHER, TEST, CONTRACTS = "drill_shared", "drill_other", "tests/test_drill.py", ".inbounds"
FILES = {
    "README.md": b"# A thread for drills\n",
    "src/app.py": b"def total(prices):\n    return sum(prices)\n",
    "src/run.sh": b"#!/bin/sh\nexec true\n",
    TEST: b"from src.app import total\n\n\ndef test_total():\n    assert total([1, 2]) == 3\n",
    f"{CONTRACTS}/config.yaml": b"version: 1\n",
}
OUTSIDE_FILES = {f"{INTERFACE}/api.py": b"API = 1\n", f"{OTHER}/plan.txt": b"another thread's\n"}


@dataclass(frozen=True, slots=True)
class Ground:
    """What policy decides of a jail. `described` says in words where it is from."""

    thread: str = "drill"
    limits: JailLimits = field(default_factory=JailLimits)
    layer: tuple[Bind, ...] = ()
    pythonpath: tuple[str, ...] = ()
    terms: anomalies.Terms = field(default_factory=lambda: anomalies.DEFAULT)
    described: str = "the default policy"

    @property
    def test(self) -> str:
        """The acceptance test, which judges: its path in the repository."""
        return _below(self.thread, TEST)


@dataclass(frozen=True, slots=True)
class Field:
    """The ground made real: a store with the base tree, and a copy of it for controls."""

    ground: Ground
    store: Store
    tree: str
    template: Path

    @classmethod
    def make(cls, ground: Ground, directory: Path) -> "Field":
        """Write the drill's repository below `directory`, which must exist."""
        store = Store.create(str(directory / "store.git"))
        tree = store.replace(store.git("mktree"), {path: store.write_blob(text) for path, text in _files(ground)})
        template = directory / "template"
        volume = Volume.prepare(store, tree, ground.thread, _interfaces(), str(directory / "made"))
        template.mkdir()
        store.export(tree, str(template))
        place = template if ground.thread == "." else template / ground.thread
        shutil.copytree(Path(volume.root) / ".git", place / ".git", symlinks=True)
        volume.discard()
        return cls(ground, store, tree, template)

    def volume(self, directory: Path, who: Identity) -> Volume:
        """A workspace as a run gets one: thread writable, interface, test and contracts read-only; of `who`."""
        return Volume.prepare(
            self.store,
            self.tree,
            self.ground.thread,
            _interfaces(),
            str(directory),
            uid=who.uid if who.dropped else None,
            gid=who.gid if who.dropped else None,
            protected=[self.ground.test],
        )

    def copy(self, directory: Path) -> Path:
        """The same repository as a plain directory, all of it writable: a control's."""
        shutil.copytree(self.template, directory, symlinks=True)
        return directory

    def places(self, root: str) -> dict[str, Any]:
        """What HOST says of the repository, seen from `root`."""
        thread = self.ground.thread
        return {
            "root": root,
            "interface": f"{root}/{INTERFACE}",
            "other": f"{root}/{OTHER}",
            "protected": f"{root}/{_below(thread, TEST)}",
            "contracts": f"{root}/{_below(thread, CONTRACTS)}",
        }

    def work(self, root: str = WORK) -> str:
        """The thread's directory, seen from `root`."""
        return root if self.ground.thread == "." else f"{root}/{self.ground.thread}"


def _below(thread: str, path: str) -> str:
    return path if thread == "." else f"{thread}/{path}"


def _interfaces() -> list[str]:
    return [INTERFACE]


def _files(ground: Ground) -> list[tuple[str, bytes]]:
    inside = [(_below(ground.thread, path), text) for path, text in FILES.items()]
    return [*inside, *OUTSIDE_FILES.items()]
