"""Amounts of money, exact to the cent. Both billing and shipping read this; neither changes it alone."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Money:
    """An amount in whole cents."""

    cents: int

    def __add__(self, other: "Money") -> "Money":
        return Money(self.cents + other.cents)

    def __sub__(self, other: "Money") -> "Money":
        return Money(self.cents - other.cents)

    def __mul__(self, count: int) -> "Money":
        return Money(self.cents * count)

    def percent(self, rate: int) -> "Money":
        """That many percent of the amount, half a cent rounded up."""
        return Money((self.cents * rate + 50) // 100)

    def __str__(self) -> str:
        sign = "-" if self.cents < 0 else ""
        return f"{sign}{abs(self.cents) // 100}.{abs(self.cents) % 100:02d}"
