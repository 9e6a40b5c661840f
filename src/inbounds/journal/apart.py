"""The chain in a process of its own: half of the work of reading a long journal, where there is a second processor.

Forks this very program, which then takes blocks from a pipe and hashes them; it opens nothing and starts nothing. The
file is read once, so that both halves see the same bytes.
"""

import fcntl
import json
import os
from contextlib import suppress
from typing import IO

from inbounds.journal.chain import ChainError
from inbounds.journal.links import Found, Links

PIPE_BYTES = 1 << 20  # what an ordinary user may have: some blocks, so that neither half waits for the other
LENGTH = 8  # bytes before each block


class Apart:
    """As `Links`, but `take` returns before the block was checked; `end` waits and says what was found."""

    def __init__(self, links: Links) -> None:
        """OSError where the machine has no room for one more process."""
        blocks, self._blocks = os.pipe()
        self._answer, answer = os.pipe()
        with suppress(OSError):  # a smaller one is slower, not wrong
            fcntl.fcntl(blocks, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._pid = os.fork()
        if self._pid == 0:
            status = 1
            try:
                os.close(self._blocks)
                os.close(self._answer)
                with os.fdopen(blocks, "rb") as come, os.fdopen(answer, "wb") as go:
                    _work(links, come, go)
                status = 0
            finally:
                os._exit(status)  # never back into what the parent was doing
        os.close(blocks)
        os.close(answer)

    def take(self, lines: list[bytes]) -> None:
        """Hand one block over."""
        raw = b"\n".join(lines)
        rest = memoryview(len(raw).to_bytes(LENGTH, "big") + raw)
        with suppress(BrokenPipeError):  # the other half has found a break: `end` says which
            while rest:
                rest = rest[os.write(self._blocks, rest) :]

    def end(self) -> tuple[Found, ChainError | None]:
        """As `Links.end`. OSError where the other half died: then nothing is known."""
        os.close(self._blocks)
        with os.fdopen(self._answer, "rb") as file:
            said = file.read()
        if os.waitpid(self._pid, 0)[1]:
            raise OSError(0, "the process that reads the chain died")
        value = json.loads(said)
        hashes = {int(seq): digest for seq, digest in value["hashes"].items()}
        roots = {int(size): bytes.fromhex(root) for size, root in value["roots"].items()}
        found = Found(value["records"], value["head"], hashes, set(value["heads"]), roots)
        return found, ChainError(*value["broken"]) if value["broken"] else None


def _work(links: Links, come: IO[bytes], go: IO[bytes]) -> None:
    """The other half: take blocks until there are no more, or the chain breaks; then answer."""
    with suppress(ChainError):  # `end` has it
        while length := come.read(LENGTH):
            links.take(come.read(int.from_bytes(length, "big")).split(b"\n"))
    come.close()
    found, broken = links.end()
    value = found._asdict() | {"heads": sorted(found.heads), "broken": None}
    value["roots"] = {size: root.hex() for size, root in found.roots.items()}
    if broken is not None:
        value["broken"] = [broken.rule, broken.detail, broken.line]
    go.write(json.dumps(value).encode())
