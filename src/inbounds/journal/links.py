"""Does each line follow the one before it? Hashes, places and the Merkle tree of a journal, a block at a time.

A block that is in order is checked in columns, which is what makes this fast; any other goes line by line through
`chain.decode`, whose word is final. Knows no meaning of a record, but where the checkpoints stand.
"""

from hashlib import sha256
from typing import NamedTuple

from inbounds.journal import chain
from inbounds.journal.chain import LINE_BYTES_MAX, RECORDS_MAX, ChainError
from inbounds.journal.merkle import Tree

CHECKPOINT = "journal.checkpoint"
_MARK = b',"kind":"journal.checkpoint","prev":"'
_BEFORE, _BEHIND = len(b',"hash":"'), len(b',"hash":"') + 64  # from where the member begins: its digits, their end


class Found(NamedTuple):
    """Of the whole journal: how many records, the last record's hash, and what was asked for.

    `hashes` (hex) by seq, `heads` those that are the hash of any record, `roots` (32 bytes) by tree size.
    """

    records: int
    head: str
    hashes: dict[int, str]
    heads: set[str]
    roots: dict[int, bytes]


class Links:
    """`take` the blocks in order, then ask for the `end`."""

    def __init__(
        self,
        seqs: frozenset[int] = frozenset(),
        sizes: frozenset[int] = frozenset(),
        heads: frozenset[str] = frozenset(),
    ) -> None:
        """Keep the hashes of the records `seqs`, the roots of the trees of `sizes` records; look out for `heads`."""
        self._wanted = frozenset(head.encode() for head in heads)
        self._met: set[str] = set()
        self._broken: ChainError | None = None
        self._seqs, self._sizes = sorted(seqs, reverse=True), sorted(sizes, reverse=True)
        self._tree = Tree()
        self._count, self._head = 0, chain.GENESIS.encode()
        self._hashes: dict[int, str] = {}
        self._roots: dict[int, bytes] = {}

    def root(self, size: int) -> bytes:
        """The root of the first `size` records, behind which a checkpoint stands; forgotten when asked for."""
        return self._roots.pop(size)

    def end(self) -> tuple[Found, ChainError | None]:
        """What was gathered, and the break at which it ends, if there is one."""
        return Found(self._count, self._head.decode(), self._hashes, self._met, self._roots), self._broken

    def take(self, lines: list[bytes]) -> None:
        """One block: lines without their ends, at least one. ChainError for the first that is out of place."""
        try:
            self._take(lines)
        except ChainError as error:
            self._broken = error
            raise

    def _take(self, lines: list[bytes]) -> None:
        if self._count + len(lines) > RECORDS_MAX:
            raise ChainError("too many records", f"more than {RECORDS_MAX}", RECORDS_MAX)
        ends = [line.rfind(b',"hash":"') for line in lines]
        hashes = [line[end + _BEFORE : end + _BEHIND] for line, end in zip(lines, ends, strict=True)]
        places = zip([self._head, *hashes], range(self._count, self._count + len(lines)), strict=False)
        tails = [b'","prev":"%b","seq":%d}' % place for place in places]
        leaves = [
            sha256(b"\0" + line[:end] + line[end + _BEHIND + 1 :]).digest()
            for line, end in zip(lines, ends, strict=True)
        ]
        if (
            all(map(bytes.endswith, lines, tails))
            and b"".join(leaves).hex().encode() == b"".join(hashes)
            and max(map(len, lines)) <= LINE_BYTES_MAX
        ):
            marks = [n for n, line in enumerate(lines) if _MARK in line[-200:]]
            self._grow(leaves, hashes, marks)
            return
        for line in lines:
            self._grow(*self._one(line))

    def _one(self, line: bytes) -> tuple[list[bytes], list[bytes], list[int]]:
        number = self._count + 1
        record = chain.decode(line, number)
        if record.seq != self._count:
            raise ChainError("sequence", f"record {record.seq} stands where {self._count} is due", number)
        if record.prev.encode() != self._head:
            raise ChainError("chain", f"record {record.seq} does not follow the record before it", number)
        return [bytes.fromhex(record.hash)], [record.hash.encode()], [0] if record.kind == CHECKPOINT else []

    def _grow(self, leaves: list[bytes], hashes: list[bytes], marks: list[int]) -> None:
        """Add records to the tree, stopping wherever its root is asked for: before a mark, or at one of the sizes."""
        first, after = self._count, self._count + len(leaves)
        stops = {first + mark for mark in marks}
        while self._sizes and self._sizes[-1] <= after:
            stops.add(self._sizes.pop())
        done = 0
        for size in sorted(stops):
            self._tree.extend(leaves[done : size - first])
            self._roots[size], done = self._tree.root(), size - first
        self._tree.extend(leaves[done:])
        while self._seqs and self._seqs[-1] < after:
            seq = self._seqs.pop()
            self._hashes[seq] = hashes[seq - first].decode()
        if self._wanted:
            self._met |= {head.decode() for head in self._wanted.intersection(hashes)}
        self._count, self._head = after, hashes[-1]
