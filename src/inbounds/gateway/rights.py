"""What is left to a sealed gateway: its ledger's files, the providers' ports, and what names and TLS need."""

from collections.abc import Iterable

from inbounds.program.seal import NAMES_AND_TLS, Rights, code, resolver


def rights(ledger: str, ca_bundle: str | None, ports: Iterable[int]) -> Rights:
    """The row of this program; the ledger's log and index exist by then, as none can be made afterwards."""
    return Rights(
        read=(*NAMES_AND_TLS, *resolver(), *code(), *((ca_bundle,) if ca_bundle else ())),
        write=(ledger, f"{ledger}-wal", f"{ledger}-shm"),
        connect=tuple(ports),
        threads=True,
    )
