"""Units that are types: money, time and sizes, parsed once from what people write.

Money is an integer of micro-dollars, never a float (STYLE principle 6). Standard library only: the kernel uses it.
"""

import re
from decimal import ROUND_CEILING, Decimal
from typing import NewType

MicroUsd = NewType("MicroUsd", int)
Millis = NewType("Millis", int)

MICRO_PER_USD = 1_000_000
MS_PER = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
BYTES_PER = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}

# 2^53-1: the largest integer that RFC 8785 numbers carry exactly; every unit stays below it.
INTEGER_MAX = (1 << 53) - 1

# Digits are bounded so that no text can make the arithmetic long; ASCII, so that what is read is what was seen.
_USD = re.compile(r"\$?([0-9]{1,12}(?:\.[0-9]{1,12})?|\.[0-9]{1,12})")
_DURATION = re.compile(r"([0-9]{1,12})(ms|s|m|h|d|w)")
_SIZE = re.compile(r"([0-9]{1,15})\s*([kmgt]?)(?:i?b)?", re.IGNORECASE | re.ASCII)


def usd(text: str | int) -> MicroUsd:
    """Parse dollars ("5", "0.25") into micro-dollars, rounded up; ValueError if negative or not a number."""
    match = _USD.fullmatch(str(text).strip())
    if not match:
        raise ValueError(f"{text!r} is no amount of dollars such as 5 or 0.25")
    amount = Decimal(match[1])
    micro = int((amount * MICRO_PER_USD).to_integral_value(ROUND_CEILING))
    if micro > INTEGER_MAX:
        raise ValueError(f"{text!r} is more than this program counts ({INTEGER_MAX} micro-dollars)")
    return MicroUsd(micro)


def show_usd(amount: int) -> str:
    """Write micro-dollars as dollars without losing a digit: "0.25", "5.00"."""
    sign, micro = ("-", -amount) if amount < 0 else ("", amount)
    whole, rest = divmod(micro, MICRO_PER_USD)
    digits = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{digits}"


def duration(text: str | int) -> Millis:
    """Parse "90s", "30m", "1h30m" into milliseconds; a bare integer is refused because its unit is unknown."""
    raw = str(text).strip().lower()
    parts = _DURATION.findall(raw)
    if not parts or "".join(n + u for n, u in parts) != raw:
        raise ValueError(f"{text!r} is no duration such as 90s, 30m or 1h30m")
    total = sum(int(n) * MS_PER[u] for n, u in parts)
    if not 0 < total <= INTEGER_MAX:
        raise ValueError(f"{text!r} is out of range for a duration")
    return Millis(total)


def show_duration(ms: int) -> str:
    """Write measured milliseconds as the two largest units that say something: "1h30m", "45s", "320ms"."""
    return "".join(_parts(ms if ms < MS_PER["s"] else ms - ms % MS_PER["s"])[:2]) or "0ms"


def write_duration(ms: int) -> str:
    """Write a limit exactly, so that `duration` reads the same back."""
    return "".join(_parts(ms)) or "0ms"


def _parts(ms: int) -> list[str]:
    out: list[str] = []
    for unit in ("w", "d", "h", "m", "s", "ms"):
        count, ms = divmod(ms, MS_PER[unit])
        if count:
            out.append(f"{count}{unit}")
    return out


def size(text: str | int) -> int:
    """Parse "512M", "2GiB" or bytes into bytes (powers of 1024)."""
    match = _SIZE.fullmatch(str(text).strip())
    if not match:
        raise ValueError(f"{text!r} is no size such as 512M or 2G")
    total = int(match[1]) * BYTES_PER[match[2].lower()]
    if total > INTEGER_MAX:
        raise ValueError(f"{text!r} is out of range for a size")
    return total
