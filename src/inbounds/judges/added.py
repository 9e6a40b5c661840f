"""What is new in a file: the lines of the new blob that the old one did not have, in blocks with line numbers.

Linear, by line content, since a hostile pair of files can make a minimal diff quadratic; a line that only moved is not
new. Does not parse patches.
"""

from collections import Counter
from dataclasses import dataclass

FILE_BYTES_MAX = 32 << 20  # what is larger is reported as not looked at, never skipped in silence


@dataclass(frozen=True, slots=True)
class Added:
    """Consecutive new lines of `path`, the first of which has the number `line` (1 for the file's first)."""

    path: str
    line: int
    text: bytes

    @property
    def lines(self) -> range:
        """The line numbers covered."""
        if not self.text:
            return range(0)
        return range(self.line, self.line + self.text.count(b"\n") + (0 if self.text.endswith(b"\n") else 1))


def added(path: str, old: bytes | None, new: bytes) -> tuple[Added, ...]:
    """Blocks of new lines; everything where `old` is None; one empty block where nothing is new.

    So each file that was looked at has a block, and a file without one was not looked at.
    """
    if old is None:
        return (Added(path, 1, new),)
    spare = Counter(_lines(old))
    blocks: list[Added] = []
    current: list[bytes] = []
    start = 0
    for number, line in enumerate(_lines(new), 1):
        if spare[line] > 0:
            spare[line] -= 1
            if current:
                blocks.append(Added(path, start, b"".join(current)))
                current = []
            continue
        start = start if current else number
        current.append(line)
    if current:
        blocks.append(Added(path, start, b"".join(current)))
    return tuple(blocks) or (Added(path, 1, b""),)


def _lines(data: bytes) -> list[bytes]:
    """Lines with their ends, split at newlines only, as git and editors count them (a bare CR is no line end)."""
    parts = data.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
