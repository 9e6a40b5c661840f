"""The tree against RFC 6962's reference vectors and against its definition, written down naively."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbounds.journal import chain, merkle
from inbounds.journal.merkle import ProofError, Tree

# The reference tree of the Certificate Transparency implementations: leaf inputs, then the root after each.
INPUTS = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [hashlib.sha256(chain.LEAF + text).digest() for text in INPUTS]
A, B, C = (
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
)
D, E, F = (
    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
)
hashes = st.lists(st.binary(min_size=32, max_size=32), max_size=40)
some = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=40)


def naive(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word (over leaf hashes)."""
    n = len(leaves)
    if n == 0:
        return hashlib.sha256(b"").digest()
    if n == 1:
        return leaves[0]
    k = 1
    while k * 2 < n:
        k *= 2
    return hashlib.sha256(b"\x01" + naive(leaves[:k]) + naive(leaves[k:])).digest()


def naive_path(m: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 6962, section 2.1.1."""
    n = len(leaves)
    if n == 1:
        return []
    k = 1
    while k * 2 < n:
        k *= 2
    if m < k:
        return [*naive_path(m, leaves[:k]), naive(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), naive(leaves[:k])]


def naive_proof(m: int, leaves: list[bytes], whole: bool = True) -> list[bytes]:
    """RFC 6962, section 2.1.2."""
    n = len(leaves)
    if m == n:
        return [] if whole else [naive(leaves)]
    k = 1
    while k * 2 < n:
        k *= 2
    if m <= k:
        return [*naive_proof(m, leaves[:k], whole), naive(leaves[k:])]
    return [*naive_proof(m - k, leaves[k:], False), naive(leaves[:k])]


def test_the_reference_roots() -> None:
    tree = Tree()
    assert tree.root() == merkle.EMPTY == merkle.root([])
    for size, (leaf, expected) in enumerate(zip(LEAVES, ROOTS, strict=True), 1):
        tree.append(leaf)
        assert (tree.size, tree.root().hex()) == (size, expected)
        assert merkle.root(LEAVES[:size]).hex() == expected


@pytest.mark.parametrize(
    ("index", "size", "expected"),
    [(0, 1, []), (0, 8, [A, B, C]), (5, 8, [D, E, ROOTS[3]]), (2, 3, [ROOTS[1]]), (1, 5, [ROOTS[0], B, D])],
)
def test_the_reference_inclusion_proofs(index: int, size: int, expected: list[str]) -> None:
    proof = merkle.inclusion_proof(LEAVES[:size], index)
    assert [item.hex() for item in proof] == expected
    assert merkle.root_by_inclusion(LEAVES[index], index, size, proof).hex() == ROOTS[size - 1]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(1, 1, []), (1, 8, [A, B, C]), (6, 8, [F, E, ROOTS[3]]), (2, 5, [B, D])],
)
def test_the_reference_consistency_proofs(first: int, second: int, expected: list[str]) -> None:
    proof = merkle.consistency_proof(LEAVES[:second], first)
    assert [item.hex() for item in proof] == expected
    one, two = (bytes.fromhex(ROOTS[size - 1]) for size in (first, second))
    assert merkle.consistent(first, second, one, two, proof)


@given(leaves=hashes)
def test_roots_are_those_of_the_definition(leaves: list[bytes]) -> None:
    assert Tree(leaves).root() == merkle.root(leaves) == naive(leaves)


@given(blocks=st.lists(hashes, max_size=6))
def test_blocks_give_what_single_leaves_give(blocks: list[list[bytes]]) -> None:
    one_by_one, by_blocks = Tree(), Tree()
    for block in blocks:
        by_blocks.extend(block)
        for leaf in block:
            one_by_one.append(leaf)
        assert (by_blocks.size, by_blocks.root()) == (one_by_one.size, one_by_one.root())
    leaves = [leaf for block in blocks for leaf in block]
    assert by_blocks.root() == naive(leaves)


@given(leaves=some, data=st.data())
def test_inclusion_is_shown_and_nothing_else(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    proof = merkle.inclusion_proof(leaves, index)
    assert proof == naive_path(index, leaves)
    expected = naive(leaves)
    assert merkle.root_by_inclusion(leaves[index], index, len(leaves), proof) == expected
    assert merkle.root_by_inclusion(bytes(32), index, len(leaves), proof) != expected or leaves[index] == bytes(32)
    for changed in ([*proof, bytes(32)], proof[1:] if proof else [bytes(32)]):
        with pytest.raises(ProofError):
            merkle.root_by_inclusion(leaves[index], index, len(leaves), changed)
    if proof:
        at = data.draw(st.integers(0, len(proof) - 1))
        bent = [*proof[:at], bytes(b ^ 1 for b in proof[at]), *proof[at + 1 :]]
        assert merkle.root_by_inclusion(leaves[index], index, len(leaves), bent) != expected


@given(leaves=some, data=st.data())
def test_consistency_is_shown_and_nothing_else(leaves: list[bytes], data: st.DataObject) -> None:
    second = len(leaves)
    first = data.draw(st.integers(1, second))
    proof = merkle.consistency_proof(leaves, first)
    assert proof == naive_proof(first, leaves)
    old, new = naive(leaves[:first]), naive(leaves)
    assert merkle.consistent(first, second, old, new, proof)
    other = bytes(b ^ 1 for b in old)
    assert not merkle.consistent(first, second, other, new, proof)
    assert not merkle.consistent(first, second, old, bytes(b ^ 1 for b in new), proof)
    with pytest.raises(ProofError):
        merkle.consistent(first, second, old, new, [*proof, bytes(32)])
    if proof:
        with pytest.raises(ProofError):
            merkle.consistent(first, second, old, new, proof[:-1])


@given(leaves=st.lists(st.binary(min_size=32, max_size=32), min_size=2, max_size=40, unique=True), data=st.data())
def test_a_fork_is_not_consistent(leaves: list[bytes], data: st.DataObject) -> None:
    first = data.draw(st.integers(1, len(leaves) - 1))
    at = data.draw(st.integers(0, first - 1))
    forked = [*leaves[:at], bytes(b ^ 1 for b in leaves[at]), *leaves[at + 1 :]]
    proof = merkle.consistency_proof(forked, first)
    assert merkle.consistent(first, len(leaves), merkle.root(forked[:first]), merkle.root(forked), proof)
    assert not merkle.consistent(first, len(leaves), merkle.root(leaves[:first]), merkle.root(forked), proof)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: merkle.inclusion_proof(LEAVES, 8),
        lambda: merkle.inclusion_proof([], 0),
        lambda: merkle.root_by_inclusion(LEAVES[0], 8, 8, []),
        lambda: merkle.root_by_inclusion(LEAVES[0], 0, 8, [b"short"] * 3),
        lambda: merkle.root_by_inclusion(LEAVES[0], 0, 1 << 200, [bytes(32)] * 200),
        lambda: merkle.consistency_proof(LEAVES, 0),
        lambda: merkle.consistency_proof(LEAVES, 9),
        lambda: merkle.consistent(0, 8, b"", b"", []),
        lambda: merkle.consistent(9, 8, b"", b"", []),
        lambda: merkle.consistent(3, 8, b"", b"", []),
        lambda: merkle.consistent(8, 8, b"", b"", [bytes(32)]),
    ],
)
def test_what_no_tree_has_is_refused(ask: object) -> None:
    assert callable(ask)
    with pytest.raises(ProofError):
        ask()
