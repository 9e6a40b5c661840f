"""What real runs leave as evidence: signed checkpoints with outside witnesses, and workspaces kept while agents work."""

import json
import os
import time
from pathlib import Path

import pytest
from aftermath import eventually, limits
from faultrig import inbounds
from runrig import Ran, Rig, script, write

from inbounds.gateway import ledger
from inbounds.journal import anchor, append_only, note, signing
from inbounds.journal.verify import verify_run
from inbounds.run import launch, requests
from inbounds.run.retention import REFS
from inbounds.store.store import Store

PLAN = "billing/.inbounds/WORK_PLAN.json"
POLICY = ".inbounds/policy.yaml"
HANGS = {"fault": {"kind": "hang"}}


def policy(rig: Rig, section: str) -> None:
    text = (rig.stage.repository / POLICY).read_text()
    rig.edit(POLICY, f"{text}{section}\n")


def checkpoints(ran: Ran) -> list[dict[str, object]]:
    return ran.data("journal.checkpoint")


@pytest.mark.req("H14")
def test_what_matters_is_signed_and_witnessed_outside_the_runs_reach(rig: Rig) -> None:
    living = rig.start(script(write("notes.py", "x = 1\n"), {"text": "Done."}), **limits(iterations=1))
    living.until("commit.made")
    path = living.ran.run_dir / launch.JOURNAL
    ran = living.end()
    key = signing.public_key(rig.home.keys)
    assert ran.data("run.accepted")[0]["journal_key"] == str(key)
    kinds = [record.kind for record in ran.records]
    for kind in ("run.accepted", "commit.made", "stop.decided", "run.finished"):
        assert kinds[kinds.index(kind) + 1] == "journal.checkpoint", kind
    for made in checkpoints(ran):
        opened = note.opened(str(made["note"]), key)
        assert note.parse_checkpoint(opened).size == made["size"]
    # the ledger has the heads of all that happened while the gateway lived, the file those behind it too
    by_seq = {record.seq: record.hash for record in ran.records}
    rows = ledger.anchors(rig.home.ledger, ran.run_id)
    beside = anchor.beside(ran.run_dir)
    assert beside is not None
    kept = anchor.read(beside)
    assert rows
    assert {row.seq for row in rows} <= {item.seq for item in kept}
    assert all(by_seq[row.seq] == row.hash for row in rows)
    assert max(item.seq for item in kept) == ran.records[-1].seq
    committed = next(record for record in ran.records if record.kind == "commit.made")
    message = Store.open(ran.contract.store).git("log", "-1", "--format=%B", committed.data["commit"])
    trailer = next(line for line in message.splitlines() if line.startswith("Journal: "))
    seq, _, digest = trailer.removeprefix("Journal: ").partition(":")
    assert by_seq[int(seq)] == digest
    assert verify_run(ran.run_dir).ok
    # one row changed by somebody who reaches the run's directory alone is found by the heads kept elsewhere
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-4]))
    try:
        found = verify_run(ran.run_dir)
    finally:
        path.write_bytes(b"".join(lines))  # other tests look at every run of this state directory
    assert not found.ok
    assert {"anchors"} <= {check.name for check in found.checks if not check.ok}


@pytest.mark.req("H14")
def test_the_journal_takes_additions_alone_while_its_run_lives(rig: Rig) -> None:
    living = rig.start({"conversations": [{"turns": [HANGS]}]})
    living.until("iteration.started")
    path = living.ran.run_dir / launch.JOURNAL
    with path.open("rb") as file:
        protected = append_only.is_set(file.fileno())
        able = not append_only.protect(file.fileno())  # adding what is there already: asks whether this host can
    if able:
        assert protected
        with pytest.raises(PermissionError), path.open("r+b") as file:
            file.write(b"x")
    requests.ask_stop(living.ran.run_dir, who="test", why="seen")
    living.end()
    with path.open("rb") as file:
        assert not append_only.is_set(file.fileno()), "what is over can be exported, moved and discarded"
    if not able:
        pytest.skip("no append-only attribute here: it takes CAP_LINUX_IMMUTABLE and ext4, xfs or btrfs")


@pytest.mark.req("I3")
def test_a_workspace_is_kept_while_its_agent_works(rig: Rig, tmp_path: Path) -> None:
    policy(rig, "conduct:\n  snapshots: {every: 1s, keep: 2}")
    turns = [write(f"n{i}.py", f"x = {i}\n") for i in range(3)]
    slow = [{**turn, "delay_ms": 1500} for turn in turns]
    living = rig.start({"conversations": [{"turns": [*slow, HANGS]}]})
    ran = living.ran
    living.until("snapshot.kept")
    store = Store.open(ran.contract.store)
    eventually(lambda: len(ran.data("snapshot.kept")) >= 3, 60)
    kept = ran.data("snapshot.kept")
    assert [item["n"] for item in kept[:3]] == [1, 1, 1]
    assert len({item["tree"] for item in kept}) == len(kept), "what had not changed is not kept twice"
    assert len(store.refs(f"{REFS}/{ran.run_id}")) == 2, "the newest are kept"
    assert any(item["dropped"] for item in kept)
    before = len(kept)
    time.sleep(2.5)  # the model hangs: nothing changes
    assert len(ran.data("snapshot.kept")) == before
    requests.ask_stop(ran.run_dir, who="test", why="seen")
    living.end()
    assert verify_run(ran.run_dir).ok
    # a person can look at it again
    last = next(record for record in reversed(ran.records) if record.kind == "snapshot.kept")
    place = tmp_path / "again"
    done = inbounds(rig, "logs", ran.run_id, "--at", str(last.seq), "--to", str(place))
    assert done.returncode == 0, done.stderr
    assert (place / "billing" / "n2.py").read_text() == "x = 2\n"
    assert inbounds(rig, "discard", ran.run_id, "--yes").returncode == 0
    assert store.refs(f"{REFS}/{ran.run_id}") == {}


@pytest.mark.req("E3")
def test_changes_are_counted_per_iteration_too(rig: Rig) -> None:
    text = (rig.stage.repository / POLICY).read_text()
    rig.edit(POLICY, text.replace("limits:\n", "limits:\n  no_progress: 100\n"))
    path = rig.stage.repository / PLAN
    planned = json.loads(path.read_text())
    planned["limits"]["no_progress"] = 100
    rig.edit(PLAN, json.dumps(planned))
    many = [write(f"n{i}.py", f"x = {i}\n") for i in range(4)]
    ran = rig.run(script(*many, {"text": "Done."}), **limits(iteration_file_changes=3))
    assert ran.code == "STOP_FILES_EXCEEDED"
    assert "in one iteration" in ran.data("stop.decided")[0]["why"]
    assert ran.data("snapshot.taken")[0]["iteration_changed"] == 4
    # the control: as many in all, and fewer in each
    second = {"match": ["This is iteration 2"], "turns": [*many[2:], {"text": "x"}]}
    two = {"conversations": [second, {"turns": [*many[:2], {"text": "x"}]}]}
    ran = rig.run(two, **limits(iteration_file_changes=3, iterations=2))
    assert ran.code == "STOP_ITERATIONS_EXCEEDED", ran.data("stop.decided")
    assert [item["iteration_changed"] for item in ran.data("snapshot.taken")[:2]] == [2, 2]
    assert [item["changed"] for item in ran.data("snapshot.taken")[:2]] == [2, 4]
    assert json.loads((ran.run_dir / "manifest.json").read_bytes())["exit"]["code"] == ran.code
    assert os.path.exists(ran.run_dir / "report.html")
