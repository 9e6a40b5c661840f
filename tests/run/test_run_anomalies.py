"""Anomalies in whole runs: what blocks keeps a result from landing by itself, what stops ends the run, before any test."""

import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from runrig import Ran, Rig, write

from inbounds.contracts.canonical import canonical
from inbounds.journal import sshsig
from inbounds.journal.checks import State
from inbounds.journal.sshsig import OperatorKey
from inbounds.journal.verify import verify_run
from inbounds.run import authorize, decision
from inbounds.store.store import Store

POLICY = ".inbounds/policy.yaml"
PLAN = "billing/.inbounds/WORK_PLAN.json"


@pytest.fixture(autouse=True)
def _all_of_the_thread(rig: Rig) -> None:
    """The plan allows its whole thread, so that the scope has nothing to say."""
    found = json.loads((rig.stage.repository / PLAN).read_text(encoding="utf-8"))
    rig.edit(PLAN, json.dumps({**found, "targets": ["billing/**"]}))


def with_a_library(rig: Rig) -> dict[str, Any]:
    """The honest script, whose agent first copies a library into its thread."""
    script = json.loads((resources.files("inbounds.demo") / "scripts" / "honest.json").read_bytes())
    for conversation in script["conversations"]:
        conversation["turns"].insert(0, write("billing/third_party/six/core.py", "X = 1\n"))
    assert isinstance(script, dict)
    return script


def said(ran: Any) -> list[dict[str, Any]]:
    return [v for v in ran.data("verdict") if v["judge"] == "anomalies"]


@pytest.mark.req("H18")
def test_what_blocks_reaches_its_goal_and_does_not_land_by_itself(rig: Rig) -> None:
    ran = rig.run(with_a_library(rig))
    assert ran.code == "DONE", ran.data("stop.decided")
    assert [v["outcome"] for v in said(ran)] == ["FAIL"] * len(ran.data("iteration.finished"))
    assert {f["rule"] for v in said(ran) for f in v["findings"]} >= {"anomaly.vendored"}
    [decided] = ran.data("promotion.decided")
    assert decided["outcome"] == "refused"
    assert [why for why in decided["reasons"] if why.startswith("judge anomalies says FAIL; ")] == decided["reasons"]


def inbounds(rig: Rig, *words: str) -> "subprocess.CompletedProcess[str]":
    """The command as a person types it, with the stage's key (its place is the HOME it was made in)."""
    env = {**os.environ, "HOME": str(rig.stage.key.path.parents[2]), "INBOUNDS_HOME": str(rig.home.path)}
    argv = [sys.executable, "-m", "inbounds", *words]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)


def states(rig: Rig, ran: Ran, key: OperatorKey, **other: str) -> None:
    """An approval in the journal as `inbounds approve` puts it there, by `key` and with `other` in its statement."""
    statement = {**decision.approval(rig.home, ran.run_id, "looked"), **other}
    armored = sshsig.sign(key, canonical(statement), authorize.APPROVAL_NAMESPACE)
    kept = {"kind": "approve", "operator": ran.contract.operator, "statement": statement, "signature": armored}
    decision.append(rig.home, ran.run_id, "operator.decision", kept)


@pytest.mark.req("H18", "K5")
def test_a_person_who_looked_lands_what_an_anomaly_held_back(rig: Rig, tmp_path: Path) -> None:
    ran = rig.run(with_a_library(rig))
    commit = ran.data("commit.made")[-1]
    stranger = sshsig.operator_key(tmp_path, {"HOME": str(tmp_path), "PATH": os.environ["PATH"]})
    store = Store.open(ran.contract.store)

    def refused() -> None:
        asked = inbounds(rig, "promote", ran.run_id)
        assert asked.returncode == 1, asked.stderr
        assert f"inbounds approve {ran.run_id}" in asked.stdout
        assert store.ref("refs/heads/development") is None

    refused()
    for key, other in (
        (stranger, {}),
        (rig.stage.key, {"tree": ran.contract.base_tree}),
        (rig.stage.key, {"commit": ran.contract.base_commit}),
        (rig.stage.key, {"run_id": "20260101-000000-000000"}),
        (rig.stage.key, {"what": "resume"}),
    ):
        states(rig, ran, key, **other)
        refused()

    signed = inbounds(rig, "approve", ran.run_id, "--yes", "--note", "the library is ours")
    assert signed.returncode == 0, signed.stderr
    landed = inbounds(rig, "promote", ran.run_id)
    assert landed.returncode == 0, landed.stdout
    decided = ran.data("promotion.decided")[-1]
    assert decided["outcome"] == "promoted"
    assert decided["commit"] == store.ref("refs/heads/development")
    assert store.tree_of(str(decided["commit"])) == commit["tree"]
    [why] = decided["reasons"]
    assert why.startswith("anomalies (")
    assert "vendored" in why
    assert why.endswith(f"answered for this tree by {ran.contract.operator}")
    assert [d["outcome"] for d in ran.data("promotion.decided")[:-1]] == ["refused"] * 7
    # the control: the forged ones are found, and nothing else
    assert [check.name for check in verify_run(ran.run_dir).checks if check.state is State.FAILS] == ["signatures"]


@pytest.mark.req("H18")
def test_what_policy_stops_at_ends_the_run_before_a_test_is_run(rig: Rig) -> None:
    text = (rig.stage.repository / POLICY).read_text(encoding="utf-8")
    rig.edit(POLICY, text + "anomalies:\n  actions: {vendored: stop}\n")
    try:
        ran = rig.run(with_a_library(rig))
    finally:
        rig.edit(POLICY, text)
    assert ran.code == "STOP_ANOMALY", ran.data("stop.decided")
    assert [v["judge"] for v in ran.data("verdict")] == ["scope", "anomalies"]
    assert ran.data("promotion.decided") == []


def test_honest_work_lands_as_before(rig: Rig) -> None:
    ran = rig.run(json.loads((resources.files("inbounds.demo") / "scripts" / "honest.json").read_bytes()))
    assert ran.code == "DONE", ran.data("stop.decided")
    assert {v["outcome"] for v in said(ran)} == {"PASS"}
    assert [d["outcome"] for d in ran.data("promotion.decided")] == ["promoted"]
