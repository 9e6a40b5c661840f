"""What the lines of a journal hold: each in canonical form, none before its time; records of the kinds asked for.

Whether a line is the right one in its place is for `links`. Holds one block in memory.
"""

import json
from collections.abc import Iterator, Mapping

from inbounds.journal import chain
from inbounds.journal.chain import ChainError, Record
from inbounds.journal.shapes import Columns, Fields, Shapes

KINDS_MAX = 256  # the vocabulary has a few dozen; what goes beyond is parsed line by line
TIMES_MAX = 10**13
_DATA = len(b'{"at_ms":1234567890123,"data":')
_HASH = len(b',"hash":"')  # from where the member begins
_KIND = _HASH + 64 + len(b'","kind":"')


class Contents:
    """Reads blocks in order; remembers the shapes of their lines, so that few need a parser."""

    def __init__(
        self,
        wanted: frozenset[str],
        many: Mapping[str, tuple[Fields, Fields]] | None = None,
        apart: frozenset[str] = frozenset(),
    ) -> None:
        """Hand out the records of the kinds in `wanted`, and while `everything` is set all of them.

        Those of the kinds in `many` come in columns where their shape allows it: the names of the texts and of the
        numbers that are asked for. Columns keep their place among the records, but for those of the kinds in `apart`.
        """
        self._wanted, self._many, self._apart = wanted, many or {}, apart
        self._shapes: dict[bytes, Shapes] = {}
        self._counted: list[Shapes] = []
        self._count = 0
        self.everything = False
        self._digits = _digits(0)

    def read(self, lines: list[bytes]) -> Iterator[Record | Columns]:
        """The records of one block; ChainError for a line that is not canonical or steps back in time."""
        known, digits = self._shapes, self._digits
        for seq, line in enumerate(lines, self._count):
            end = line.rfind(b',"hash":"')
            start = end + _KIND
            shapes = known.get(line[start : line.find(b'"', start)])
            if shapes is not None and digits <= line[9:22]:
                shape = shapes.first
                match = shape.match(line, 0, end)
                if match is None and (match := shapes.other(line, end)) is not None:
                    shape = shapes.first
                if match is not None:
                    digits = line[9:22]
                    if shape.fields is not None and not self.everything:
                        if shape is not shapes.open and (columns := shapes.begin(shape)) is not None:
                            yield columns
                        shapes.rows.append(match.groups())
                    elif shapes.wanted or self.everything:
                        yield from self._with(_record(seq, shapes.kind, line, end))
                    continue
            record = chain.decode(line, seq + 1, canonical_form=True)
            if _digits(record.at_ms) < digits:
                raise ChainError("time", f"record {seq} is earlier than the record before it", seq + 1)
            digits = _digits(record.at_ms)
            self._learn(record, line, end)
            if self.everything or record.kind in self._wanted:
                yield from self._with(record)
        self._count, self._digits = self._count + len(lines), digits
        yield from self._columns()

    def _with(self, record: Record) -> Iterator[Record | Columns]:
        """A record, and before it what came before it."""
        if record.kind not in self._apart:
            yield from self._columns()
        yield record

    def _columns(self) -> Iterator[Columns]:
        for shapes in self._counted:
            if (columns := shapes.columns()) is not None:
                yield columns

    def _learn(self, record: Record, line: bytes, end: int) -> None:
        kind = record.kind.encode()
        if kind not in self._shapes and len(self._shapes) < KINDS_MAX:
            made = Shapes(record.kind, wanted=record.kind in self._wanted, many=self._many.get(record.kind))
            self._shapes[kind] = made
            if record.kind in self._many:
                self._counted.append(made)
        if kind in self._shapes:
            self._shapes[kind].learn(line, end, record.data)


def _record(seq: int, kind: str, line: bytes, end: int) -> Record:
    """The record of a line whose shape is known and whose hash begins at `end`."""
    prev, digest = line[line.rfind(b'"prev":"') + 8 :][:64], line[end + _HASH : end + _HASH + 64]
    return Record(seq, int(line[9:22]), kind, json.loads(line[_DATA:end].decode()), prev.decode(), digest.decode())


def _digits(at_ms: int) -> bytes:
    """A time as thirteen digits, which order as times do; what needs more (year 2286) is after all of them."""
    return b"%013d" % at_ms if at_ms < TIMES_MAX else b":%016d" % at_ms
