"""The shapes that a kind's records have, learnt from the file: a line of a known shape needs no parser.

A shape is one regular expression made from a record that was found canonical: the same members in the same order, each
value of the same type in its canonical form. What it matches is canonical; what it does not is for `chain.decode`.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

LEARN_AFTER = 8  # lines of a kind that are parsed before an expression is made: below, making it costs more
SHAPES_MAX = 16  # of one kind, without success beyond: its lines are parsed one by one
HEAD_BYTES_MAX = 4_096  # the longest line that is worth an expression
ITEMS_MAX = 4  # of a list; longer ones differ from line to line
# RFC 8785 for what stands in most lines: printable ASCII that needs no escape, whole numbers far below 2^53.
_TEXT, _NUMBER = rb'"[ !#-\[\]-~]*+"', rb"(?:0|-?[1-9][0-9]{0,14}+)"
_TAKEN_TEXT, _TAKEN_NUMBER = rb'"([ !#-\[\]-~]*+)"', rb"(0|[1-9][0-9]{0,14}+)"
_HEAD = rb'\{"at_ms":([1-9][0-9]{12}),"data":'

Fields: TypeAlias = tuple[str, ...]


class Shape(NamedTuple):
    """What matches a line up to its hash; its groups are the time and the values of `fields`.

    `fields` is None where the lines of this shape are not counted by columns.
    """

    match: Callable[[bytes, int, int], re.Match[bytes] | None]
    fields: Fields | None


_NONE = Shape(re.compile(b"(?!)").fullmatch, None)  # before the first is learnt


class Columns(NamedTuple):
    """Records of one shape, in order: each row is a time and the values of `fields`; `texts` are places in a row."""

    kind: str
    fields: Fields
    texts: tuple[int, ...]
    rows: list[tuple[bytes, ...]]

    def groups(self) -> Iterator[tuple[dict[str, str], list[int], dict[str, list[int]]]]:
        """Runs of rows that agree in their texts: the texts, the times, the numbers by column."""
        group = itemgetter(0, *self.texts) if self.texts else None
        for _, some in groupby(self.rows, lambda row: group(row)[1:] if group else ()):
            at_ms, *columns = zip(*some, strict=True)
            texts = {name: columns[n][0].decode() for n, name in enumerate(self.fields) if n + 1 in self.texts}
            numbers = {
                name: list(map(int, columns[n])) for n, name in enumerate(self.fields) if n + 1 not in self.texts
            }
            yield texts, list(map(int, at_ms)), numbers


class Shapes:
    """One kind of record; `wanted` says whether what its lines hold is asked for, `many` which members suffice."""

    def __init__(self, kind: str, *, wanted: bool, many: tuple[Fields, Fields] | None) -> None:
        """Nothing is known yet."""
        self.kind, self.wanted, self._many = kind, wanted, many
        self._known: list[Shape] = []
        self.first = _NONE
        self._seen = 0
        self.rows: list[tuple[bytes, ...]] = []
        self.open: Shape | None = None

    def other(self, line: bytes, end: int) -> re.Match[bytes] | None:
        """The match of a line, whose hash begins at `end`, with another shape than `first`, which becomes the first."""
        for n, shape in enumerate(self._known):
            match = shape.match(line, 0, end)
            if match is not None:
                self._known.insert(0, self._known.pop(n))
                self.first = shape
                return match
        return None

    def begin(self, shape: Shape) -> "Columns | None":
        """The next rows are of this shape; what was kept of another one before is handed out."""
        before, self.open = self.columns(), shape
        return before

    def columns(self) -> "Columns | None":
        """What was kept since the last time, if anything was."""
        if not self.rows or self.open is None or self.open.fields is None or self._many is None:
            return None
        rows, self.rows = self.rows, []
        texts = tuple(1 + n for n, name in enumerate(self.open.fields) if name in self._many[0])
        return Columns(self.kind, self.open.fields, texts, rows)

    def learn(self, line: bytes, end: int, data: dict[str, Any]) -> None:
        """Take the shape of a line over that was found canonical."""
        self._seen += 1
        if self._seen < LEARN_AFTER or len(self._known) >= SHAPES_MAX or end > HEAD_BYTES_MAX:
            return
        taken: dict[str, bytes] = {}
        counted = self._many is not None and all(self._fits(data, name) for fields in self._many for name in fields)
        if counted and self._many is not None:
            taken = dict.fromkeys(self._many[0], _TAKEN_TEXT) | dict.fromkeys(self._many[1], _TAKEN_NUMBER)
        expression = _expression(data, taken)
        if expression is None:
            return
        shape = re.compile(_HEAD + expression)
        if shape.fullmatch(line, 0, end) is not None:  # else: a time of other length, a text with an escape
            self._known.append(Shape(shape.fullmatch, tuple(sorted(taken.keys() & data.keys())) if counted else None))

    def _fits(self, data: dict[str, Any], name: str) -> bool:
        """Whether a member can be counted in a column: a text or a number as its name wants, or not there."""
        wanted = str if self._many and name in self._many[0] else int
        return name not in data or type(data[name]) is wanted


def _expression(value: Any, taken: Mapping[str, bytes]) -> bytes | None:
    """What matches every value of this shape, and its canonical form only; None where there is no such thing.

    `taken` are the members of the value itself that become groups.
    """
    kind: type[object] = type(value)
    if kind is str:
        return _TEXT
    if kind is int:
        return _NUMBER
    if kind is bool:
        return b"(?:true|false)"
    if value is None:
        return b"null"
    parts: list[bytes | None]
    if kind is dict and all(key.isascii() for key in value):  # then the order of code points is RFC 8785's
        parts = [_member(key, taken.get(key) or _expression(value[key], {})) for key in sorted(value)]
        return None if None in parts else rb"\{" + b",".join(part for part in parts if part) + rb"\}"
    if kind is list and len(value) <= ITEMS_MAX:
        parts = [_expression(item, {}) for item in value]
        return None if None in parts else rb"\[" + b",".join(part for part in parts if part) + rb"\]"
    return None


def _member(key: str, expression: bytes | None) -> bytes | None:
    return None if expression is None else re.escape(json.dumps(key).encode()) + b":" + expression
