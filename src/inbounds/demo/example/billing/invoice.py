"""An invoice: lines, totals and the printed form."""

from dataclasses import dataclass

from billing.tax import vat
from shared.money import Money


@dataclass(frozen=True)
class Line:
    """So many units of one thing at one price."""

    what: str
    units: int
    price: Money

    def amount(self) -> Money:
        """What the line costs, before tax."""
        return self.price * self.units


@dataclass(frozen=True)
class Invoice:
    """What a customer owes for an order."""

    customer: str
    lines: tuple[Line, ...]
    tax: str = "standard"

    def net(self) -> Money:
        """The sum before tax."""
        return sum((line.amount() for line in self.lines), Money(0))

    def total(self) -> Money:
        """The sum with tax."""
        return self.net() + vat(self.net(), self.tax)

    def printed(self) -> str:
        """The invoice as text, one line per position."""
        rows = [f"Invoice for {self.customer}"]
        rows += [f"{line.units:>5} x {line.what:<20} {line.amount()!s:>10}" for line in self.lines]
        rows.append(f"{'net':<28} {self.net()!s:>10}")
        rows.append(f"{'total':<28} {self.total()!s:>10}")
        return "\n".join(rows)
