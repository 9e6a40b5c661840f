"""The record: canonical, chained, and nothing that a reader could see in two ways."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from inbounds.journal import chain
from inbounds.journal.chain import ChainError

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)
DATA = st.dictionaries(
    TEXT,
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXT,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
        max_leaves=10,
    ),
    max_size=6,
)


@given(data=DATA)
def test_lines_are_rfc_8785_and_read_back(data: dict[str, Any]) -> None:
    record, line = chain.encode(7, 1_000, "model.usage", data, "a" * 64)
    value = json.loads(line)
    assert rfc8785.dumps(value) + b"\n" == line
    stated = value.pop("hash")
    assert hashlib.sha256(b"\0" + rfc8785.dumps(value)).hexdigest() == stated == record.hash
    assert chain.decode(line[:-1], canonical_form=True) == record


@pytest.mark.parametrize("data", [{"x": 1.5}, {"x": {1, 2}}, {"x": 2**53}, {1: "x"}, {"x": object()}])
def test_data_without_a_canonical_form_is_refused(data: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        chain.encode(0, 0, "denial", data, chain.GENESIS)


def test_a_deep_nest_is_refused_before_it_costs_a_stack() -> None:
    data: Any = {}
    for _ in range(10_000):
        data = {"x": data}
    for nest in (data, {"\xe9": data}):  # a key that is no ASCII takes the slower way
        with pytest.raises(ValueError, match="nested"):
            chain.encode(0, 0, "denial", nest, chain.GENESIS)
    shallow: Any = 1
    for _ in range(chain.DEPTH_MAX):
        shallow = {"x": shallow}
    record, line = chain.encode(0, 0, "denial", shallow, chain.GENESIS)
    assert chain.decode(line[:-1]) == record


def test_a_name_that_is_no_unicode_does_not_stop_the_journal() -> None:
    name = b"evil\xff.py".decode("utf-8", "surrogateescape")
    record, line = chain.encode(0, 0, "snapshot.taken", {"changes": [{"path": name}]}, chain.GENESIS)
    assert chain.decode(line[:-1]) == record
    assert record.data["changes"][0]["path"] == r"evil\udcff.py"


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        ("edited", lambda line: line.replace(b'"n":1', b'"n":2')),
        ("edited", lambda line: line.replace(b'"kind":"x.y"', b'"kind":"x.z"')),
        ("edited", lambda line: line.replace(b'"at_ms":5', b'"at_ms":6')),
        ("edited", lambda line: line.replace(b'"seq":0', b'"seq":1')),
        ("edited", lambda line: line.replace(b'"prev":"0', b'"prev":"1')),
        ("edited", lambda line: re.sub(rb'"hash":"[^"]*"', b'"hash":"' + b"\xff" * 64 + b'"', line)),
        ("not a record", lambda line: line[:-1]),
        ("not a record", lambda line: b"{}"),
        ("not a record", lambda line: line + b" "),
        ("not a record", lambda _: b"\x00" * 64),
        ("not a record", lambda _: b"[" * 100_000),
        ("line too long", lambda _: b"[" * (chain.LINE_BYTES_MAX + 1)),
    ],
)
def test_a_changed_line_is_named(rule: str, change: Any) -> None:
    _, line = chain.encode(0, 5, "x.y", {"n": 1}, chain.GENESIS)
    assert chain.decode(line[:-1], 3).data == {"n": 1}
    with pytest.raises(ChainError) as caught:
        chain.decode(change(line[:-1]), 3)
    assert (caught.value.rule, caught.value.line) == (rule, 3)


def hashed(head: bytes, kind: str = "x.y", seq: str = "0") -> bytes:
    """A line of somebody who knows the format and writes what `encode` never would."""
    tail = b',"kind":"%b","prev":"%b","seq":%b}' % (kind.encode(), b"0" * 64, seq.encode())
    stated = hashlib.sha256(b"\0" + head + tail).hexdigest().encode()
    return head + b',"hash":"' + stated + b'"' + tail


OTHER_FORMS = {
    "doubled key": rb'{"n":1,"n":2}',
    "key order": rb'{"b":1,"a":2}',
    "utf-16 order": '{"\ufb33":1,"\U0001f600":2}'.encode(),  # by code point, which RFC 8785 does not use
    "escape": rb'{"n":"\u0041"}',
    "surrogate": rb'{"n":"\ud800"}',
    "white space": rb'{"n": 1}',
    "minus zero": rb'{"n":-0}',
    "long number": rb'{"n":9007199254740993}',
    "long negative": rb'{"n":[1,-9007199254740993]}',
}


@pytest.mark.parametrize("name", OTHER_FORMS)
def test_two_readings_of_one_line_are_refused_even_with_a_good_hash(name: str) -> None:
    line = hashed(b'{"at_ms":5,"data":' + OTHER_FORMS[name])
    assert chain.decode(line).seq == 0  # the chain holds; the form is asked for apart
    with pytest.raises(ChainError, match="not canonical"):
        chain.decode(line, canonical_form=True)
    plain = hashed(b'{"at_ms":5,"data":{"hex":"1234567890123456789","n":9007199254740991}')
    assert chain.decode(plain, canonical_form=True).data["n"] == 2**53 - 1


@pytest.mark.parametrize(
    "line",
    [
        hashed(b'{"at_ms":5,"data":{"n":1.5}'),
        hashed(b'{"at_ms":5,"data":{"n":1e3}'),
        hashed(b'{"at_ms":5,"data":{"n":NaN}'),
        hashed(b'{"at_ms":5,"data":[1]'),
        hashed(b'{"at_ms":5,"data":{"n":1},"more":2'),
        hashed(b'{"at_ms":5,"data":{"n":1'),
        hashed(b'{"at_ms":05,"data":{"n":1}'),
        hashed(b'{"at_ms":9999999999999999,"data":{"n":1}'),
        hashed(b'{"data":{"n":1},"at_ms":5'),
        hashed(b'{"at_ms":5,"data":{"n":"\xff"}'),
        hashed(b'{"at_ms":5,"data":{"n":%b}' % (b"9" * 5_000)),
        hashed(b'{"at_ms":5,"data":{"n":%b1%b}' % (b"[" * 33, b"]" * 33)),
        hashed(b'{"at_ms":5,"data":{"n":%b1%b}' % (b"[" * 5_000, b"]" * 5_000)),
        hashed(b'{"at_ms":5,"data":{"n":1}', kind="X"),
        hashed(b'{"at_ms":5,"data":{"n":1}', kind="a.b.c"),
        hashed(b'{"at_ms":5,"data":{"n":1}', seq="01"),
        hashed(b'{"at_ms":5,"data":{"n":1}', seq="-1"),
    ],
)
def test_a_line_of_another_form_is_no_record_even_with_a_good_hash(line: bytes) -> None:
    assert chain.decode(hashed(b'{"at_ms":5,"data":{"n":1}')).data == {"n": 1}
    with pytest.raises(ChainError, match="not a record"):
        chain.decode(line)


def test_a_torn_end_is_told_apart_after_the_whole_records_were_given(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    first, line = chain.encode(0, 5, "x.y", {"n": 1}, chain.GENESIS)
    path.write_bytes(line + line[:-1])
    reader = chain.records(path)
    assert next(reader) == first
    with pytest.raises(ChainError, match="torn"):
        next(reader)


def chained(count: int) -> tuple[list[chain.Record], bytes]:
    found, lines, prev = [], [], chain.GENESIS
    for n in range(count):
        record, line = chain.encode(n, n, "x.y", {"n": n, "text": "é\n" * n}, prev)
        prev = record.hash
        found.append(record)
        lines.append(line)
    return found, b"".join(lines)


@pytest.mark.parametrize("block", [1, 7, 200, 1 << 20])
def test_lines_are_the_same_wherever_a_block_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(chain, "_BLOCK_BYTES", block)
    path = tmp_path / "journal.jsonl"
    expected, content = chained(20)
    path.write_bytes(content)
    assert list(chain.linked(chain.records(path, canonical_form=True))) == expected
    assert [link.record() for link in chain.linked(chain.links(path))] == expected
    path.write_bytes(content[:-1])
    with pytest.raises(ChainError, match="line 20: torn"):
        list(chain.records(path))


def test_there_is_an_end_to_the_records_that_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(chained(4)[1])
    monkeypatch.setattr(chain, "RECORDS_MAX", 4)
    assert len(list(chain.records(path))) == 4
    monkeypatch.setattr(chain, "RECORDS_MAX", 3)
    with pytest.raises(ChainError, match="too many records"):
        list(chain.records(path))


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (chained(1)[1], None),
        (chain.encode(0, 5, "journal.opened", {"version": 2}, chain.GENESIS)[1], 2),
        (b'{"at_ms":5,"data":{"version":1},"hash":"x"}\n', 1),
        (b'{"at_ms":5,"data":{"version":%b},"hash":"x"}\n' % (b"9" * 10), None),
        (b"", None),
        (b"\xff" * 100_000, None),
    ],
)
def test_the_format_that_a_first_line_states(tmp_path: Path, first: bytes, expected: int | None) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(first)
    assert chain.stated_format(path) == expected


@pytest.mark.parametrize(
    ("rule", "seq", "prev", "at_ms"),
    [("sequence", 2, "", 6), ("sequence", 0, "", 6), ("chain", 1, "f" * 64, 6), ("time", 1, "", 4)],
)
def test_a_record_that_does_not_follow_is_named(rule: str, seq: int, prev: str, at_ms: int) -> None:
    first, _ = chain.encode(0, 5, "x.y", {}, chain.GENESIS)
    good, _ = chain.encode(1, 6, "x.y", {}, first.hash)
    assert list(chain.linked(iter([first, good]))) == [first, good]
    bad, _ = chain.encode(seq, at_ms, "x.y", {}, prev or first.hash)
    with pytest.raises(ChainError) as caught:
        list(chain.linked(iter([first, bad])))
    assert (caught.value.rule, caught.value.line) == (rule, 2)


def test_an_endless_line_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: a terabyte of NUL
    with pytest.raises(ChainError, match="line too long"):
        list(chain.records(path))
