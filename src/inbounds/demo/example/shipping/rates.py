"""What a parcel costs to send."""

from shared.money import Money

# (up to so many grams, price)
DOMESTIC = ((1_000, Money(449)), (5_000, Money(699)), (31_500, Money(1649)))
ABROAD = Money(900)


def rate(grams: int, country: str = "DE") -> Money:
    """The price for one parcel; ValueError if it is too heavy or weighs nothing."""
    if grams <= 0:
        raise ValueError(f"a parcel of {grams} g")
    for limit, price in DOMESTIC:
        if grams <= limit:
            return price if country == "DE" else price + ABROAD
    raise ValueError(f"{grams} g is more than a parcel may weigh")
