"""Parcel prices."""

import pytest

from shared.money import Money
from shipping.rates import rate


def test_a_light_parcel():
    assert rate(1_000) == Money(449)


def test_abroad_costs_more():
    assert rate(1_000, "FR") == Money(1349)


@pytest.mark.parametrize("grams", [0, -1, 31_501])
def test_no_such_parcel(grams):
    with pytest.raises(ValueError, match="parcel"):
        rate(grams)
