"""What is left to a sealed gateway: its ledger's files, the providers' ports, and what names and TLS need."""

from collections.abc import Iterable

from inbounds.program.seal import NAMES_AND_TLS, Rights, code, resolver

# The bodies that it holds at once, parsed, take a third of this: what a hostile agent sends must not fill the host.
MEMORY_BYTES_MAX = 1 << 30


def rights(ledger: str, ca_bundle: str | None, ports: Iterable[int]) -> Rights:
    """The row of this program; the ledger's log and index exist by then, as none can be made afterwards."""
    return Rights(
        read=(*NAMES_AND_TLS, *resolver(), *code(), *((ca_bundle,) if ca_bundle else ())),
        write=(ledger, f"{ledger}-wal", f"{ledger}-shm"),
        connect=tuple(ports),
        threads=True,
        descriptors_max=1_024,
        memory_bytes_max=MEMORY_BYTES_MAX,
    )
