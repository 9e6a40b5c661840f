"""Value added tax."""

from shared.money import Money

RATES = {"standard": 19, "reduced": 7, "none": 0}


def vat(amount: Money, kind: str = "standard") -> Money:
    """The tax on a net amount; KeyError for a kind that does not exist."""
    return amount.percent(RATES[kind])
