"""The fast ways of reading a journal see what the slow one sees: columns, learnt shapes, and a second process."""

import random
from pathlib import Path
from typing import Any

import evidence
import pytest
import tampering
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_tamper import kinds

from inbounds.contracts.units import INTEGER_MAX
from inbounds.journal import chain, manifest, verify
from inbounds.journal.apart import Apart
from inbounds.journal.chain import ChainError, blocks
from inbounds.journal.contents import Contents
from inbounds.journal.links import Links
from inbounds.journal.manifest import Derivation
from inbounds.journal.merkle import root
from inbounds.journal.shapes import Columns
from inbounds.journal.tally import Calls
from inbounds.journal.verify import verify_run

TEXTS = st.text(max_size=8)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-INTEGER_MAX, INTEGER_MAX) | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
KINDS = ("model.usage", "tool.called", "denial", "verdict", "x")
STEPS = st.lists(st.tuples(st.sampled_from(KINDS), st.dictionaries(TEXTS, VALUES, max_size=3)), min_size=1, max_size=12)


def written(path: Path, steps: list[tuple[str, dict[str, Any]]], start: int = evidence.START) -> list[chain.Record]:
    prev, made = chain.GENESIS, []
    with path.open("wb") as file:
        for seq, (kind, data) in enumerate(steps):
            record, line = chain.encode(seq, start + seq, kind, data, prev)
            prev = record.hash
            made.append(chain.decode(line[:-1]))
            file.write(line)
    return made


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, times=st.integers(1, 30), start=st.sampled_from([0, 999, evidence.START, 10**13 - 5, 10**14]))
def test_shapes_read_what_the_decoder_reads(tmp_path: Path, steps: Any, times: int, start: int) -> None:
    path = tmp_path / "journal.jsonl"
    made = written(path, steps * times, start)
    contents = Contents(frozenset(KINDS))
    found: list[chain.Record | Columns] = []
    for lines in blocks(path):
        found += contents.read(lines)
    assert found == made


def test_a_known_shape_takes_nothing_that_is_not_canonical(tmp_path: Path) -> None:
    """Each of these is one edit away from a line whose shape is known by then; the hash is right."""
    import hashlib

    path = tmp_path / "journal.jsonl"
    made = written(path, [("model.usage", {"a": "text", "b": 7, "c": True})] * 40)
    line = chain.encode(40, evidence.START + 40, "model.usage", {"a": "text", "b": 7, "c": True}, made[-1].hash)[1][:-1]
    end = line.rindex(b',"hash":"')
    for old, new in (
        (b'"b":7', b'"b":07'), (b'"b":7', b'"b":7.0'), (b'"b":7', b'"b":-0'), (b'"b":7', b'"b":9007199254740993'),
        (b'"b":7', b'"b": 7'), (b'"text"', b'"te\\u0078t"'), (b'"text"', b'"te\xff"'), (b'"text"', b'"a","a":"b"'),
        (b'"c":true', b'"c":True'), (b'"c":true', b'"c":true,"b":1'), (b'{"a"', b'{"b":1,"a"'), (b"}", b",}"),
        (b'{"at_ms":1', b'{"at_ms":01'), (b'"data"', b'"at_ms":1,"data"'),
    ):  # fmt: skip
        head, tail = line[:end].replace(old, new, 1), line[end + 74 :]
        assert head != line[:end]
        digest = hashlib.sha256(b"\0" + head + tail).hexdigest().encode()
        bad = head + b',"hash":"' + digest + b'"' + tail
        contents = Contents(frozenset({"model.usage"}))
        for lines in blocks(path):
            assert len(list(contents.read(lines))) == 40
        with pytest.raises(ChainError):
            list(contents.read([bad]))


def counted(steps: list[tuple[str, dict[str, Any]]], path: Path) -> tuple[dict[str, Any], int]:
    """The manifest by way of columns, and how many records came in columns."""
    made = written(path, steps)
    derivation, many = Derivation(), 0
    contents = Contents(manifest.KINDS, Calls.MANY, Calls.APART)
    for lines in blocks(path):
        for found in contents.read(lines):
            if isinstance(found, Columns):
                many += len(found.rows)
                for group in found.groups():
                    derivation.calls.many(found.kind, *group)
            else:
                derivation.take(found)
    return derivation.made(made[-1].seq, made[-1].hash, len(made)), many


@pytest.mark.parametrize("seed", range(6))
def test_columns_count_what_single_records_count(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    steps: list[tuple[str, dict[str, Any]]] = evidence.good_run()[:4]
    for n in range(1, 8):
        first, *rest = evidence.iteration(n, 5, 3, n * 100_000)
        steps.append(first)
        for _ in range(60):
            usage = evidence.usage(rng.randrange(10**6), n, rng.randrange(900))
            odd: dict[str, Any] = rng.choice(
                [{}, {}, {}, {"model": "other"}, {"state": "unknown"}, {"state": "settled"}, {"host": "b.example"},
                 {"cost_micro_usd": -5}, {"tool_calls": "three"}, {"model": 7}, {"spent_micro_usd": None}]
            )  # fmt: skip
            steps.append(("model.usage", {**usage, **odd}))
            steps.append(("tool.called", {"tool": rng.choice("ab"), "outcome": rng.choice(["ok", "refused"]), "ms": 5}))
            steps.append(
                ("external.call", {"host": rng.choice("xy"), "purpose": "index", "bytes_in": rng.randrange(9)})
            )
            steps.append(("denial", {"kind": "name", "detail": rng.choice("pq"), "sensitive": False}))
        steps += rest
    found, many = counted(steps, tmp_path / "journal.jsonl")
    records = list(chain.records(tmp_path / "journal.jsonl"))
    assert found == manifest.derive(records)
    assert many > len(steps) // 3, "or this compares a thing with itself"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(verify, "APART_BYTES_MIN", 0)
    return evidence.write(tmp_path, evidence.two_legs())


def test_two_processes_find_what_one_finds(run: Path) -> None:
    assert verify_run(run, processes=2) == verify_run(run)
    assert verify_run(run, processes=2).ok
    for one in (tampering.edit_a_byte, tampering.splice, tampering.truncate_in_a_line, tampering.doubled_key):
        raw = (run / "journal.jsonl").read_bytes()
        one(run)
        assert kinds(verify_run(run, processes=2)) == kinds(verify_run(run)) != {}
        (run / "journal.jsonl").write_bytes(raw)


def test_a_reader_that_dies_is_no_sound_chain(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(self: Links, lines: list[bytes]) -> None:
        raise MemoryError

    monkeypatch.setattr(Links, "take", dies)
    found = verify_run(run, processes=2)
    assert not found.ok
    assert "died" in found.checks[0].detail


def test_links_of_many_blocks(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    made = written(path, [("denial", {"detail": "x" * (n % 700)}) for n in range(4_000)])
    leaves = [bytes.fromhex(record.hash) for record in made]
    sizes = frozenset({1, 2, 511, 512, 1_500, 3_999, 4_000, 5_000})
    for links in (Links(frozenset({0, 700, 3_999, 9_999}), sizes, frozenset({made[5].hash, "00" * 32})),):
        apart = Apart(Links(frozenset({0, 700, 3_999, 9_999}), sizes, frozenset({made[5].hash, "00" * 32})))
        for lines in blocks(path):
            links.take(lines)
            apart.take(lines)
        found, broken = links.end()
        assert apart.end() == (found, None)
        assert broken is None
        assert (found.records, found.head) == (4_000, made[-1].hash)
        assert found.hashes == {seq: made[seq].hash for seq in (0, 700, 3_999)}
        assert found.heads == {made[5].hash}
        assert found.roots == {size: root(leaves[:size]) for size in sizes if size <= 4_000}
