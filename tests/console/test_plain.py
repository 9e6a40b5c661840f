"""Nothing that steers a terminal, hides or reorders comes through as itself."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbounds.console.plain import visible


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x7f", "\\x7f"),
        ("evil\u202egpj.exe", "evil\\u202egpj.exe"),
        ("\u2066x\u2069", "\\u2066x\\u2069"),
        ("a\u200bb\u200dc\ufeffd\u00ade", "a\\u200bb\\u200dc\\ufeffd\\xade"),
        ("x\u00a0y\u3000z", "x\\xa0y\\u3000z"),
        ("x\u2028y\u2029z", "x\\u2028y\\u2029z"),
        ("\u3164\u2800\u115f", "\\u3164\\u2800\\u115f"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("\ue000", "\\ue000"),
        ("e\u0301" + "\u0301" * 5, "e\u0301\u0301\u0301" + "\\u0301" * 3),
        ("naïve Ωμέγα 日本語 ✅ -- plain", "naïve Ωμέγα 日本語 ✅ -- plain"),
    ],
)
def test_what_is_hostile_is_spelt_out(hostile: str, shown: str) -> None:
    assert visible(hostile) == shown


@given(st.text(st.characters(), max_size=200))
def test_no_control_or_format_character_ever_comes_out(text: str) -> None:
    for char in visible(text):
        assert unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    for char in visible(text, lines=True):
        assert char in "\n\t" or unicodedata.category(char)[0] != "C"


def test_blocks_keep_lines_and_long_text_says_what_is_missing() -> None:
    assert visible("a\n\tb\r\n", lines=True) == "a\n\tb\\r\n"
    assert visible("x" * 500, limit=10) == "x" * 10 + "… (490 more characters)"
