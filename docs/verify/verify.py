"""A second verifier of a run's evidence: Python's standard library and `openssl`; nothing of inbounds.

python3 -I verify.py RUN_DIR [--anchors FILE] [--key FILE]. Exit 0: nothing fails. What it checks and what it leaves to
others: README.md beside it. Written from ADR 9, not from the first verifier's code; slow, so that it can be short.
"""

import argparse
import base64
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

LINE = re.compile(
    rb'(.*),"hash":"([0-9a-f]{64})"'
    rb'(,"kind":"[a-z_]+(?:\.[a-z_]+)?","prev":"[0-9a-f]{64}","seq":(?:0|[1-9][0-9]*)\})'
)
MEMBERS = ["at_ms", "data", "hash", "kind", "prev", "seq"]
STEPS = ["lease_closed", "frozen", "persisted", "killed", "disposed"]
ENDS = {"kept": "keep", "reverted": "revert", "quarantined": "quarantine"}
STARTS = {"iteration.started", "gateway.started", "broker.started", "run.recovered"}
JUDGES = {"tester", "reviewer", "security"}
AFTER_END = {  # people, the gate and the journal's own
    "promotion.decided", "operator.decision", "contract.amended", "amendment.refused", "incident.recorded",
    "notice.sent", "verdict", "jail.started", "jail.exited", "work.discarded", "journal.recovered",
    "journal.migrated", "journal.clock_set_back", "journal.checkpoint",
}  # fmt: skip


class Fault(Exception):
    """What does not hold: kind, words."""


def no(*_):
    raise ValueError("a number that is no integer")


def canonical(value):
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def parse(line):
    """One line as a record whose own hash and form hold; Fault otherwise."""
    found = LINE.fullmatch(line)
    if not found or len(line) > 4 << 20:
        raise Fault("malformed", "no record")
    if hashlib.sha256(b"\0" + found[1] + found[3]).hexdigest().encode() != found[2]:
        raise Fault("edited", "its hash is another one")
    try:
        record = json.loads(line, parse_float=no, parse_constant=no)
        if sorted(record) != MEMBERS or not isinstance(record["data"], dict) or not 0 <= record["at_ms"] < 2**53:
            raise Fault("malformed", "other members than a record has")
        if canonical(record) != line:
            raise Fault("not canonical", "not in RFC 8785 form")
    except (ValueError, RecursionError) as error:
        raise Fault("malformed", str(error)[:100]) from None
    return record


def chain(content):
    """All records and None, or those before the first break and its Fault."""
    *lines, last = content.split(b"\n")
    records = []
    for n, line in enumerate(lines):
        before = records[-1] if records else {"hash": "0" * 64, "at_ms": 0}
        try:
            record = parse(line)
            if record["seq"] != n or record["prev"] != before["hash"]:
                raise Fault(broken(lines[n + 1 :], n, record, records, before), f"record {record['seq']}")
            if record["at_ms"] < before["at_ms"]:
                raise Fault("time set back", f"record {n}")
        except Fault as fault:
            return records, Fault(fault.args[0], f"line {n + 1}: {fault.args[1]}")
        records.append(record)
    fault = Fault("torn", "an unfinished last line") if last else None if records else Fault("empty", "0 records")
    return records, fault


def broken(behind, due, here, records, before):
    """The name of what a break shows; `behind` are the lines that follow it."""
    if here["seq"] < due:
        return "replayed" if records[here["seq"]]["hash"] == here["hash"] else "inserted"
    if here["seq"] > due:
        return "reordered" if any(b'"prev":"' + before["hash"].encode() in line for line in behind) else "removed"
    logs = [re.findall(rb'"note":"([^\\]+)', b"\n".join(some)) for some in (map(canonical, records), behind)]
    if set(logs[1]) - set(logs[0][:1]) or (behind and b'"prev":"' + here["hash"].encode() not in behind[0]):
        return "spliced"
    return "edited"


def root(leaves):
    """RFC 6962's tree hash: an odd last node moves up as it is."""
    while len(leaves) > 1:
        odd = leaves[-1:] if len(leaves) % 2 else []
        leaves = [hashlib.sha256(b"\1" + a + b).digest() for a, b in zip(leaves[::2], leaves[1::2], strict=False)] + odd
    return leaves[0]


def signed(note, run_id, size, tree, key):
    """A C2SP signed note with a tlog-checkpoint over exactly this tree, by this key: `openssl` says so."""
    body, _, below = note.rpartition("\n\n")
    first, stated, tree_hash = body.split("\n") if body.count("\n") == 2 else ("", "", "")
    kind = (
        "bad signature" if not first
        else "of another run" if first != f"inbounds.invalid/run/{run_id}"
        else "note of another size" if stated != str(size)
        else "note over another tree" if tree_hash != base64.b64encode(tree).decode()
        else "no key" if key is None else ""
    )  # fmt: skip
    if kind:
        raise Fault(kind, f"the note over {size} records")
    name, key_id, public = key
    lines = [line.split(" ")[2] for line in below.split("\n") if line.startswith(f"— {name} ")]
    raw = [base64.b64decode(line)[4:] for line in lines if base64.b64decode(line)[:4] == key_id]
    if not raw:
        raise Fault("another key", f"the note over {size} records is not signed by {name}")
    with tempfile.TemporaryDirectory() as place:
        at = [f"{place}/{file}" for file in ("key", "text", "signature")]
        der = bytes.fromhex("302a300506032b6570032100") + public  # RFC 8410: SubjectPublicKeyInfo of an Ed25519 key
        for file, content in zip(at, (der, f"{body}\n".encode(), raw[0]), strict=True):
            Path(file).write_bytes(content)
        argv = ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", at[0], "-rawin"]
        if subprocess.run([*argv, "-in", at[1], "-sigfile", at[2]], capture_output=True, check=False).returncode:
            raise Fault("bad signature", f"the note over {size} records")


def verifier_key(text):
    name, key_id, public = text.strip().split("+", 2)
    return name, bytes.fromhex(key_id), base64.b64decode(public)[1:]


def legs(records, wrong):
    """Stops in order, nothing behind them, and nothing behind an end that no re-authorization of that stop let on."""
    stop = closed = ended = None
    done, last, accepted, dead = [], [], 0, False
    for r in records:
        kind, data, step = r["kind"], r["data"], r["data"].get("step")
        accepted += kind == "run.accepted"
        if kind == "run.reauthorized" and ended and data.get("stop_hash") == stop["hash"]:
            stop = closed = ended = None
            done, last = [], []
        elif kind == "run.reauthorized":
            wrong("legs", "bound to another" if ended else "not re-authorized", f"record {r['seq']}")
        elif (ended and kind not in AFTER_END) or (kind == "run.recovered" and not dead):
            wrong("legs", "not re-authorized", f"record {r['seq']}: {kind}")
        dead = kind == "journal.recovered" or (dead and kind.startswith("journal."))
        if kind == "stop.decided":
            stop = stop or r
            if [stop["data"].get(name) for name in ("code", "disposal")] != [data.get("code"), data.get("disposal")]:
                wrong("stop sequence", "stop out of order", f"record {r['seq']} decides otherwise")
            done.append(kind)
        elif kind == "stop.step":
            closed = r["at_ms"] if closed is None and step == "lease_closed" else closed
            if data.get("ok") is not True:
                wrong("stop sequence", "stop incomplete", f"record {r['seq']}: {step}")
            if step in ENDS and stop and ENDS[step] != stop["data"].get("disposal"):
                wrong("stop sequence", "stop out of order", f"record {r['seq']}: {step}")
            done.append("disposed" if step in ENDS else step)
        elif stop and (kind in STARTS or (kind == "jail.started" and data.get("role") not in JUDGES)):
            wrong("stop sequence", "after the stop", f"record {r['seq']}: {kind}")
        elif closed is not None and kind in ("tool.called", "model.usage") and data.get("outcome") != "refused":
            if data.get("began_at_ms", r["at_ms"] - data.get("ms", -1)) > closed:
                wrong("stop sequence", "after the stop", f"record {r['seq']}: {kind}")
        if done and (kind in ("journal.recovered", "run.finished") or r is records[-1]):
            before = done[: done.index("stop.decided")] if "stop.decided" in done else done
            steps = [one for one in done if one != "stop.decided"]
            if steps != [one for one in STEPS if one in steps] or set(before) & set(STEPS[2:]) or len(done) > 6:
                wrong("stop sequence", "stop out of order", f"before record {r['seq']}")
            done, last = [], done
        if kind == "run.finished":
            if ended or not stop or stop["data"].get("code") != data.get("code"):
                wrong("ending", "two runs" if ended else "another end" if stop else "no end", f"record {r['seq']}")
            elif {"lease_closed", "persisted", "killed", "disposed"} - set(last):
                wrong("stop sequence", "stop incomplete", f"before record {r['seq']}")
            ended = r
    if accepted != 1 or not ended:
        wrong("ending", "no end" if accepted < 2 else "two runs", f"{accepted} records run.accepted")


def anchored(anchors, records, run_id, key, covered):
    """Heads kept elsewhere ({seq, hash, size, root, note}) are heads of this journal, and its end was seen."""
    hashes, seen = [r["hash"] for r in records], {}
    leaves = [bytes.fromhex(one) for one in hashes]
    for kept in sorted(anchors, key=lambda one: one["seq"]):
        seq, size = kept["seq"], kept.get("size", 0)
        if seen.setdefault(seq, kept["hash"]) != kept["hash"]:
            raise Fault("fork", f"two heads at record {seq}")
        if seq >= len(hashes) or size > len(hashes):
            whole = hashes[-1] in {one["hash"] for one in anchors}
            raise Fault("rolled back" if whole else "truncated", f"record {seq} was seen, {len(hashes)} are here")
        if hashes[seq] != kept["hash"]:
            raise Fault("fork" if covered > seq else "rewritten", f"record {seq} is not the one that was seen")
        if size and kept["root"] != root(leaves[:size]).hex():
            raise Fault("anchor edited", f"at record {seq}: its root is another one")
        if size:
            signed(kept["note"], run_id, size, root(leaves[:size]), key)
    must = max((r["seq"] for r in records if r["kind"] in ("run.finished", "promotion.decided")), default=-1)
    if max(seen, default=-1) < must or not seen:
        raise Fault("anchors removed", f"record {must} has none")


def checkpoints(records, run_id, key, wrong):
    """Every signed tree is the tree of the records before it; how many records the newest good one covers."""
    leaves, covered = [], 0
    for r in records:
        if r["kind"] == "journal.checkpoint":
            try:
                if r["data"]["size"] != len(leaves):
                    raise Fault("note of another size", f"record {r['seq']}")
                if r["data"]["root"] != root(leaves).hex():
                    raise Fault("note over another tree", f"record {r['seq']}")
                signed(r["data"]["note"], run_id, len(leaves), root(leaves), key)
                covered = len(leaves)
            except (Fault, ValueError) as fault:
                wrong("checkpoints", fault.args[0] if isinstance(fault, Fault) else "bad signature", str(fault.args))
        leaves.append(bytes.fromhex(r["hash"]))
    return covered


def check(place, anchors_at, key_at, wrong):
    """Everything; `wrong` is told what fails. The names of checks that could not be made."""
    records, fault = chain((place / "journal.jsonl").read_bytes())
    if fault:
        wrong("chain", *fault.args)
        if fault.args[0] != "torn":
            return []
    accepted = next((r["data"] for r in records if r["kind"] == "run.accepted"), {})
    if (records[0]["kind"], records[0]["data"].get("version")) != ("journal.opened", 2):
        wrong("version", "other format", "does not begin as a journal of format 2 does")
    if sum(r["kind"] == "journal.opened" for r in records) > 1:
        wrong("version", "two runs", "a second journal.opened")
    stated = accepted.get("journal_key", "")
    if not stated:
        wrong("key", "no key", "the run names none")
    elif key_at.exists() and stated not in key_at.read_text().split("\n"):
        wrong("key", "another key", "the journal names another key than this one")
    key, run_id = verifier_key(stated) if stated else None, accepted.get("run_id")
    covered = checkpoints(records, run_id, key, wrong)
    ends = [r["seq"] for r in records if r["kind"] in ("run.finished", "promotion.decided")]
    if ends and covered <= ends[-1]:
        wrong("checkpoints", "checkpoint removed", f"record {ends[-1]} is under no signed tree")
    try:
        anchors = [json.loads(one) for one in anchors_at.read_bytes().split(b"\n")[:-1]] if anchors_at.exists() else []
        anchored(anchors, records, run_id, key, covered)
    except (ValueError, KeyError, TypeError) as error:
        wrong("anchors", "anchor edited", str(error))
    except Fault as fault:
        wrong("anchors", *fault.args)
    legs(records, wrong)
    for name, stated in (("contract", "contract_sha256"), ("blast_radius", "blast_radius_sha256")):
        try:
            value = json.loads((place / f"{name}.json").read_bytes(), parse_float=no)
            if hashlib.sha256(canonical(value)).hexdigest() != accepted.get(stated):
                wrong(name.replace("_", " "), "file edited", "not the accepted one")
            if name == "contract" and value.get("run_id") != run_id:
                wrong("identity", "of another run", f"the contract is of {value.get('run_id')}")
        except (OSError, ValueError, RecursionError) as error:
            wrong(name.replace("_", " "), "file edited", str(error)[:80])
    if place.parent.name == "runs" and place.name != run_id:
        wrong("identity", "of another run", f"the journal is of {run_id}")
    return [] if key_at.exists() else ["key"]


def main():
    parser = argparse.ArgumentParser(description="Check a run's evidence without inbounds.")
    parser.add_argument("run", type=Path)
    parser.add_argument("--anchors", type=Path)
    parser.add_argument("--key", type=Path)
    given = parser.parse_args()
    place = given.run.resolve()
    home = place.parents[1] if place.parent.name == "runs" else None
    anchors_at = given.anchors or (home / "anchors" / f"{place.name}.jsonl" if home else place / "anchors.jsonl")
    faults = []
    try:
        left = check(
            place, anchors_at, given.key or (home or place) / "keys" / "journal.pub", lambda *a: faults.append(a)
        )
    except OSError as error:
        left = [faults.append(("chain", "gone", error.strerror))]
    for name, kind, words in faults:
        print(f"FAILS        {name} [{kind}]: {ascii(words)[1:-1]}")
    for name in [*filter(None, left), "manifest (inbounds verify)", "people's signatures (people.py)"]:
        print(f"not checked  {name}")
    print("NOT verified" if faults else "nothing fails" if left else "verified, but for what is not checked above")
    return 1 if faults or left else 0


if __name__ == "__main__":
    sys.exit(main())
