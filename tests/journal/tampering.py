"""What a hostile hand can do to a finished run's evidence: each manipulation, and the kind by which it must be found.

The hand has all the time it needs, a program that writes sound chains, and keys of its own; not the journal's key.
`both` is False where only the first verifier looks (the manifest).
"""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import evidence

from inbounds.contracts.canonical import canonical
from inbounds.journal import anchor, chain
from inbounds.journal.merkle import Tree
from inbounds.journal.note import ORIGIN, Checkpoint
from inbounds.journal.signing import Signer

Steps = list[tuple[int, str, dict[str, Any]]]
OTHER = "20261120-000000-ffffff"
MALLORY = Signer(b"mallory's key, made for tests!!!")


def lines(run: Path) -> list[bytes]:
    return (run / "journal.jsonl").read_bytes().splitlines(keepends=True)


def put(run: Path, found: list[bytes]) -> None:
    (run / "journal.jsonl").write_bytes(b"".join(found))


def steps(run: Path) -> Steps:
    return [(r.at_ms, r.kind, copy.deepcopy(r.data)) for r in evidence.read(run)]


def at(run: Path, kind: str, nth: int = 0) -> int:
    return [r.seq for r in evidence.read(run) if r.kind == kind][nth]


def anchors(run: Path) -> Path:
    place = anchor.beside(run)
    assert place is not None
    return place


def other_run(run: Path) -> Path:
    """Another run of the same state directory's key."""
    data = evidence.good_run()
    data[0][1]["run_id"] = OTHER
    data.insert(6, ("denial", {"kind": "name", "detail": "elsewhere.example", "sensitive": False}))
    return evidence.write(run.parents[2] / "other", data, run_id=OTHER)


def rehashed(line: bytes, old: bytes, new: bytes) -> bytes:
    """The line with one change and its own hash computed anew."""
    assert old in line
    record = json.loads(line.replace(old, new, 1))
    return chain.encode(record["seq"], record["at_ms"], record["kind"], record["data"], record["prev"])[1]


def resigned(run: Path, found: Steps, signer: Signer) -> None:
    """A whole new journal, sound in itself, its checkpoints signed anew by somebody else."""
    tree, prev, made = Tree(), chain.GENESIS, []
    for seq, (at_ms, kind, data) in enumerate(found):
        if kind == "journal.checkpoint":
            note = signer.sign(str(Checkpoint(f"{ORIGIN}{run.name}", seq, tree.root())))
            data = {"size": seq, "root": tree.root().hex(), "note": note}  # noqa: PLW2901 - the old ones are dropped
        record, line = chain.encode(seq, at_ms, kind, data, prev)
        prev = record.hash
        tree.append(bytes.fromhex(record.hash))
        made.append(line)
    put(run, made)
    evidence.close(run)


def replace(run: Path, name: str, old: bytes, new: bytes) -> None:
    raw = (run / name).read_bytes()
    assert old in raw
    (run / name).write_bytes(raw.replace(old, new, 1))


# -- single lines --


def edit_a_byte(run: Path) -> None:
    replace(run, "journal.jsonl", b'"cost_micro_usd":41000', b'"cost_micro_usd":41001')


def edit_and_rehash(run: Path) -> None:
    found = lines(run)
    n = at(run, "model.usage")
    found[n] = rehashed(found[n], b'"cost_micro_usd":41000', b'"cost_micro_usd":1')
    put(run, found)


def edit_the_hash(run: Path) -> None:
    found = lines(run)
    n = at(run, "denial")
    here = found[n].index(b'"hash":"') + 8
    found[n] = found[n][:here] + bytes([found[n][here] ^ 1]) + found[n][here + 1 :]
    put(run, found)


def change_time(run: Path) -> None:
    found = lines(run)
    found[9] = found[9].replace(b'{"at_ms":17', b'{"at_ms":18', 1)
    put(run, found)


def change_kind(run: Path) -> None:
    found = lines(run)
    n = at(run, "denial")
    found[n] = found[n].replace(b'"kind":"denial"', b'"kind":"notice"')
    put(run, found)


def delete_first(run: Path) -> None:
    put(run, lines(run)[1:])


def delete_middle(run: Path) -> None:
    found = lines(run)
    del found[at(run, "denial")]
    put(run, found)


def delete_many(run: Path) -> None:
    found = lines(run)
    del found[10:30]
    put(run, found)


def delete_last(run: Path) -> None:
    put(run, lines(run)[:-1])


def reorder(run: Path) -> None:
    found = lines(run)
    n = at(run, "verdict")
    found[n], found[n + 1] = found[n + 1], found[n]
    put(run, found)


def duplicate(run: Path) -> None:
    found = lines(run)
    n = at(run, "verdict")
    put(run, [*found[: n + 1], *found[n:]])


def replay(run: Path) -> None:
    found = lines(run)
    n = at(run, "verdict")
    put(run, [*found[: n + 5], found[n], *found[n + 5 :]])


def insert(run: Path) -> None:
    found = lines(run)
    n = at(run, "denial")
    before = json.loads(found[n - 1])
    data = {"judge": "tests", "n": 1, "outcome": "PASS"}
    new = chain.encode(n, before["at_ms"], "verdict", data, before["hash"])[1]
    put(run, [*found[:n], new, *found[n:]])


def splice(run: Path) -> None:
    found, n = lines(run), at(run, "denial")
    found[n] = lines(other_run(run))[n]
    put(run, found)


def splice_the_tail(run: Path) -> None:
    found, n = lines(run), at(run, "denial")
    put(run, [*found[:n], *lines(other_run(run))[n:]])


# -- the end of the file --


def truncate(run: Path) -> None:
    put(run, lines(run)[: at(run, "stop.decided") - 1])


def truncate_and_derive(run: Path) -> None:
    truncate(run)
    evidence.close(run)


def truncate_in_a_line(run: Path) -> None:
    (run / "journal.jsonl").write_bytes((run / "journal.jsonl").read_bytes()[:-30])


def roll_back(run: Path) -> None:
    """The file of an hour ago, as it was when its head was kept elsewhere, put back with the manifest of then."""
    put(run, lines(run)[: at(run, "commit.made") + 2])
    evidence.close(run)


def roll_back_a_leg(run: Path) -> None:
    put(run, lines(run)[: at(run, "run.finished") + 2])
    evidence.close(run)


def trailing_garbage(run: Path) -> None:
    with (run / "journal.jsonl").open("ab") as file:
        file.write(b"\0" * 100 + b"\n")


def append_a_record(run: Path) -> None:
    last = evidence.read(run)[-1]
    with (run / "journal.jsonl").open("ab") as file:
        file.write(chain.encode(last.seq + 1, last.at_ms, "promotion.decided", {"outcome": "promoted"}, last.hash)[1])
    evidence.close(run)


# -- the whole file --


def whole_other_journal(run: Path) -> None:
    other = other_run(run)
    for name in ("journal.jsonl", "manifest.json"):
        shutil.copy(other / name, run / name)
    shutil.copy(anchors(other), anchors(run))  # even the anchors were replaced


def rewrite(run: Path) -> None:
    evidence.rechained(run, [step for step in steps(run) if step[1] != "denial"])
    evidence.close(run)


def forge_a_result(run: Path) -> None:
    found = steps(run)
    for _, kind, data in found:
        if kind == "iteration.finished":
            data["failing_after"] = 0
    evidence.rechained(run, found)
    evidence.close(run)


def rewrite_with_another_key(run: Path) -> None:
    resigned(run, [step for step in steps(run) if step[1] != "denial"], MALLORY)


def replace_the_key(run: Path) -> None:
    found = steps(run)
    found[at(run, "run.accepted")][2]["journal_key"] = str(MALLORY.key)
    resigned(run, found, MALLORY)
    anchors(run).write_bytes(b"")
    last = evidence.read(run)[-1]
    anchors(run).write_bytes(anchor.Anchor(last.seq, last.hash, "").line())


def drop_the_key(run: Path) -> None:
    found = steps(run)
    del found[at(run, "run.accepted")][2]["journal_key"]
    evidence.rechained(run, found)


def fork(run: Path) -> None:
    """Whoever has the journal's key and an older copy goes on from it: two heads, each of them signed."""
    found = steps(run)
    n = at(run, "iteration.finished", 1)
    found[n][2]["failing_after"] = 0
    resigned(run, found, evidence.SIGNER)


def set_time_back(run: Path) -> None:
    found = steps(run)
    found[5] = (found[4][0] - 1, *found[5][1:])
    evidence.rechained(run, found)


def second_journal(run: Path) -> None:
    found = steps(run)
    evidence.rechained(run, [*found, (found[-1][0], "journal.opened", {"version": 2})])


def other_format(run: Path) -> None:
    found = steps(run)
    found[0][2]["version"] = 3
    evidence.rechained(run, found)


def empty(run: Path) -> None:
    put(run, [])


def gone(run: Path) -> None:
    (run / "journal.jsonl").unlink()


# -- checkpoints, keys, anchors --


def change_checkpoint(run: Path, change: Callable[[dict[str, Any], Steps], None], nth: int = 2) -> None:
    found = steps(run)
    change(found[at(run, "journal.checkpoint", nth)][2], found)
    evidence.rechained(run, found)


def note_of_another_size(run: Path) -> None:
    earlier = steps(run)[at(run, "journal.checkpoint", 1)][2]
    change_checkpoint(run, lambda data, _: data.update(note=earlier["note"]))


def checkpoint_of_another_size(run: Path) -> None:
    earlier = steps(run)[at(run, "journal.checkpoint", 1)][2]
    change_checkpoint(run, lambda data, _: data.update(earlier))


def note_of_another_run(run: Path) -> None:
    other = other_run(run)
    note = steps(other)[at(other, "journal.checkpoint", 2)][2]["note"]
    change_checkpoint(run, lambda data, _: data.update(note=note))


def swap_signatures(run: Path) -> None:
    signature = steps(run)[at(run, "journal.checkpoint", 1)][2]["note"].split("\n\n")[1]
    change_checkpoint(run, lambda data, _: data.update(note=data["note"].split("\n\n")[0] + "\n\n" + signature))


def note_by_another_key(run: Path) -> None:
    text = steps(run)[at(run, "journal.checkpoint", 2)][2]["note"].split("\n\n")[0] + "\n"
    change_checkpoint(run, lambda data, _: data.update(note=MALLORY.sign(text)))


def another_root(run: Path) -> None:
    change_checkpoint(run, lambda data, _: data.update(root="00" * 32))


def remove_last_checkpoint(run: Path) -> None:
    evidence.rechained(run, [step for step in steps(run) if step[1] != "journal.checkpoint"])
    last = evidence.read(run)[-1]
    anchors(run).write_bytes(anchor.Anchor(last.seq, last.hash, "").line())


def other_public_key(run: Path) -> None:
    (run.parents[1] / "keys" / "journal.pub").write_text(f"{MALLORY.key}\n")


def remove_anchors(run: Path) -> None:
    anchors(run).unlink()


def remove_last_anchors(run: Path) -> None:
    anchors(run).write_bytes(anchors(run).read_bytes().splitlines(keepends=True)[0])


def change_anchor(run: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    found = [json.loads(line) for line in anchors(run).read_bytes().splitlines()]
    change(found)
    anchors(run).write_bytes(b"".join(canonical(value) + b"\n" for value in found))


def anchor_of_another_hash(run: Path) -> None:
    change_anchor(run, lambda found: found[-1].update(hash="00" * 32))


def anchor_of_another_root(run: Path) -> None:
    change_anchor(run, lambda found: found[-1].update(root="00" * 32))


def anchor_with_another_note(run: Path) -> None:
    change_anchor(run, lambda found: found[-1].update(note=found[-2]["note"]))


def anchor_that_is_none(run: Path) -> None:
    anchors(run).write_text('{"seq": "x"}\n')


def two_heads_outside(run: Path) -> None:
    change_anchor(run, lambda found: found.append({**found[-1], "hash": "11" * 32}))


# -- encodings --


def recoded(run: Path, change: Callable[[bytes], bytes]) -> None:
    """One line written in another way, its hash and all that follows computed anew: the chain is sound."""
    import hashlib

    prev, made = chain.GENESIS, []
    for n, (at_ms, kind, data) in enumerate(steps(run)):
        line = chain.encode(n, at_ms, kind, data, prev)[1].rstrip(b"\n")
        end = line.rindex(b',"hash":"')
        head, tail = line[:end], line[end + 74 :]
        head = change(head) if n == 9 else head
        prev = hashlib.sha256(b"\0" + head + tail).hexdigest()
        made.append(head + b',"hash":"' + prev.encode() + b'"' + tail + b"\n")
    put(run, made)


def blank_in_a_line(run: Path) -> None:
    recoded(run, lambda head: head.replace(b'"data":{', b'"data":{ ', 1))


def doubled_key(run: Path) -> None:
    recoded(run, lambda head: head[:-1] + b',"z":1,"z":2}')


def not_a_number(run: Path) -> None:
    recoded(run, lambda head: head[:-1] + b',"z":NaN}')


def a_float(run: Path) -> None:
    recoded(run, lambda head: head[:-1] + b',"z":1.0}')


def escaped_letter(run: Path) -> None:
    recoded(run, lambda head: head[:-1] + b',"z":"\\u0041"}')


def unsorted_keys(run: Path) -> None:
    recoded(run, lambda head: head.replace(b'"data":{', b'"data":{"zz":1,', 1))


def deep_nesting(run: Path) -> None:
    recoded(run, lambda head: head[:-1] + b',"z":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def huge_line(run: Path) -> None:
    recoded(run, lambda head: head[:-1] + b',"z":"' + b"a" * (5 << 20) + b'"}')


def windows_line_ends(run: Path) -> None:
    put(run, [line.replace(b"\n", b"\r\n") for line in lines(run)])


def byte_order_mark(run: Path) -> None:
    put(run, [b"\xef\xbb\xbf", *lines(run)])


# -- the files beside it --


def edit_manifest(run: Path) -> None:
    value = json.loads((run / "manifest.json").read_bytes())
    value["cost"]["spent_micro_usd"] = 1
    (run / "manifest.json").write_bytes(canonical(value) + b"\n")


def lose_manifest(run: Path) -> None:
    (run / "manifest.json").unlink()


def nest_manifest(run: Path) -> None:
    (run / "manifest.json").write_bytes(b"[" * 200_000)


def edit_contract(run: Path) -> None:
    replace(run, "contract.json", b'"budget_micro_usd":5000000', b'"budget_micro_usd":9000000')


def lose_contract(run: Path) -> None:
    (run / "contract.json").unlink()


def edit_blast_radius(run: Path) -> None:
    (run / "blast_radius.json").write_bytes(canonical({**evidence.RADIUS, "network": []}))


class Tampering(NamedTuple):
    """`check` and `kind` are what both verifiers must say."""

    do: Callable[[Path], None]
    check: str
    kind: str
    both: bool = True


ALL = (
    Tampering(edit_a_byte, "chain", "edited"),
    Tampering(edit_and_rehash, "chain", "edited"),
    Tampering(edit_the_hash, "chain", "edited"),
    Tampering(change_time, "chain", "edited"),
    Tampering(change_kind, "chain", "edited"),
    Tampering(delete_first, "chain", "removed"),
    Tampering(delete_middle, "chain", "removed"),
    Tampering(delete_many, "chain", "removed"),
    Tampering(delete_last, "anchors", "truncated"),
    Tampering(reorder, "chain", "reordered"),
    Tampering(duplicate, "chain", "replayed"),
    Tampering(replay, "chain", "replayed"),
    Tampering(insert, "chain", "inserted"),
    Tampering(splice, "chain", "spliced"),
    Tampering(splice_the_tail, "chain", "spliced"),
    Tampering(truncate, "anchors", "truncated"),
    Tampering(truncate_and_derive, "anchors", "truncated"),
    Tampering(truncate_in_a_line, "anchors", "truncated"),
    Tampering(roll_back, "anchors", "rolled back"),
    Tampering(trailing_garbage, "chain", "malformed"),
    Tampering(append_a_record, "anchors", "anchors removed"),
    Tampering(whole_other_journal, "identity", "of another run"),
    Tampering(rewrite, "anchors", "rewritten"),
    Tampering(forge_a_result, "anchors", "rewritten"),
    Tampering(rewrite_with_another_key, "checkpoints", "another key"),
    Tampering(rewrite_with_another_key, "anchors", "rewritten"),
    Tampering(replace_the_key, "key", "another key"),
    Tampering(drop_the_key, "key", "no key"),
    Tampering(fork, "anchors", "fork"),
    Tampering(set_time_back, "chain", "time set back"),
    Tampering(second_journal, "version", "two runs"),
    Tampering(other_format, "version", "other format"),
    Tampering(empty, "chain", "empty"),
    Tampering(gone, "chain", "gone"),
    Tampering(note_of_another_size, "checkpoints", "note of another size"),
    Tampering(checkpoint_of_another_size, "checkpoints", "note of another size"),
    Tampering(note_of_another_run, "checkpoints", "of another run"),
    Tampering(swap_signatures, "checkpoints", "bad signature"),
    Tampering(note_by_another_key, "checkpoints", "another key"),
    Tampering(another_root, "checkpoints", "note over another tree"),
    Tampering(remove_last_checkpoint, "checkpoints", "checkpoint removed"),
    Tampering(other_public_key, "key", "another key"),
    Tampering(remove_anchors, "anchors", "anchors removed"),
    Tampering(remove_last_anchors, "anchors", "anchors removed"),
    Tampering(anchor_of_another_hash, "anchors", "rewritten"),
    Tampering(anchor_of_another_root, "anchors", "anchor edited"),
    Tampering(anchor_with_another_note, "anchors", "note of another size"),
    Tampering(anchor_that_is_none, "anchors", "anchor edited"),
    Tampering(two_heads_outside, "anchors", "fork"),
    Tampering(blank_in_a_line, "chain", "not canonical"),
    Tampering(doubled_key, "chain", "not canonical"),
    Tampering(not_a_number, "chain", "malformed"),
    Tampering(a_float, "chain", "malformed"),
    Tampering(escaped_letter, "chain", "not canonical"),
    Tampering(unsorted_keys, "chain", "not canonical"),
    Tampering(deep_nesting, "chain", "malformed"),
    Tampering(huge_line, "chain", "malformed"),
    Tampering(windows_line_ends, "chain", "malformed"),
    Tampering(byte_order_mark, "chain", "edited"),
    Tampering(edit_manifest, "manifest", "file edited", both=False),
    Tampering(lose_manifest, "manifest", "file edited", both=False),
    Tampering(nest_manifest, "manifest", "file edited", both=False),
    Tampering(edit_contract, "contract", "file edited"),
    Tampering(lose_contract, "contract", "file edited"),
    Tampering(edit_blast_radius, "blast radius", "file edited"),
)
