"""Several processes list what one would; and what differs between two listings is found however they were made."""

import itertools
import os
from pathlib import Path

import pytest

from inbounds.store import listing, walk
from inbounds.store.listing import ALONE, Shares
from inbounds.store.walk import Limits

LIMITS = Limits()
ODD = "new\nline", "*", "-delete", "(", "a b", "caf\udce9", "\\", "[x]", "é"


@pytest.fixture(autouse=True)
def find():
    if not listing.available():
        pytest.skip("GNU find is not installed here")


@pytest.fixture
def tree(place):
    for one, two in itertools.product(("src", "lib", "docs", *ODD), ("a", "b", "deep/er", *ODD)):
        path = place / one / two
        path.mkdir(parents=True)
        (path / "file").write_text("x")
    (place / ".git").mkdir()
    (place / ".git" / "config").write_text("x")
    handle = os.open(place, walk.DIRECTORY)
    yield place, handle
    os.close(handle)


def whole(handle: int, shares: Shares = ALONE, limits: Limits = LIMITS) -> set[bytes]:
    found = listing.lines(handle, limits, shares)
    assert found is not None
    said = list(found.lines())
    assert len(said) == len(found) == len(set(said))
    assert found.files() == sum(kind != "d" for kind, _ in found.seen())
    return set(said)


SHARED = (
    Shares("", (("src",),)),
    Shares("", (("src", "gone"), ("lib", "docs"))),
    Shares("", (("gone",), ("docs",))),
    Shares("src", (("a", "b"),)),
    Shares("src/deep", (("er",), ("gone",))),
    Shares("gone", (("er",),)),
)


@pytest.mark.parametrize("shares", SHARED)
def test_a_shared_listing_is_the_listing(tree, shares):
    place, handle = tree
    alone = whole(handle)
    assert whole(handle, shares) == alone
    assert b"config" not in b"".join(alone)
    for depth in range(5):
        limits = Limits(depth_max=depth)
        assert whole(handle, shares, limits) == whole(handle, limits=limits)
    (place / "src" / "a" / "b").mkdir()
    before = listing.lines(handle, LIMITS, shares)
    os.rename(place / "src" / "a", place / "lib" / "moved")
    (place / "docs" / "a" / "file").write_text("y")
    (place / "lib" / "b" / "file").unlink()
    plain, after = listing.lines(handle, LIMITS), listing.lines(handle, LIMITS, shares)
    assert before
    assert plain
    assert after
    assert set(after.lines()) == set(plain.lines())
    now, then = set(after.lines()), set(before.lines())
    for later in (after, plain):  # by parts, and where the parts are others
        difference = later.since(before)
        assert difference.gone == then - now
        assert difference.come == now - then
        assert set(later.without(difference.come).lines()) == now & then
        kinds = difference.kinds()
        assert kinds["src/a"] == kinds["lib/b/file"] == ""
        assert kinds["lib/moved"] == "d"
        assert kinds["docs/a/file"] == "f"
    assert not after.since(after).come


def test_a_share_is_never_entered_through_a_link(tree, tmp_path):
    """A name that was a directory leads somewhere else now: it is listed as what it is."""
    place, handle = tree
    (tmp_path / "outside" / "er").mkdir(parents=True)
    (tmp_path / "outside" / "er" / "secret").write_text("x")
    os.rename(place / "src" / "deep", place / "was")
    (place / "src" / "deep").symlink_to(tmp_path / "outside")
    os.rename(place / "lib", place / "lib was")
    (place / "lib").symlink_to(tmp_path / "outside")
    for shares in (*SHARED, Shares("lib", (("er",),))):
        listed = whole(handle, shares)
        assert listed == whole(handle)
        assert not any(b"secret" in line for line in listed)


def test_shares_follow_where_the_entries_are(place, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    for number in range(90):
        path = place / "all" / "src" / f"d{number % 9}"
        path.mkdir(parents=True, exist_ok=True)
        (path / f"f{number}").write_text("")
    handle = os.open(place, walk.DIRECTORY)
    try:
        few = listing.lines(handle, LIMITS)
        assert few is not None
        assert few.again() == ALONE  # not worth a process
        monkeypatch.setattr(listing, "SHARED_MIN", 1)
        shares = few.again()
        assert shares.base == "all/src"
        assert len(shares.names) == 2
        shared = listing.lines(handle, LIMITS, shares)
        assert shared is not None
        assert set(shared.lines()) == set(few.lines())
        assert max(map(len, shared.parts)) < len(few) / 2
        assert shared.again() == shares
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
        assert few.again() == ALONE
    finally:
        os.close(handle)


def test_a_part_that_cannot_be_listed_is_no_answer(tree, monkeypatch):
    place, handle = tree
    shares = Shares("", (("src",), ("lib",)))
    program = Path(place) / "docs" / "find"
    program.write_text(f'#!/bin/sh\n[ "$1" != lib ] || exit 1\nexec {listing.FIND} "$@"\n')
    program.chmod(0o755)
    assert listing.lines(handle, LIMITS, shares) is not None
    monkeypatch.setattr(listing, "FIND", str(program))
    assert listing.lines(handle, LIMITS, shares) is None
    assert listing.lines(handle, LIMITS) is not None
