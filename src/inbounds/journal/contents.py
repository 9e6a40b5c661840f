"""What the lines of a journal hold: each in canonical form, none before its time; records of the kinds asked for.

Whether a line is the right one in its place is for `links`. Holds one block in memory.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from inbounds.journal import chain
from inbounds.journal.chain import LINE_BYTES_MAX, ChainError, Record
from inbounds.journal.shapes import Shapes

BLOCK_BYTES = 256 << 10  # some hundreds of records: enough to spread a block's fixed cost
KINDS_MAX = 256  # the vocabulary has a few dozen; what goes beyond is parsed line by line
TIMES_MAX = 10**13
_HASH = len(b',"hash":"')  # from where the member begins
_KIND = _HASH + 64 + len(b'","kind":"')


def blocks(path: Path) -> Iterator[list[bytes]]:
    """Whole lines, without their ends, some hundreds at a time; ChainError for a last line without an end."""
    number = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            if not block.endswith(b"\n"):
                block += file.readline(LINE_BYTES_MAX + 2)
            lines = block.split(b"\n")
            last = lines.pop()
            if lines:
                yield lines
            number += len(lines)
            if len(last) > LINE_BYTES_MAX:
                raise ChainError("line too long", f"more than {LINE_BYTES_MAX} bytes", number + 1)
            if last:
                raise ChainError("torn", f"{len(last)} bytes without an end of line", number + 1)


class Contents:
    """Reads blocks in order; remembers the shapes of their lines, so that few need a parser."""

    def __init__(self, wanted: frozenset[str]) -> None:
        """Hand out the records of the kinds in `wanted`, and while `everything` is set all of them."""
        self._wanted = wanted
        self._shapes: dict[bytes, Shapes] = {}
        self._count = 0
        self.everything = False
        self._digits = _digits(0)

    def read(self, lines: list[bytes]) -> Iterator[Record]:
        """The records of one block; ChainError for a line that is not canonical or steps back in time."""
        first, known = self._count, self._shapes
        self._count += len(lines)
        for seq, line in enumerate(lines, first):
            end = line.rfind(b',"hash":"')
            start = end + _KIND
            shapes = known.get(line[start : line.find(b'"', start)])
            if shapes is not None and line[9:22] >= self._digits and (match := shapes.match(line, end)) is not None:
                self._digits = line[9:22]
                if shapes.wanted or self.everything:
                    data = json.loads(match[2])
                    prev, digest = line[line.rfind(b'"prev":"') + 8 :][:64], line[end + _HASH : end + _HASH + 64]
                    yield Record(seq, int(match[1]), shapes.kind, data, prev.decode(), digest.decode())
                continue
            record = chain.decode(line, seq + 1, canonical_form=True)
            if _digits(record.at_ms) < self._digits:
                raise ChainError("time", f"record {seq} is earlier than the record before it", seq + 1)
            self._digits = _digits(record.at_ms)
            self._learn(record, line, end)
            if self.everything or record.kind in self._wanted:
                yield record

    def _learn(self, record: Record, line: bytes, end: int) -> None:
        kind = record.kind.encode()
        if kind not in self._shapes and len(self._shapes) < KINDS_MAX:
            self._shapes[kind] = Shapes(record.kind, wanted=record.kind in self._wanted)
        if kind in self._shapes:
            self._shapes[kind].learn(line, end, record.data)


def _digits(at_ms: int) -> bytes:
    """A time as thirteen digits, which order as times do; what needs more (year 2286) is after all of them."""
    return b"%013d" % at_ms if at_ms < TIMES_MAX else b":%016d" % at_ms
