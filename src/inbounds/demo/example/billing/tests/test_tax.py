"""Tax on net amounts."""

import pytest

from billing.tax import vat
from shared.money import Money


def test_half_a_cent_is_rounded_up():
    assert vat(Money(50), "reduced") == Money(4)


def test_an_unknown_kind_is_refused():
    with pytest.raises(KeyError):
        vat(Money(100), "none of these")
