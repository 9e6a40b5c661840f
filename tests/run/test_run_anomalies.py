"""Anomalies in whole runs: what blocks keeps a result from landing by itself, what stops ends the run, before any test."""

import json
from importlib import resources
from typing import Any

import pytest
from runrig import Rig, write

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
    assert "judge anomalies says FAIL" in decided["reasons"]


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
