"""Identifiers: how runs, plans and requirements are named, and what an untrusted string must match to be one.

Standard library only. Randomness and time come from the caller, so that the kernel stays pure.
"""

import re

RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")
PLAN_ID = re.compile(r"PLAN-[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
FR_ID = re.compile(r"FR-[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SHA256 = re.compile(r"[0-9a-f]{64}")


def run_id(stamp_utc: str, random_hex: str) -> str:
    """Join a UTC stamp "YYYYMMDD-HHMMSS" and six hex digits; ids sort by time."""
    made = f"{stamp_utc}-{random_hex[:6]}"
    if not RUN_ID.fullmatch(made):
        raise ValueError(f"{made!r} is no run id")
    return made
