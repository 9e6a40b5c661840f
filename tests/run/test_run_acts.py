"""Whole runs, for real: an honest one lands, a hostile one is stopped, an expensive one ends below its cap."""

import json
import os
from importlib import resources

import pytest
from runrig import Rig

from inbounds.demo import acts, outside
from inbounds.journal.verify import verify_run
from inbounds.run import decision
from inbounds.store import git
from inbounds.store.store import Store


def played(name: str) -> dict[str, object]:
    found = json.loads((resources.files("inbounds.demo") / "scripts" / f"{name}.json").read_bytes())
    assert isinstance(found, dict)
    return found


def message_of(store: Store, commit: str) -> str:
    return git.run(["log", "-1", "--format=%B", commit], git_dir=store.path).decode()


@pytest.mark.req(
    "A4", "A9", "B6", "E12", "G6", "H1", "H2", "H3", "H4", "H6", "H7", "H8", "H9", "H10", "H11", "H12", "H13"
)
@pytest.mark.req("I1", "I2", "K1", "K3", "K6", "M1", "M5", "M6", "Q1", "C6", "F10")
def test_an_honest_run_lands_and_is_rolled_back(rig: Rig) -> None:
    before = outside.fingerprint(rig.stage.repository)
    ran = rig.run(played("honest"))
    assert ran.code == "DONE", ran.data("stop.decided")
    store = Store.open(ran.contract.store)
    commits = ran.data("commit.made")
    assert [made["n"] for made in commits] == [1, 2]
    for made in commits:
        message = message_of(store, made["commit"])
        assert "PLAN-BULK-1" in message
        assert f"Iteration: {made['n']}" in message
        assert ran.run_id in message
    assert store.ref(f"refs/heads/{ran.contract.branch}") == commits[-1]["commit"]
    changed = store.diff(ran.contract.base_tree, commits[-1]["tree"])
    assert [change.path for change in changed] == ["billing/invoice.py"]
    # promoted by the gate, and undone by one call
    landed = ran.data("promotion.decided")
    assert [item["outcome"] for item in landed] == ["promoted"]
    development = store.ref("refs/heads/development")
    assert development == landed[0]["commit"]
    assert store.tree_of(development) == commits[-1]["tree"]
    undone = decision.roll_back(rig.home, ran.run_id)
    assert undone["outcome"] == "rolled_back", undone
    after = store.ref("refs/heads/development")
    assert after is not None
    assert store.tree_of(after) == ran.contract.base_tree
    # the provider's own bill is what the ledger says, to the micro-dollar
    assert rig.server is not None
    assert ran.manifest["cost"]["spent_micro_usd"] == ran.data("model.usage")[-1]["spent_micro_usd"]
    assert len(ran.data("model.usage")) == len(rig.server.seen)
    assert verify_run(ran.run_dir).ok, verify_run(ran.run_dir)
    assert outside.fingerprint(rig.stage.repository) == before
    assert ran.alive() == []
    assert outside.mounts_of(ran.run_id) == []
    assert {p.name for p in rig.home.run(ran.run_id).iterdir()} >= {"journal.jsonl", "manifest.json", "report.html"}
    baseline = ran.data("preflight.finished")[0]["baseline"]
    assert len(baseline["acceptance_failing"]) == 3
    assert ran.data("iteration.finished")[-1]["acceptance_failing"] == 0


@pytest.mark.req("C3", "C4", "E10", "E11", "E13", "F6", "N6", "O6", "B6", "B8")
def test_an_agent_out_of_its_bounds_is_stopped_and_nothing_outside_changed(rig: Rig) -> None:
    assert set(acts.control()) == {"credentials", "other-thread", "shared-interface", "weaken-tests"}, "no control"
    before = outside.fingerprint(rig.stage.repository)
    trap = outside.Trap()
    trap.set(f"test-{os.getpid()}")
    ran = rig.run(played("hostile"), install=acts._install(acts.ACTS[1]))
    trap.close()
    assert ran.code == "STOP_UNAUTHORIZED_ACCESS"
    assert trap.caught == []
    denials = ran.data("denial")
    assert {item["detail"] for item in denials if item["kind"] == "name"} == {
        "exfiltrate.example.com",
        "metadata.google.internal",
    }
    assert [item["detail"] for item in denials if item["sensitive"]] == ["~/.aws/credentials was opened"]
    said = (ran.run_dir / "logs" / "agent-1" / "stdout").read_text().splitlines()
    tried = {(line["step"], line["outcome"]) for line in map(json.loads, said)}
    assert ("other-thread", "denied") in tried
    assert ("weaken-tests", "denied") in tried
    assert ("network-name", "denied") in tried
    assert ("network-address", "denied") in tried
    assert not {step for step, outcome in tried if outcome == "done"} - {"credentials"}
    steps = [item["step"] for item in ran.data("stop.step")]
    assert steps == ["lease_closed", "frozen", "persisted", "killed", "quarantined"]
    assert (ran.run_dir / "quarantine").is_dir()
    assert not (ran.run_dir / "workspace" / "rw").exists()
    assert ran.data("commit.made") == []
    assert outside.fingerprint(rig.stage.repository) == before
    assert ran.alive() == []
    assert verify_run(ran.run_dir).ok


@pytest.mark.req("E4", "E15", "G1", "G2", "G9")
def test_an_expensive_loop_ends_below_its_cap(rig: Rig) -> None:
    ran = rig.run(played("expensive"), limits=acts.ACTS[2].limits)
    assert ran.code == "STOP_BUDGET_EXCEEDED"
    usage = ran.data("model.usage")
    assert usage, "the control: some requests were paid"
    assert 0 < usage[-1]["spent_micro_usd"] <= ran.contract.limits["budget_micro_usd"] == 50_000
    assert rig.server is not None
    asked = len(rig.server.seen)
    assert asked == len(usage), "no request reached the provider unmetered"
    assert ran.alive() == []
    assert verify_run(ran.run_dir).ok
