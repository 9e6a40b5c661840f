"""The journal's record: one canonical JSON line, chained by SHA-256 to the line before it (H14, ADR 9: format 2).

Knows bytes and hashes only: not what a kind means, not who writes, not where the file is. A record's hash is its
RFC 6962 leaf hash, so that chain and Merkle tree cost one hash. Standard library and `contracts.canonical` alone.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

from inbounds.contracts.canonical import canonical
from inbounds.contracts.units import INTEGER_MAX

FORMAT = 2  # the version that `journal.opened` carries; every other is refused (nothing older was released)
GENESIS = "0" * 64
LEAF = b"\0"  # RFC 6962, section 2.1: what is hashed before a leaf's bytes

# The longest line: a snapshot of some 20,000 changed paths; longer data is cut by the writer, which says so.
LINE_BYTES_MAX = 4 << 20
# A verifier holds all records of one run in memory: a week at one record a second, with room to spare.
RECORDS_MAX = 2_000_000
_BLOCK_BYTES = 1 << 18  # what is read at once: some hundred lines, and still in the processor's cache
DEPTH_MAX = 32  # nesting of data; far above every kind in the vocabulary, far below the interpreter's recursion limit
_TOO_DEEP = f"data is nested deeper than {DEPTH_MAX}"

KIND = re.compile(r"[a-z][a-z_]{0,31}(?:\.[a-z][a-z_]{0,31})?")
_HEAD = re.compile(rb'\{"at_ms":(0|[1-9][0-9]{0,15}),"data":(?=\{)')
_TAIL = re.compile(
    rb',"hash":"([^"]{64})","kind":"([a-z][a-z_]{0,31}(?:\.[a-z][a-z_]{0,31})?)",'
    rb'"prev":"([0-9a-f]{64})","seq":(0|[1-9][0-9]{0,15})\}'
)
# The first line of any format, as far as it tells which; it is short, because it says nothing else.
_FIRST_LINE = re.compile(rb'\{"at_ms":[0-9]{1,16},"data":\{"version":([0-9]{1,9})\},')
_FIRST_LINE_BYTES_MAX = 512
_LONG_NUMBER = re.compile(r"[:,\[]-?[0-9]{16}")  # every number above 2^53 has this form; a string may have it too


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"{text[:40]} is no integer")


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, sort_keys=True).encode
_scan = json.JSONDecoder(parse_float=_no_float, parse_constant=_no_float).raw_decode


class ChainError(ValueError):
    """A line or file that is no journal; `rule` names what does not hold, `line` counts from 1 (0: the file)."""

    def __init__(self, rule: str, detail: str, line: int = 0) -> None:
        """Keep the parts apart for the verifier's report."""
        self.rule, self.detail, self.line = rule, detail, line
        super().__init__(f"line {line}: {rule}: {detail}" if line else f"{rule}: {detail}")


class Record(NamedTuple):
    """One journal line; `at_ms` is Unix time in milliseconds, `hash` covers everything else, `prev` included.

    `bytes.fromhex(hash)` is the record's leaf in the journal's Merkle tree. A tuple, because a reader makes millions.
    """

    seq: int
    at_ms: int
    kind: str
    data: dict[str, Any]
    prev: str
    hash: str


class Link(NamedTuple):
    """A record whose hash was checked and whose data was not parsed; three times as fast to read as a `Record`."""

    seq: int
    at_ms: int
    kind: str
    body: bytes
    prev: str
    hash: str

    def record(self, *, canonical_form: bool = False) -> Record:
        """Parse the data as `decode` does; ChainError as there."""
        data = _parsed(self.body, self.seq + 1, canonical_form)
        return Record(self.seq, self.at_ms, self.kind, data, self.prev, self.hash)


_Line = TypeVar("_Line", Record, Link)


def encode(seq: int, at_ms: int, kind: str, data: dict[str, Any], prev: str) -> tuple[Record, bytes]:
    """Make the record and its line, newline included. TypeError or ValueError for data without a canonical form.

    Text that is no Unicode (a lone surrogate, from a file name that is not UTF-8) is written as its escape: hostile
    names must not be able to stop the journal.
    """
    if not KIND.fullmatch(kind):
        raise ValueError(f"{kind!r} is no kind of record")
    if not 0 <= at_ms <= INTEGER_MAX:
        raise ValueError(f"{at_ms} is no time in milliseconds")
    try:
        body = _canonical(data)
    except UnicodeEncodeError:
        data = _mended(data)
        body = _canonical(data)
    # RFC 8785 order of the outer keys: at_ms, data, hash, kind, prev, seq; the hash is over the same without `hash`.
    head = _head(at_ms, body)
    tail = b',"kind":"%b","prev":"%b","seq":%d}' % (kind.encode(), prev.encode(), seq)
    digest = hashlib.sha256(LEAF + head + tail).hexdigest()
    line = b'%b,"hash":"%b"%b\n' % (head, digest.encode(), tail)
    return Record(seq, at_ms, kind, data, prev, digest), line


def decode(line: bytes, number: int = 0, *, canonical_form: bool = False) -> Record:
    """Parse one whole line (no newline) and check its own hash; ChainError says what does not hold.

    Always checked: the hash, which covers every byte; the six outer members, each once, in their order and exact form;
    that `data` is one JSON object in UTF-8 without floats, at most `DEPTH_MAX` deep. With `canonical_form` also that
    `data` is byte for byte what `encode` writes, so that no two readers (doubled keys, escapes, numbers above 2^53)
    can see two records in it. The chain does not need that: a line that was written otherwise is found by its hash.
    """
    seq, at_ms, kind, body, prev, digest = link(line, number)
    return Record(seq, at_ms, kind, _parsed(body, number, canonical_form), prev, digest)


def link(line: bytes, number: int = 0) -> Link:
    """Check a line's outer form and its hash as `decode` does, and leave its data alone."""
    if len(line) > LINE_BYTES_MAX:
        raise ChainError("line too long", f"{len(line)} bytes, at most {LINE_BYTES_MAX}", number)
    start = line.rfind(b',"hash":"')
    tail = _TAIL.fullmatch(line, start) if start >= 0 else None
    if tail is None:
        raise ChainError("not a record", "the line does not have a journal record's form", number)
    stated, kind, prev, seq = tail.groups()
    found = hashlib.sha256(LEAF + line[:start] + line[start + 74 :]).hexdigest()  # 74: the `hash` member
    if found.encode() != stated:
        raise ChainError("edited", f"its hash is {found[:16]}…, it states {ascii(stated[:16])[2:-1]}…", number)
    head = _HEAD.match(line)
    if head is None or (at_ms := int(head[1])) > INTEGER_MAX:
        raise ChainError("not a record", "the line does not begin as a journal record does", number)
    return Link(int(seq), at_ms, kind.decode(), line[head.end() : start], prev.decode(), found)


def records(path: Path, *, canonical_form: bool = False) -> Iterator[Record]:
    """Every whole record in file order, each with its own hash checked (`decode`); the chain is `linked`'s business.

    An unfinished last line (no newline) raises ChainError "torn" after the whole ones were given.
    """
    for number, line in _lines(path):
        yield decode(line, number, canonical_form=canonical_form)


def links(path: Path) -> Iterator[Link]:
    """As `records`, without parsing what the records say."""
    for number, line in _lines(path):
        yield link(line, number)


def stated_format(path: Path) -> int | None:
    """The format that the first line claims, before anything is checked; None if it claims none.

    For a better word than "edited" about the journal of another version.
    """
    with path.open("rb") as file:
        line = file.readline(_FIRST_LINE_BYTES_MAX)
    found = _FIRST_LINE.match(line)
    return int(found[1]) if found else None


def blocks(path: Path) -> Iterator[list[bytes]]:
    """The file's lines without their ends, some hundred at a time, unread; ChainError "torn" as `records`."""
    number, rest = 0, b""
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            number += len(lines)
            if number > RECORDS_MAX:
                raise ChainError("too many records", f"more than {RECORDS_MAX}", RECORDS_MAX + 1)
            if lines:
                yield lines
            if len(rest) > LINE_BYTES_MAX:
                raise ChainError("line too long", f"more than {LINE_BYTES_MAX} bytes", number + 1)
    if rest:
        raise ChainError("torn", f"{len(rest)} bytes without an end of line", number + 1)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    for block in blocks(path):
        for number, line in enumerate(block, number + 1):  # noqa: B020 - goes on counting where it is
            yield number, line


def linked(found: Iterator[_Line]) -> Iterator[_Line]:
    """Pass records on while each follows the one before it: seq, prev and time; ChainError names the first break."""
    seq, prev, at_ms = -1, GENESIS, 0
    for record in found:
        number = seq + 2
        if record.seq != seq + 1:
            raise ChainError("sequence", f"record {record.seq} stands where {seq + 1} is due", number)
        if record.prev != prev:
            raise ChainError("chain", f"record {record.seq} does not follow the record before it", number)
        if record.at_ms < at_ms:
            raise ChainError("time", f"record {record.seq} is {at_ms - record.at_ms} ms before its predecessor", number)
        seq, prev, at_ms = record.seq, record.hash, record.at_ms
        yield record


def _parsed(body: bytes, number: int, canonical_form: bool) -> dict[str, Any]:
    try:
        text = body.decode()
        data: dict[str, Any]
        data, end = _scan(text)
        if "[" in text or "{" in text[1:]:
            _check_depth(data, text)
    except (ValueError, RecursionError) as error:
        raise ChainError("not a record", f"{type(error).__name__}: {error}"[:200], number) from None
    if end != len(text):
        raise ChainError("not a record", "data is not all that stands between at_ms and hash", number)
    if canonical_form and not _is_canonical(data, text):
        raise ChainError("not canonical", "the line is not in RFC 8785 form", number)
    return data


def _head(at_ms: int, body: bytes) -> bytes:
    return b'{"at_ms":%d,"data":%b' % (at_ms, body)


def _canonical(data: dict[str, Any]) -> bytes:
    # The C encoder sorts keys by code point, which is RFC 8785's order (UTF-16) for ASCII keys; the rest goes the
    # slow way. This is what makes an append cost microseconds.
    if _plain(data, DEPTH_MAX):
        return _encode(data).encode()
    _check_depth(data)
    return canonical(data)


def _is_canonical(data: dict[str, Any], text: str) -> bool:
    """Whether `text`, which was parsed to `data`, is its RFC 8785 form; no Python step per value for ASCII text."""
    try:
        if text.isascii() and not _LONG_NUMBER.search(text):
            return _encode(data) == text
        return canonical(data) == text.encode()
    except (ValueError, RecursionError):
        return False


def _plain(value: Any, depth: int) -> bool:
    kind: type[object] = type(value)
    if kind is dict or kind is list or kind is tuple:
        if depth == 0:
            raise ValueError(_TOO_DEEP)
        if kind is not dict:
            return all(type(item) is str or _plain(item, depth - 1) for item in value)
        for key, item in value.items():
            if type(key) is not str or not key.isascii():
                return False
            if type(item) is not str and not _plain(item, depth - 1):
                return False
        return True
    if kind is int:
        return bool(-INTEGER_MAX <= value <= INTEGER_MAX)
    return value is None or kind is bool or kind is str


def _check_depth(data: dict[str, Any], text: str = "") -> None:
    """ValueError if nested too deep; `text`, where there is one, shows most cases to be shallow by its brackets."""
    if text and text.count("{") + text.count("[") <= DEPTH_MAX:
        return
    level: list[Any] = [data]
    for _ in range(DEPTH_MAX):
        level = [
            item
            for value in level
            for item in (value.values() if isinstance(value, dict) else value)
            if isinstance(item, (dict, list, tuple))
        ]
    if level:
        raise ValueError(_TOO_DEEP)


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mended(item) for item in value]
    return value
