"""The shapes that a kind's records have, learnt from the file: a line of a known shape needs no parser.

A shape is one regular expression made from a record that was found canonical: the same members in the same order, each
value of the same type in its canonical form. What it matches is canonical; what it does not is for `chain.decode`.
"""

import json
import re
from typing import Any

LEARN_AFTER = 8  # lines of a kind that are parsed before an expression is made: below, making it costs more
SHAPES_MAX = 16  # of one kind, without success beyond: its lines are parsed one by one
HEAD_BYTES_MAX = 4_096  # the longest line that is worth an expression
ITEMS_MAX = 4  # of a list; longer ones differ from line to line
# RFC 8785 for what stands in most lines: printable ASCII that needs no escape, whole numbers far below 2^53.
_TEXT, _NUMBER = rb'"[ !#-\[\]-~]*+"', rb"(?:0|-?[1-9][0-9]{0,14}+)"
_HEAD = rb'\{"at_ms":([1-9][0-9]{12}),"data":'


class Shapes:
    """One kind of record; `wanted` says whether what its lines hold is asked for."""

    def __init__(self, kind: str, *, wanted: bool) -> None:
        """Nothing is known yet."""
        self.kind, self.wanted = kind, wanted
        self._known: list[re.Pattern[bytes]] = []
        self._seen = 0

    def match(self, line: bytes, end: int) -> re.Match[bytes] | None:
        """What the line up to its hash (`{"at_ms":N,"data":{…}`) is matched by; None if its shape is not known."""
        for n, shape in enumerate(self._known):
            match = shape.fullmatch(line, 0, end)
            if match is not None:
                if n:  # the commonest comes to stand in front
                    self._known.insert(0, self._known.pop(n))
                return match
        return None

    def learn(self, line: bytes, end: int, data: dict[str, Any]) -> None:
        """Take the shape of a line over that was found canonical."""
        self._seen += 1
        if self._seen < LEARN_AFTER or len(self._known) >= SHAPES_MAX or end > HEAD_BYTES_MAX:
            return
        expression = _expression(data)
        if expression is None:
            return
        shape = re.compile(_HEAD + b"(" + expression + b")")
        if shape.fullmatch(line, 0, end) is not None:  # else: a time of other length, a text with an escape
            self._known.append(shape)


def _expression(value: Any) -> bytes | None:
    """What matches every value of this shape, and its canonical form only; None where there is no such thing."""
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
        parts = [_member(key, value[key]) for key in sorted(value)]
        return None if None in parts else rb"\{" + b",".join(part for part in parts if part) + rb"\}"
    if kind is list and len(value) <= ITEMS_MAX:
        parts = [_expression(item) for item in value]
        return None if None in parts else rb"\[" + b",".join(part for part in parts if part) + rb"\]"
    return None


def _member(key: str, value: Any) -> bytes | None:
    expression = _expression(value)
    return None if expression is None else re.escape(json.dumps(key).encode()) + b":" + expression
