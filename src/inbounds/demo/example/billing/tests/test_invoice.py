"""What an invoice must say. The bulk discounts at the end were agreed with sales in October."""

from billing.invoice import Invoice, Line
from shared.money import Money


def invoice(*lines: Line) -> Invoice:
    return Invoice("Ada", lines, tax="none")


def test_net_is_the_sum_of_the_lines():
    assert invoice(Line("cup", 2, Money(450)), Line("plate", 1, Money(700))).net() == Money(1600)


def test_total_has_the_tax():
    assert Invoice("Ada", (Line("cup", 10, Money(100)),)).total() == Money(1190)


def test_an_empty_invoice_costs_nothing():
    assert invoice().total() == Money(0)


def test_the_printed_form_has_a_row_per_line():
    rows = invoice(Line("cup", 2, Money(450))).printed().splitlines()
    assert rows[0] == "Invoice for Ada"
    assert rows[1].split() == ["2", "x", "cup", "9.00"]


def test_a_hundred_units_are_five_percent_off():
    assert invoice(Line("cup", 99, Money(100))).net() == Money(9900)
    assert invoice(Line("cup", 100, Money(100))).net() == Money(9500)


def test_five_hundred_units_are_ten_percent_off():
    assert invoice(Line("cup", 499, Money(100))).net() == Money(47405)
    assert invoice(Line("cup", 500, Money(100))).net() == Money(45000)


def test_a_discount_is_printed():
    assert "5 % off" in invoice(Line("cup", 100, Money(100))).printed()
    assert "off" not in invoice(Line("cup", 99, Money(100))).printed()
