"""The Merkle tree over a journal's records: roots, inclusion and consistency proofs (RFC 6962, RFC 9162; ADR 9).

Knows hashes only: a leaf here is a leaf's hash, which for a record is `bytes.fromhex(record.hash)`. Standard library.
"""

import hashlib
from collections.abc import Sequence

EMPTY = hashlib.sha256().digest()
HASH_BYTES = 32
# A proof has at most two hashes per level; 64 levels hold more leaves than a machine can count to.
PROOF_HASHES_MAX = 128


class ProofError(ValueError):
    """A proof that does not have the length its tree sizes give, or sizes that no proof can have."""


class Tree:
    """The tree so far as a compact range: the roots of its full subtrees, largest first. Constant work per leaf."""

    __slots__ = ("_peaks", "size")

    def __init__(self, leaves: Sequence[bytes] = ()) -> None:
        """Begin empty, or with these leaf hashes."""
        self._peaks: list[bytes] = []
        self.size = 0
        self.extend(leaves)

    def append(self, leaf: bytes) -> None:
        """Add the next leaf's hash (32 bytes)."""
        self._push(leaf, 1)

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Add many: full subtrees are hashed a level at a time, which saves a call for each leaf."""
        at, count = 0, len(leaves)
        while at < count:
            # The widest full subtree that may begin at this size, and that is there.
            width = min(self.size & -self.size or count, 1 << ((count - at).bit_length() - 1))
            width = 1 << (width.bit_length() - 1)
            self._push(root(leaves[at : at + width]), width)
            at += width

    def _push(self, top: bytes, width: int) -> None:
        peaks, left = self._peaks, self.size // width
        while left & 1:  # a full subtree of this width waits for its sibling
            top = hashlib.sha256(b"\1" + peaks.pop() + top).digest()
            left >>= 1
        peaks.append(top)
        self.size += width

    def root(self) -> bytes:
        """The tree hash of all leaves so far; `EMPTY` for none. As many hashes as the size has binary ones."""
        if not self._peaks:
            return EMPTY
        *rest, found = self._peaks
        for peak in reversed(rest):
            found = node(peak, found)
        return found


def node(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node: SHA-256(0x01 ‖ left ‖ right)."""
    return hashlib.sha256(b"\1" + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """The tree hash of a list of leaf hashes, level by level: an odd last node moves up as it is."""
    level = list(leaves)
    if not level:
        return EMPTY
    while len(level) > 1:
        odd = level[-1:] if len(level) % 2 else []
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [hashlib.sha256(b"\1" + a + b).digest() for a, b in pairs] + odd  # `node`, without a call for each
    return level[0]


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The hashes from leaf `index` up to the root of all `leaves` (RFC 6962, 2.1.1), the leaf's side first."""
    if not 0 <= index < len(leaves):
        raise ProofError(f"there is no leaf {index} in a tree of {len(leaves)}")
    proof: list[bytes] = []
    start, end = 0, len(leaves)
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(root(leaves[middle:end]))
            end = middle
        else:
            proof.append(root(leaves[start:middle]))
            start = middle
    return proof[::-1]


def root_by_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root that a proof gives for this leaf (RFC 9162, section 2.1.3.2); ProofError for one of another shape.

    The leaf is in the tree if this is the tree's root; comparing is the caller's.
    """
    if not 0 <= index < size:
        raise ProofError(f"there is no leaf {index} in a tree of {size}")
    _measured(proof)
    at, last, found = index, size - 1, leaf
    for other in proof:
        if last == 0:
            raise ProofError("the proof is longer than the tree is high")
        if at & 1 or at == last:
            found = node(other, found)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node(found, other)
        at, last = at >> 1, last >> 1
    if last:
        raise ProofError("the proof is shorter than the tree is high")
    return found


def consistency_proof(leaves: Sequence[bytes], first: int) -> list[bytes]:
    """The hashes that show the tree of the first `first` leaves to be the beginning of this one (RFC 6962, 2.1.2)."""
    if not 0 < first <= len(leaves):
        raise ProofError(f"a tree of {first} is no beginning of one of {len(leaves)}")
    proof: list[bytes] = []
    start, end, whole = 0, len(leaves), True
    while first < end:
        middle = start + _split(end - start)
        if first <= middle:
            proof.append(root(leaves[middle:end]))
            end = middle
        else:
            proof.append(root(leaves[start:middle]))
            start, whole = middle, False
    if not whole:  # a subtree that is not the old tree itself: whoever verifies cannot know its root
        proof.append(root(leaves[start:end]))
    return proof[::-1]


def consistent(first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the tree of `second` leaves begins with the tree of `first` (RFC 9162, section 2.1.4.2).

    ProofError for sizes or a proof of another shape than such trees have.
    """
    if not 0 < first <= second:
        raise ProofError(f"a tree of {first} is no beginning of one of {second}")
    _measured(proof)
    if first == second:
        if proof:
            raise ProofError("trees of one size need no proof")
        return first_root == second_root
    path = list(proof) if first & (first - 1) else [first_root, *proof]
    if not path:
        raise ProofError("the proof is empty")
    at, last = first - 1, second - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old = new = path[0]
    for other in path[1:]:
        if last == 0:
            raise ProofError("the proof is longer than the tree is high")
        if at & 1 or at == last:
            old, new = node(other, old), node(other, new)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            new = node(new, other)
        at, last = at >> 1, last >> 1
    if last:
        raise ProofError("the proof is shorter than the tree is high")
    return old == first_root and new == second_root


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << ((size - 1).bit_length() - 1)


def _measured(proof: Sequence[bytes]) -> None:
    if len(proof) > PROOF_HASHES_MAX or any(len(item) != HASH_BYTES for item in proof):
        raise ProofError(f"a proof is at most {PROOF_HASHES_MAX} hashes of {HASH_BYTES} bytes")
