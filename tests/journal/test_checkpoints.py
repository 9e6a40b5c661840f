"""Checkpoints and anchors of a real writer: what is signed is the tree that anybody can rebuild from the lines."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inbounds.contracts.errors import HostError
from inbounds.journal import anchor, append_only, chain, merkle, note
from inbounds.journal.anchor import Anchor
from inbounds.journal.signing import Signer
from inbounds.journal.writer import ANCHORED, DECISIONS, Journal

AT = 1_795_216_500_000
RUN = "20261120-231500-a1b2c3"
SIGNER = Signer(bytes(range(32)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / RUN / "journal.jsonl"


def written(path: Path) -> list[chain.Record]:
    return list(chain.linked(chain.records(path, canonical_form=True)))


def check(found: list[chain.Record]) -> int:
    """Every checkpoint is over the records before it and signed; how many there are."""
    leaves = [bytes.fromhex(record.hash) for record in found]
    stated = [record for record in found if record.kind == "journal.checkpoint"]
    for record in stated:
        assert record.data["size"] == record.seq
        root = merkle.root(leaves[: record.seq])
        assert record.data["root"] == root.hex()
        text = note.opened(record.data["note"], SIGNER.key)
        assert note.parse_checkpoint(text) == (f"inbounds.invalid/run/{RUN}", record.seq, root)
    return len(stated)


def kept(path: Path) -> tuple[Anchor, ...]:
    place = anchor.beside(path.parent)
    assert place is not None
    return anchor.read(place)


@pytest.mark.parametrize("kind", sorted(ANCHORED))
def test_a_decision_that_matters_is_signed_synced_and_anchored(path: Path, kind: str) -> None:
    given: list[Anchor] = []
    with Journal.open(path, at_ms=AT, signer=SIGNER, on_anchor=given.append) as journal:
        journal.append("denial", {}, AT)
        record = journal.append(kind, {"n": 1}, AT + 5)
        assert record.kind == kind
        assert journal.head == (3, journal.head[1])
    found = written(path)
    assert [r.kind for r in found] == ["journal.opened", "denial", kind, "journal.checkpoint"]
    assert check(found) == 1
    last = found[-1]
    expected = Anchor(3, last.hash, "", 3, last.data["root"], last.data["note"], AT + 5)
    assert given == [expected]
    assert [(a.seq, a.hash, a.size, a.root, a.note, a.at_ms) for a in kept(path)] == [
        (3, last.hash, 3, last.data["root"], last.data["note"], AT + 5)
    ]


def test_what_is_anchored_is_a_decision_and_what_reopens_a_run_is_both() -> None:
    assert ANCHORED < DECISIONS
    assert {"run.reauthorized", "contract.amended", "run.recovered"} <= ANCHORED


def test_without_a_signer_there_is_no_checkpoint_and_the_anchor_is_a_head(path: Path) -> None:
    given: list[Anchor] = []
    with Journal.open(path, at_ms=AT, on_anchor=given.append) as journal:
        journal.append("run.accepted", {}, AT)
    found = written(path)
    assert [record.kind for record in found] == ["journal.opened", "run.accepted"]
    assert given == [Anchor(1, found[1].hash, "", at_ms=AT)]
    assert kept(path) == (Anchor(1, found[1].hash, f"{RUN}.jsonl", at_ms=AT),)


def test_an_anchor_by_request_is_over_everything_and_no_checkpoint_is_made_twice(path: Path) -> None:
    with Journal.open(path, at_ms=AT, signer=SIGNER) as journal:
        journal.append("run.finished", {}, AT)
        journal.keep_anchor()
        journal.keep_anchor()
        journal.append("notice.sent", {}, AT)
        journal.keep_anchor()
    found = written(path)
    assert [r.kind for r in found[1:]] == ["run.finished", "journal.checkpoint", "notice.sent", "journal.checkpoint"]
    assert check(found) == 2
    assert [a.seq for a in kept(path)] == [2, 2, 2, 4]


def test_the_tree_goes_on_where_another_writer_left_it(path: Path) -> None:
    for round_ in range(4):
        with Journal.open(path, at_ms=AT, signer=SIGNER if round_ != 2 else None) as journal:
            for n in range(5):
                journal.append("denial", {"n": n}, AT)
            journal.append("operator.decision", {}, AT)
    assert check(written(path)) == 3
    with Journal.open(path, at_ms=AT, signer=SIGNER) as journal:
        journal.keep_anchor()  # the last record is a checkpoint already
        assert [a.seq for a in kept(path)][-2:] == [journal.head[0]] * 2


def test_a_checkpoint_of_another_tree_is_not_written_on(path: Path) -> None:
    with Journal.open(path, at_ms=AT) as journal:
        journal.append("denial", {}, AT)
        journal.append("journal.checkpoint", {"size": 2, "root": "0" * 64, "note": ""}, AT)
    with pytest.raises(HostError, match="checkpoint: record 2 is of another tree"):
        Journal.open(path)


def test_what_cannot_be_handed_on_is_heard(path: Path) -> None:
    def refuse(_: Anchor) -> None:
        raise HostError("the ledger is gone")

    with Journal.open(path, at_ms=AT, signer=SIGNER, on_anchor=refuse) as journal:
        with pytest.raises(HostError, match="ledger"):
            journal.append("run.accepted", {}, AT)
        assert kept(path)[0].seq == 2  # the file had it first


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"1",
        b"\xff",
        b"[" * 100_000,
        b'{"seq":1}',
        b'{"seq":-1,"hash":"%b"}' % (b"0" * 64),
        b'{"seq":true,"hash":"%b"}' % (b"0" * 64),
        b'{"seq":1.0,"hash":"%b"}' % (b"0" * 64),
        b'{"seq":1,"hash":"%b"}' % (b"0" * 63),
        b'{"seq":1,"hash":"%b","at_ms":"x"}' % (b"0" * 64),
        b'{"seq":1,"hash":"%b","size":1}' % (b"0" * 64),
        b'{"seq":1,"hash":"%b","size":1,"root":"%b"}' % (b"0" * 64, b"0" * 64),
        b'{"seq":1,"hash":"%b","size":3,"root":"%b","note":"x"}' % (b"0" * 64, b"0" * 64),
        b'{"seq":1,"hash":"%b","size":0,"root":"%b","note":"x"}' % (b"0" * 64, b"0" * 64),
        b'{"seq":1,"hash":"%b","size":1,"root":"%b","note":"%b"}' % (b"0" * 64, b"0" * 64, b"x" * 20_000),
    ],
)
def test_what_is_no_anchor_is_refused(tmp_path: Path, line: bytes) -> None:
    place = tmp_path / "anchors.jsonl"
    good = b'{"seq":1,"hash":"%b","size":1,"root":"%b","note":"x"}\n' % (b"0" * 64, b"0" * 64)
    place.write_bytes(good)
    assert anchor.read(place) == (Anchor(1, "0" * 64, "anchors.jsonl", 1, "0" * 64, "x"),)
    place.write_bytes(good + line + b"\n")
    with pytest.raises(ValueError, match=":2 is no anchor"):
        anchor.read(place)


def test_an_anchor_reads_back() -> None:
    for made in (Anchor(4, "a" * 64, "x"), Anchor(4, "a" * 64, "x", 4, "b" * 64, "n\n\n— é\n", 7)):
        assert anchor.parse(made.line(), "x") == made
        assert json.loads(made.line())["seq"] == 4


@pytest.fixture
def protectable(path: Path) -> Iterator[Path]:
    """A place whose file system has the attribute and whose account may set it; what was set is cleared whatever comes."""
    path.parent.mkdir(parents=True)
    probe = path.with_name("probe")
    fd = os.open(probe, os.O_RDWR | os.O_CREAT, 0o600)
    why = append_only.protect(fd) or append_only.release(fd)
    os.close(fd)
    probe.unlink()
    if why:
        pytest.skip(f"the append-only attribute cannot be set here: {why}")
    try:
        yield path
    finally:
        assert append_only.release_path(path) == ""


def protected(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY)
    try:
        return append_only.is_set(fd)
    finally:
        os.close(fd)


def test_append_only_is_a_choice_and_its_absence_has_a_reason(path: Path) -> None:
    with Journal.open(path, at_ms=AT) as journal:
        assert journal.unprotected == "append-only was not asked for"
        assert not protected(path)
    with Journal.open(path, at_ms=AT, append_only=True) as journal:
        assert protected(path) == (journal.unprotected == "")
        journal.append("denial", {}, AT)
    assert not protected(path)
    assert append_only.release_path(path) == append_only.release_path(path.with_name("none")) == ""


@pytest.mark.without("journal-append-only")
def test_while_it_is_written_only_additions_are_taken(protectable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.environ.get("INBOUNDS_TEST_WITHOUT") == "journal-append-only":
        monkeypatch.setattr(Journal, "_protect", lambda _: None)
    attempts: list[Any] = [
        lambda: os.truncate(protectable, 5),
        lambda: protectable.write_bytes(b"other"),
        protectable.unlink,
        lambda: protectable.rename(protectable.with_name("away")),
        lambda: protectable.with_name("other").replace(protectable),
        lambda: os.link(protectable, protectable.with_name("second")),
    ]
    protectable.with_name("other").write_text("")
    with Journal.open(protectable, at_ms=AT, signer=SIGNER, append_only=True) as journal:
        journal.append("run.accepted", {}, AT)
        for attempt in attempts:
            with pytest.raises(PermissionError):
                attempt()
        journal.append("run.finished", {}, AT)
    assert check(written(protectable)) == 2
    protectable.unlink()


CHILD = """
import os, signal, sys
from pathlib import Path
from inbounds.journal.writer import Journal
journal = Journal.open(Path(sys.argv[1]), append_only=True)
journal.append("denial", {"text": "x" * 200})
os.write(journal._fd, b'{"at_ms":17')
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_protected_file_of_a_dead_writer_is_repaired_and_can_be_let_go(protectable: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CHILD, str(protectable)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert protected(protectable)
    with Journal.open(protectable, append_only=True) as journal:
        assert protected(protectable)
        assert journal.unprotected == ""
    found = written(protectable)
    assert [record.kind for record in found] == ["journal.opened", "denial", "journal.recovered"]
    assert found[-1].data["torn"]["bytes"] == 11
    assert not protected(protectable)


def test_a_partial_write_is_taken_back_from_a_protected_file_too(protectable: Path) -> None:
    script = f"""
import resource, signal
from pathlib import Path
from inbounds.contracts.errors import HostError
from inbounds.journal import append_only
from inbounds.journal.writer import Journal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal.open(Path({str(protectable)!r}), append_only=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
try:
    while True:
        journal.append("denial", {{"text": "x" * 7_001}})
except HostError:
    pass
assert append_only.is_set(journal._fd)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append("denial", {{"text": "after"}})
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert written(protectable)[-1].data == {"text": "after"}
    assert append_only.release_path(protectable) == ""  # the script died without a close


def test_a_file_system_without_the_attribute_is_no_obstacle() -> None:
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("/dev/shm cannot be written")
    # A tmpfs on every Linux; before 6.6 it keeps no such attribute.
    with tempfile.TemporaryDirectory(prefix="inbounds-test-", dir="/dev/shm") as place:
        path = Path(place) / "journal.jsonl"
        with Journal.open(path, at_ms=AT, append_only=True) as journal:
            journal.append("denial", {}, AT)
            assert protected(path) == (journal.unprotected == "")
        assert [record.kind for record in written(path)] == ["journal.opened", "denial"]
