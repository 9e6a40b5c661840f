"""Canonical JSON agrees with an independent RFC 8785 implementation, or refuses."""

import hashlib
from enum import StrEnum

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from inbounds.contracts.canonical import canonical, digest
from inbounds.contracts.units import INTEGER_MAX

text = st.text()
whole = st.integers(-INTEGER_MAX, INTEGER_MAX)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), whole, text),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(text, inner)),
    max_leaves=30,
)


@given(values)
def test_it_agrees_with_the_rfc8785_package(value: object) -> None:
    assert canonical(value) == rfc8785.dumps(value)
    assert digest(value) == hashlib.sha256(rfc8785.dumps(value)).hexdigest()


def test_keys_sort_by_utf16_code_unit() -> None:
    # RFC 8785, 3.2.3: U+1F600 sorts before U+FB33, because its first surrogate is 0xD83D
    value = {"\ufb33": 1, "\U0001f600": 2, "\r": 3, "1": 4, "\u0080": 5, "\u00f6": 6, "\u20ac": 7}
    assert canonical(value) == rfc8785.dumps(value)
    assert canonical(value).index("\U0001f600".encode()) < canonical(value).index("\ufb33".encode())


@given(st.dictionaries(text, values), st.randoms())
def test_the_order_in_which_keys_were_written_does_not_matter(value: dict[str, object], shuffle: object) -> None:
    keys = list(value)
    shuffle.shuffle(keys)  # type: ignore[attr-defined] # hypothesis gives a random.Random
    assert canonical({key: value[key] for key in keys}) == canonical(value)


class Word(StrEnum):
    """A string of ours."""

    A = "a"


def test_enums_and_tuples_are_what_they_hold() -> None:
    assert canonical({"x": (Word.A, True)}) == b'{"x":["a",true]}'


@pytest.mark.parametrize(
    "value",
    [1.5, float("nan"), 2**53, -(2**53), b"x", {1: 2}, {None: 1}, {"a": {2}}, "\ud800", {"\udfff": 1}, [1, [0.0]]],
    ids=repr,
)
def test_what_has_no_exact_form_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        canonical(value)
