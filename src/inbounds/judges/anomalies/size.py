"""Diffs beyond thresholds: lines, files, binary bytes, rewritten files, and churn over iterations (H17).

Lines are counted by content, linear in the size of the files: a line that only moved counts as nothing. Thresholds come
from the frozen contract.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from inbounds.judges.anomalies.kinds import HEAD_BYTES, is_text
from inbounds.judges.anomalies.material import Changed, Material, Signal

REWRITTEN_PERCENT = 85  # below it, something of the old file is still there to compare with


@dataclass(frozen=True, slots=True)
class Measure:
    """One change in numbers: lines added and removed, lines before, bytes of new binary content."""

    added: int = 0
    removed: int = 0
    before: int = 0
    binary: int = 0

    @property
    def lines(self) -> int:
        """Lines changed."""
        return self.added + self.removed


def measure(change: Changed) -> Measure:
    """Count one change; a file too large to be read counts as binary."""
    if change.new is None and change.regular:
        return Measure(binary=max(0, change.new_size))
    if _binary(change.new) or _binary(change.old):
        return Measure(binary=len(change.new or b""))
    old, new = Counter(_lines(change.old)), Counter(_lines(change.new))
    return Measure(sum((new - old).values()), sum((old - new).values()), old.total())


def lines_changed(changes: Iterable[Changed]) -> int:
    """The lines changed by these together."""
    return sum(measure(change).lines for change in changes)


def signals(
    material: Material, measures: Sequence[Measure], numbers: Mapping[str, int], earlier_lines: int
) -> Iterator[Signal]:
    """Every rule of H17; `earlier_lines` were changed by all iterations before this one, each against its own."""
    lines, binary = sum(m.lines for m in measures), sum(m.binary for m in measures)
    if lines > numbers["lines"]:
        added = sum(m.added for m in measures)
        message = f"{lines} lines changed ({added} added, {lines - added} removed), more than {numbers['lines']}"
        yield Signal("diff_lines", "", message)
    if len(material.changes) > numbers["files"]:
        yield Signal("diff_files", "", f"{len(material.changes)} files changed, more than {numbers['files']}")
    if binary > numbers["binary"]:
        yield Signal("diff_binary", "", f"{binary} bytes of new binary content, more than {numbers['binary']}")
    for change, m in zip(material.changes, measures, strict=True):
        gone = m.removed * 100 >= m.before * REWRITTEN_PERCENT
        if change.status == "M" and m.before > numbers["rewrite_lines"] and gone and m.added * 2 >= m.before:
            yield Signal("rewrite", change.path, f"{m.removed} of {m.before} lines replaced by {m.added} others")
    total = earlier_lines + material.step_lines
    if earlier_lines and total > numbers["churn_lines"] and total > numbers["churn_times"] * max(1, lines):
        message = f"{total} lines changed over the iterations for a difference of {lines}"
        yield Signal("churn", "", message)


def _binary(data: bytes | None) -> bool:
    return bool(data) and data is not None and (b"\0" in data[:HEAD_BYTES] and not is_text(data))


def _lines(data: bytes | None) -> list[bytes]:
    return data.splitlines() if data else []
