"""What changed between two trees, with contents, for the anomaly rules: read from the store within limits.

One git process for the sizes, one for the contents. A content over the limit stays unread and keeps its size; the
rules say so. Knows no rule.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from inbounds.judges.anomalies.material import Changed
from inbounds.store import git
from inbounds.store.store import Store
from inbounds.store.tree import GITLINK, Change
from inbounds.store.walk import LINK

FILE_BYTES_MAX = 4 << 20  # sources and manifests are smaller; what is larger is a binary, and its size says enough
TOTAL_BYTES_MAX = 64 << 20  # of one difference, in memory at once
BASE_BYTES_MAX = 64 << 20  # of the base, read to know its habits


def changed(store: Store, changes: Sequence[Change]) -> tuple[Changed, ...]:
    """Each change with its contents; links, submodules, and what is beyond the limits without."""
    wanted = {blob for c in changes for blob, _ in _blobs(c)}
    sizes = _sizes(store, wanted)
    readable, total = [], 0
    for blob in sorted(wanted, key=lambda b: (sizes[b], b)):
        total += sizes[blob]
        if sizes[blob] <= FILE_BYTES_MAX and total <= TOTAL_BYTES_MAX:
            readable.append(blob)
    contents: dict[str, bytes] = {}
    if readable:
        with git.Batch(store.path, FILE_BYTES_MAX) as batch:
            contents = {blob: batch.read(blob) for blob in readable}
    return tuple(_with(c, contents, sizes) for c in changes)


@dataclass(slots=True)
class BaseTree:
    """The base tree's paths and contents, listed and read when a rule first asks."""

    store: Store
    tree: str
    _nodes: dict[str, tuple[str, int]] | None = None
    _paths: tuple[str, ...] = ()
    _held: dict[str, bytes] = field(default_factory=dict)
    _bytes: int = 0

    @property
    def paths(self) -> Sequence[str]:
        """Every file of the tree, sorted; links and submodules are none."""
        self._listed()
        return self._paths

    def read(self, path: str) -> bytes | None:
        """A file's content, None where there is none or the limits are reached."""
        blob, size = self._listed().get(path, ("", -1))
        if blob in self._held:
            return self._held[blob]
        if not blob or size > FILE_BYTES_MAX or self._bytes + size > BASE_BYTES_MAX:
            return None
        self._bytes += size
        self._held[blob] = self.store.read_blob(blob, FILE_BYTES_MAX)
        return self._held[blob]

    def _listed(self) -> dict[str, tuple[str, int]]:
        if self._nodes is None:
            listed = self.store.ls(self.tree)
            self._nodes = {node.path: (node.blob, node.size) for node in listed if node.mode not in {LINK, GITLINK}}
            self._paths = tuple(sorted(self._nodes))
        return self._nodes


def _blobs(change: Change) -> Iterable[tuple[str, str]]:
    """The blobs of regular files before and after, with "old" or "new"."""
    if change.old_mode not in {0, LINK, GITLINK}:
        yield change.old_blob, "old"
    if change.new_mode not in {0, LINK, GITLINK}:
        yield change.new_blob, "new"


def _sizes(store: Store, blobs: set[str]) -> dict[str, int]:
    if not blobs:
        return {}
    asked = "".join(f"{blob}\n" for blob in sorted(blobs)).encode("ascii")
    said = store.git("cat-file", "--batch-check=%(objectname) %(objectsize)", stdin=asked)
    return {name: int(size) for name, size in (line.split() for line in said.splitlines())}


def _with(change: Change, contents: dict[str, bytes], sizes: dict[str, int]) -> Changed:
    blob = {side: name for name, side in _blobs(change)}
    old, new = blob.get("old", ""), blob.get("new", "")
    return Changed(
        status=change.status,
        path=change.path,
        old_path=change.old_path if change.old_path != change.path else "",
        old_mode=f"{change.old_mode:06o}" if change.old_mode else "",
        new_mode=f"{change.new_mode:06o}" if change.new_mode else "",
        old=contents.get(old),
        new=contents.get(new),
        old_size=sizes.get(old, -1),
        new_size=sizes.get(new, -1),
    )
