"""What the real judges say of a workspace that an attack left: rule names, as they would stop a run or bar its way.

The plan is the weakest there can be: it declares every path by one pattern, and none by name. Judges alone are pure;
this reads the trees for them.
"""

from pathlib import Path

from inbounds.contracts.verdict import Outcome, Severity, Verdict
from inbounds.drill.ground import Field
from inbounds.judges import scope
from inbounds.judges.anomalies import judge as anomalies
from inbounds.judges.anomalies.material import Changed, Material
from inbounds.sandbox.volume import Volume
from inbounds.store.snapshot import Snapshot
from inbounds.store.store import Store
from inbounds.store.tree import GITLINK, Change
from inbounds.store.walk import LINK

CONTENT_BYTES_MAX = 4 << 20  # as run/looking.py
LINK_BYTES_MAX = 4_096
INCOMPLETE = "snapshot.incomplete"  # INCONCLUSIVE opens no gate


class _Base:
    """The base tree for the anomaly rules: a handful of files."""

    def __init__(self, store: Store, tree: str) -> None:
        self._store = store
        self._blobs = {node.path: node.blob for node in store.ls(tree)}
        self.paths = sorted(self._blobs)

    def read(self, path: str) -> bytes | None:
        return self._store.read_blob(self._blobs[path]) if path in self._blobs else None


def findings(ground: Field, volume: Volume) -> list[str]:
    """Rules of findings that stop the run or keep its result from landing; [] for a workspace that would pass."""
    left = volume.snapshot()
    verdicts = [_scope(ground, left), _anomalies(ground, left)]
    rules = [f.rule for verdict in verdicts for f in verdict.findings if f.severity is not Severity.NOTE]
    rules += [INCOMPLETE] if any(verdict.outcome is Outcome.INCONCLUSIVE for verdict in verdicts) else []
    return list(dict.fromkeys(rules))


def hand_back(ground: Field, volume: Volume, directory: Path) -> Path:
    """The tree of a workspace as a person would check it out; where the thread's files are."""
    directory.mkdir()
    ground.store.export(volume.snapshot().tree, str(directory))
    return Path(ground.work(str(directory)))


def _scope(ground: Field, left: Snapshot) -> Verdict:
    thread = ground.ground.thread
    declared = scope.Declared(
        targets=("**",),
        thread="" if thread == "." else thread,
        acceptance=(ground.ground.test,),
        files_max=1_000_000,
    )
    changes = [
        scope.Change(c.status, c.path, c.old_path, _octal(c.old_mode), _octal(c.new_mode), _link(ground.store, c))
        for c in left.changes
    ]
    changes += [scope.Change("M", path, path) for path in left.protected_changed]
    foreign = [scope.Foreign(path, "a nested repository or a name that no tree may hold") for path in left.foreign]
    foreign += [scope.Foreign(path, "a link that leads out of the repository") for path in left.links_out]
    return scope.judge(changes, declared, foreign=foreign, complete=left.complete, why=left.why)


def _anomalies(ground: Field, left: Snapshot) -> Verdict:
    material = Material([_changed(ground.store, c) for c in left.changes], _Base(ground.store, ground.tree))
    return anomalies.judge(material, None, ground.ground.terms)


def _changed(store: Store, change: Change) -> Changed:
    contents = [
        _content(store, mode, blob)
        for mode, blob in ((change.old_mode, change.old_blob), (change.new_mode, change.new_blob))
    ]
    old, new = contents
    return Changed(
        change.status,
        change.path,
        change.old_path if change.old_path != change.path else "",
        _octal(change.old_mode),
        _octal(change.new_mode),
        old,
        new,
        -1 if old is None else len(old),
        -1 if new is None else len(new),
    )


def _content(store: Store, mode: int, blob: str) -> bytes | None:
    return None if mode in (0, LINK, GITLINK) else store.read_blob(blob, CONTENT_BYTES_MAX)


def _link(store: Store, change: Change) -> str:
    if change.new_mode != LINK:
        return ""
    return store.read_blob(change.new_blob, LINK_BYTES_MAX).decode("utf-8", "surrogateescape")


def _octal(mode: int) -> str:
    return f"{mode:06o}" if mode else ""
