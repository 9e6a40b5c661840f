"""Runs that go on: after their supervisor's death, after a stop that people signed for, and with amended limits.

All of it real: processes killed with SIGKILL, signatures by the stage's key, the same gateway and ledger afterwards.
"""

import json
import os
import signal
import time
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from aftermath import eventually, limits
from faultrig import family, gone, inbounds
from runrig import Living, Ran, Rig, script, write

from inbounds.contracts.canonical import canonical
from inbounds.contracts.documents import LimitsText
from inbounds.demo import acts
from inbounds.gateway import ledger
from inbounds.gateway.keys import KeyStore
from inbounds.journal import sshsig
from inbounds.journal.verify import verify_run
from inbounds.modelserver.server import ModelServer
from inbounds.run import amending, authorize, decision, launch, onward, reauthorize, recovery, requests
from inbounds.store.store import Store

HANGS = {"fault": {"kind": "hang"}}
NOTE = write("notes.py", '"""Notes."""\n')
POLICY = ".inbounds/policy.yaml"


def again(rig: Rig, living: Living, mode: str, played: Any) -> Living:
    """Another supervisor for the same run, with a provider at the same address that plays `played`."""
    assert rig.server is not None
    port = rig.server.port
    rig.server.stop()
    rig.server = ModelServer(played, port=port).start()
    keys = json.dumps(acts.provider(rig.server)[1]).encode()
    started = launch.start(rig.home, living.ran.run_dir, keys, mode)
    taken = Living(living.ran, started)
    rig.living.append(taken)
    return taken


def ended(rig: Rig, living: Living) -> Ran:
    living.started.process.wait(120)
    assert recovery.phase(rig.home, living.ran.run_id) == "finished", rig.log(living.ran)
    return living.ran


def holds(ran: Ran) -> None:
    found = verify_run(ran.run_dir)
    assert found.ok, [check for check in found.checks if not check.ok]


def works() -> Any:
    """A script that reaches the goal of the honest act."""
    return json.loads((resources.files("inbounds.demo") / "scripts" / "honest.json").read_bytes())


@pytest.mark.req("E16")
def test_a_run_goes_on_behind_a_killed_supervisor(rig: Rig) -> None:
    living = rig.start({"conversations": [{"turns": [NOTE, HANGS]}]})
    assert rig.server is not None
    server = rig.server
    eventually(lambda: len(server.seen) == 2)  # the request that hangs has left
    mine = family(living.started.process.pid)
    living.kill_supervisor()
    gone(mine)
    before = living.ran.records
    spent = ledger.standing(rig.home.ledger, living.ran.run_id)
    assert spent is not None
    assert recovery.phase(rig.home, living.ran.run_id) == "orphaned"
    ran = ended(rig, again(rig, living, "recover", works()))
    assert ran.code == "DONE", ran.data("stop.decided")
    assert [r.hash for r in ran.records[: len(before)]] == [r.hash for r in before]
    (recovered,) = ran.data("run.recovered")
    assert recovered["spent_micro_usd"] == spent.totals.spent_micro_usd > 0
    assert recovered["in_doubt"] + recovered["open"] == 1, "the request that hung stays charged"
    assert ran.data("run.reopened")[0]["ok"] is True
    # what the agent had written when it died was judged as the first iteration
    taken = ran.data("snapshot.taken")[0]
    assert taken["n"] == 1
    assert "billing/notes.py" in [change["path"] for change in taken["changes"]]
    after = ledger.standing(rig.home.ledger, ran.run_id)
    assert after is not None
    assert after.totals.spent_micro_usd >= spent.totals.spent_micro_usd
    holds(ran)
    assert ran.alive() == []


@pytest.mark.req("E16", "E9")
def test_a_run_whose_supervisor_keeps_dying_ends(rig: Rig) -> None:
    living = rig.start({"conversations": [{"turns": [HANGS]}]}, **limits(restarts=1))
    living.until("iteration.started")
    living.kill_supervisor()
    taken = again(rig, living, "recover", {"conversations": [{"turns": [HANGS]}]})
    taken.until("iteration.started", where=lambda data: data["n"] == 2)
    taken.kill_supervisor()
    ran = ended(rig, again(rig, taken, "recover", works()))
    assert ran.code == "STOP_HOST_FAILED"
    assert "1 restarts are allowed" in ran.data("stop.decided")[0]["why"]
    holds(ran)


def signed(rig: Rig, statement: dict[str, Any]) -> str:
    return sshsig.sign(rig.stage.key, canonical(statement), authorize.APPROVAL_NAMESPACE)


def reauthorized(rig: Rig, ran: Ran, **raised: Any) -> None:
    """What `inbounds resume` does, with the stage's key."""
    if raised:
        statement = onward.amend(rig.home, ran.run_id, LimitsText(**raised), "more")
        asked = {"statement": statement, "signature": signed(rig, statement)}
        kind, data = amending.read(asked, ran.contract, onward.state_of(rig.home, ran.run_id).version)
        assert kind == amending.AMENDED, data
        decision.append(rig.home, ran.run_id, kind, data)
    statement = decision.reauthorization(rig.home, ran.run_id, "seen")
    kept = {"kind": "resume", "operator": ran.contract.operator, "statement": statement,
            "signature": signed(rig, statement)}  # fmt: skip
    decision.append(rig.home, ran.run_id, "operator.decision", kept)


@pytest.mark.req("E14", "N7", "E8")
def test_a_stopped_run_goes_on_only_with_a_signature_bound_to_its_stop(rig: Rig) -> None:
    living = rig.start(script(NOTE, {"text": "A note."}), **limits(iterations=1))
    ran = ended(rig, living)
    assert ran.code == "STOP_ITERATIONS_EXCEEDED"
    # nothing signed: refused, and not a record is added
    lines = len(ran.records)
    refused = again(rig, living, "resume", works())
    assert refused.started.process.wait(60) == 1
    assert "not re-authorized" in rig.log(ran)
    assert len(ran.records) == lines
    # the limit that is used up is named before anybody signs
    assert onward.still_exhausted(rig.home, ran.run_id, None) == ("iterations",)
    reauthorized(rig, ran, iterations=3)
    assert onward.still_exhausted(rig.home, ran.run_id, None) == ()
    ran = ended(rig, again(rig, living, "resume", works()))
    assert ran.code == "DONE", (ran.data("stop.decided"), rig.log(ran))
    (way,) = ran.data("run.reauthorized")
    first = next(record for record in ran.records if record.kind == "stop.decided")
    assert way["stop_hash"] == first.hash
    assert way["operators"] == [ran.contract.operator]
    assert [item["n"] for item in ran.data("iteration.started")] == [1, 2]
    assert ran.manifest["exit"]["code"] == "DONE"
    holds(ran)
    # that word was for the first stop: it opens nothing more
    assert reauthorize.granted(ran.run_dir, ran.contract) is None
    assert again(rig, living, "resume", works()).started.process.wait(60) == 1


@pytest.mark.req("E13", "E14")
def test_a_quarantined_run_goes_on_from_its_last_safe_checkpoint(rig: Rig) -> None:
    outside = write("../outside.txt", "x")
    living = rig.start(script(write("other/x.py", "x = 1\n"), outside, {"text": "Done."}), **limits(iterations=3))
    ran = ended(rig, living)
    assert ran.data("stop.decided")[0]["disposal"] == "quarantine", ran.data("stop.decided")
    assert (ran.run_dir / "quarantine").is_dir()
    reauthorized(rig, ran)
    ran = ended(rig, again(rig, living, "resume", works()))
    assert ran.code == "DONE", (ran.data("stop.decided"), rig.log(ran))
    head = ran.data("commit.made")[-1]["tree"]
    paths = [change.path for change in Store.open(ran.contract.store).diff(ran.contract.base_tree, head)]
    assert paths == ["billing/invoice.py"], "what was quarantined is not in the result"
    assert (ran.run_dir / "quarantine").is_dir(), "and is kept for a person"
    holds(ran)


@pytest.mark.req("E8", "M8")
def test_a_limit_changes_mid_run_by_a_signed_amendment_alone(rig: Rig) -> None:
    living = rig.start({"conversations": [{"turns": [NOTE, HANGS]}]})
    living.until("model.usage")
    ran = living.ran
    statement = onward.amend(rig.home, ran.run_id, LimitsText(budget_usd="3", tool_calls=77), "enough")
    # a stranger's signature, and a statement that is not the one signed
    requests.ask_amendment(ran.run_dir, statement, "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n")
    living.until("amendment.refused")
    other = {**statement, "limits": {**statement["limits"], "tool_calls": 99_999}}
    requests.ask_amendment(ran.run_dir, other, signed(rig, statement))
    living.until("amendment.refused", where=lambda data: "signed" in data["why"])
    assert not ran.data("contract.amended")
    requests.ask_amendment(ran.run_dir, statement, signed(rig, statement))
    living.until("contract.amended")
    state = onward.state_of(rig.home, ran.run_id)
    assert (state.version, state.limits.tool_calls, state.limits.budget_micro_usd) == (2, 77, 3_000_000)
    # the same words again are not the next version
    requests.ask_amendment(ran.run_dir, statement, signed(rig, statement))
    living.until("amendment.refused", where=lambda data: "version" in data["why"])
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        known = ledger.standing(rig.home.ledger, ran.run_id)
        if known and known.amended.get("run_micro_usd") == 3_000_000:
            break
        time.sleep(0.05)
    else:
        pytest.fail(f"the gateway never heard of it: {known}")
    requests.ask_stop(ran.run_dir, who="test", why="seen")
    ended(rig, living)
    holds(ran)


@pytest.mark.req("E9")
def test_policy_slows_a_run_down_before_it_stops_it(rig: Rig) -> None:
    text = (rig.stage.repository / POLICY).read_text()
    rig.edit(POLICY, text + "conduct:\n  slow_down: {at_percent: 50, interval: 700ms, cpu_percent: 20}\n")
    living = rig.start(script(*[write(f"n{i}.py", "x = 1\n") for i in range(4)], {"text": "x"}),
                       **limits(tool_calls=4, iterations=1))  # fmt: skip
    ran = ended(rig, living)
    (slowed,) = ran.data("run.slowed")
    assert (slowed["interval_ms"], slowed["cpu_percent"]) == (700, 20)
    assert slowed["cpu"]
    began = [usage["began_at_ms"] for usage in ran.data("model.usage")]
    at = next(i for i, record in enumerate(ran.records) if record.kind == "run.slowed")
    before = sum(record.kind == "model.usage" for record in ran.records[:at])
    gaps = [late - early for early, late in zip(began[before:], began[before + 1 :], strict=False)]
    assert gaps, "the control: requests went on"
    assert min(gaps) >= 600, gaps
    holds(ran)


@pytest.mark.req("G8")
def test_an_escalation_pauses_the_run_until_somebody_answers(rig: Rig) -> None:
    text = (rig.stage.repository / POLICY).read_text()
    rig.edit(POLICY, text + "conduct:\n  escalation: {at_percent: 1, wait: 4s}\n")
    scripted = script(*[write(f"n{i}.py", "x = 1\n") for i in range(400)], {"text": "x"})
    living = rig.start(scripted, **limits(budget_usd="0.05"))
    ran = ended(rig, living)
    assert ran.code == "STOP_ESCALATION_UNANSWERED", ran.data("stop.decided")
    (asked,) = ran.data("escalation.raised")
    usage = [record for record in ran.records if record.kind == "model.usage"]
    raised = next(record for record in ran.records if record.kind == "escalation.raised")
    assert sum(record.seq > raised.seq for record in usage) <= 1, "at most what was in flight"
    assert asked["until_ms"] - raised.at_ms <= 4_000
    # answered: the same run goes on
    living = rig.start(scripted, **limits(budget_usd="0.05"))
    living.until("escalation.raised")
    ran = living.ran
    statement = onward.amend(rig.home, ran.run_id, LimitsText(budget_usd="4"), "worth it")
    before = len(ran.data("model.usage"))
    requests.ask_amendment(ran.run_dir, statement, signed(rig, statement))
    living.until("contract.amended")
    deadline = time.monotonic() + 20
    while len(ran.data("model.usage")) <= before + 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(ran.data("model.usage")) > before + 2
    requests.ask_stop(ran.run_dir, who="test", why="seen")
    ended(rig, living)


@pytest.mark.req("E16")
def test_the_recover_verb_takes_up_what_it_finds(rig: Rig, tmp_path: Path) -> None:
    living = rig.start({"conversations": [{"turns": [HANGS]}]})
    living.until("iteration.started")
    os.kill(living.started.process.pid, signal.SIGKILL)
    living.started.process.wait(10)
    settings = living.ran.run_dir / launch.SETTINGS
    bound = settings.read_bytes()
    settings.write_bytes(bound + b" ")  # still the same JSON: the hash is over what it says
    settings.write_bytes(bound.replace(b"127.0.0.1", b"127.0.0.2"))
    tried = inbounds(rig, "recover", living.ran.run_id, "--json")
    assert tried.returncode == 1, tried.stdout
    assert "settings.json is not what" in json.loads(tried.stdout)["recovered"][0]["problem"]
    assert recovery.phase(rig.home, living.ran.run_id) == "orphaned", "nothing was ended by a recovery that failed"
    settings.write_bytes(bound)
    assert rig.server is not None
    port = rig.server.port
    rig.server.stop()
    rig.server = ModelServer(works(), port=port).start()
    KeyStore(rig.home.keys).add("modelserver", rig.server.key)
    tried = inbounds(rig, "recover")
    assert tried.returncode == 0, tried
    eventually(lambda: recovery.phase(rig.home, living.ran.run_id) == "finished", 120)
    assert living.ran.code == "DONE", (living.ran.data("stop.decided"), rig.log(living.ran))
    tried = inbounds(rig, "recover", living.ran.run_id)
    assert tried.returncode == 1
    assert "needs no recovery" in tried.stderr
