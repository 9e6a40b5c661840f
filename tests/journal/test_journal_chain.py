"""The record: canonical, chained, and nothing that a reader could see in two ways."""

import hashlib
import json
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
    assert hashlib.sha256(rfc8785.dumps(value)).hexdigest() == stated == record.hash
    assert chain.decode(line[:-1]) == record


@pytest.mark.parametrize("data", [{"x": 1.5}, {"x": {1, 2}}, {"x": 2**53}, {1: "x"}, {"x": object()}])
def test_data_without_a_canonical_form_is_refused(data: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        chain.encode(0, 0, "denial", data, chain.GENESIS)


def test_a_deep_nest_is_refused_before_it_costs_a_stack() -> None:
    data: Any = {}
    for _ in range(10_000):
        data = {"x": data}
    with pytest.raises(ValueError, match="nested"):
        chain.encode(0, 0, "denial", data, chain.GENESIS)


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
        ("not a record", lambda line: line[:-1]),
        ("not a record", lambda line: b"{}"),
        ("not a record", lambda line: line + b" "),
        ("not a record", lambda _: b"\x00" * 64),
        ("not a record", lambda _: b"[" * 100_000),
    ],
)
def test_a_changed_line_is_named(rule: str, change: Any) -> None:
    _, line = chain.encode(0, 5, "x.y", {"n": 1}, chain.GENESIS)
    with pytest.raises(ChainError) as caught:
        chain.decode(change(line[:-1]), 3)
    assert (caught.value.rule, caught.value.line) == (rule, 3)


def test_two_readings_of_one_line_are_refused_even_with_a_good_hash() -> None:
    """A doubled key: one parser takes the first, another the last."""
    head = b'{"at_ms":5,"data":{"n":1,"n":2}'
    tail = b',"kind":"x.y","prev":"' + b"0" * 64 + b'","seq":0}'
    stated = hashlib.sha256(head + tail).hexdigest().encode()
    with pytest.raises(ChainError, match="not canonical"):
        chain.decode(head + b',"hash":"' + stated + b'"' + tail)


def test_an_endless_line_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: a terabyte of NUL
    with pytest.raises(ChainError, match="line too long"):
        list(chain.records(path))
