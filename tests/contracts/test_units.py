"""Money, time and sizes are read exactly, written back without loss, and refused when their unit is unknown."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbounds.contracts.limits import CEILING, DEFAULT, RULES, from_json
from inbounds.contracts.units import (
    INTEGER_MAX,
    duration,
    show_duration,
    show_usd,
    size,
    usd,
    write_duration,
)


@given(st.integers(0, INTEGER_MAX))
def test_dollars_round_trip(micro: int) -> None:
    assert usd(show_usd(micro)) == micro
    assert usd("$" + show_usd(micro)) == micro
    assert show_usd(-micro).removeprefix("-") == show_usd(micro)


@given(st.decimals(0, 10**9, allow_nan=False, places=12))
def test_dollars_are_rounded_up_and_never_down(amount: Decimal) -> None:
    micro = usd(f"{amount:f}")
    assert 0 <= micro - amount * 1_000_000 < 1


@given(st.integers(1, INTEGER_MAX))
def test_durations_round_trip(ms: int) -> None:
    assert duration(write_duration(ms)) == ms
    assert duration(show_duration(ms)) <= ms


@pytest.mark.parametrize(
    ("text", "ms"), [("90s", 90_000), ("30m", 1_800_000), ("1h30m", 5_400_000), ("2W", 1_209_600_000), (" 1s ", 1_000)]
)
def test_durations(text: str, ms: int) -> None:
    assert duration(text) == ms


@pytest.mark.parametrize(
    ("text", "bytes_"), [("512M", 512 << 20), ("2GiB", 2 << 30), ("2 gb", 2 << 30), (7, 7), ("1T", 1 << 40)]
)
def test_sizes(text: str | int, bytes_: int) -> None:
    assert size(text) == bytes_


@pytest.mark.parametrize(
    "text", ["", "-1", "1e6", "NaN", "Infinity", "1_000", "1,5", "٣", "5 €", "1e999999", True, "9" * 30, "0x10", "$"]
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"dollars|counts"):
        usd(text)


@pytest.mark.parametrize("text", ["30", 30, "0s", "-1s", "1.5h", "1h 30m", "٣s", "1y", "999999999999w", "", "m"])
def test_what_is_no_duration_is_refused(text: str | int) -> None:
    with pytest.raises(ValueError, match="duration"):
        duration(text)


@pytest.mark.parametrize("text", ["", "-1", "1.5G", "G", "1P", "٣", "1 m b", "999999999999999T"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        size(text)


@given(st.one_of(st.text(), st.integers()))
def test_nothing_but_a_value_error_comes_out(text: str | int) -> None:
    for parse in (usd, duration, size):
        try:
            assert 0 <= parse(text) <= INTEGER_MAX
        except ValueError:
            continue


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.key)
def test_every_limit_has_a_default_below_its_ceiling_and_a_reason(rule) -> None:
    assert 0 < rule.default <= rule.ceiling <= INTEGER_MAX
    assert rule.why
    for value in (rule.default, rule.ceiling):
        assert rule.parse(rule.written(value)) == value


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "٣", True, "", "1e3", "9" * 20])
def test_counts_are_whole_and_above_zero(text: str) -> None:
    count = next(rule for rule in RULES if rule.key == "iterations")
    with pytest.raises(ValueError, match="whole number"):
        count.parse(text)


def test_limits_are_read_back_or_refused() -> None:
    assert from_json(DEFAULT.as_json()) == DEFAULT
    assert from_json(CEILING.as_json()) == CEILING
    whole = DEFAULT.as_json()
    for bad in ({**whole, "more": 1}, {"tokens": 1}, {**whole, "tokens": 1.5}, {**whole, "tokens": True}, [], b""):
        with pytest.raises(TypeError):
            from_json(bad)
