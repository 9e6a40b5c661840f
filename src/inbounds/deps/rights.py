"""What is left to a sealed index proxy: to reach package indexes, and what names and TLS need; no file of its own."""

from collections.abc import Iterable

from inbounds.program.seal import NAMES_AND_TLS, Rights, code, resolver


def rights(ports: Iterable[int]) -> Rights:
    """The row of this program; `ports` are those of the indexes and of the operator's proxies."""
    return Rights(read=(*NAMES_AND_TLS, *resolver(), *code()), connect=tuple(ports), threads=True)
