"""What must hold after every run that was stopped, and programs that stand in for an agent to get it stopped.

A rogue is a script in the reference agent's place: same jail, same gateway, none of its good will.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from runrig import Ran, Rig

from inbounds.agents import npm
from inbounds.agents.profile import Install
from inbounds.agents.registry import profile
from inbounds.contracts.reasons import MEANING, Disposal, StopCode
from inbounds.demo import outside
from inbounds.journal.verify import verify_run
from inbounds.store.store import Store

# From the decision to the last process's end: a kill takes a third of a second, a loaded machine some more.
STOP_SECONDS_MAX = 5.0
STEP = {Disposal.KEEP: "kept", Disposal.REVERT: "reverted", Disposal.QUARANTINE: "quarantined"}

ROGUE = '''\
import base64, http.client, json, os, signal, socket, sys, time
TASK = json.load(open(sys.argv[1]))
HERE = TASK["workspace"]
HOME = os.environ["HOME"]

def ask(text="Go on.", model=None):
    """One model request, as the reference agent would make it; (status, reply)."""
    body = {"model": model or TASK["model"], "max_tokens": 1000,
            "messages": [{"role": "user", "content": text}],
            "tools": [{"type": "function", "function": {"name": "read", "description": "r",
                       "parameters": {"type": "object", "properties": {}}}}]}
    link = http.client.HTTPConnection("127.0.0.1", 8100, timeout=300)
    head = {"Authorization": "Bearer " + os.environ["INBOUNDS_TOKEN"], "Content-Type": "application/json"}
    link.request("POST", "/v1/chat/completions", json.dumps(body), head)
    answer = link.getresponse()
    return answer.status, answer.read()

def write(path, text):
    place = os.path.join(HERE, path)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with open(place, "w") as file:
        file.write(text)

def say(**what):
    print(json.dumps(what), flush=True)

'''


def off(mechanism: str) -> bool:
    """Whether this test runs without a mechanism: it then sets the limit out of reach, and must fail."""
    return os.environ.get("INBOUNDS_TEST_WITHOUT") == mechanism


def rogue(place: Path, source: str) -> Install:
    """An agent program of these lines (after ROGUE), signed for like any other."""
    program = place / "rogue_agent.py"
    program.write_text(ROGUE + source, encoding="utf-8")
    found = profile("reference").find(())
    assert found is not None
    return replace(found, path=str(program), sha256=npm.sha256(program))


def said(ran: Ran, n: int = 1) -> str:
    """What the agent of an iteration printed: never evidence, only how far it came."""
    return (ran.run_dir / "logs" / f"agent-{n}" / "stdout").read_text(encoding="utf-8", errors="replace")


def iterations(ran: Ran) -> int:
    return len(ran.data("iteration.started"))


def _last_safe(ran: Ran) -> str:
    """The last committed tree to which no judge objected; that the goal is still open is no objection."""
    safe, said = ran.contract.base_tree, dict[str, str]()
    broken = True
    for record in ran.records:
        if record.kind == "snapshot.taken":
            said = {}
        elif record.kind == "verdict":
            said[record.data["judge"]] = record.data["outcome"]
        elif record.kind == "iteration.finished":
            broken = record.data["regressions"] > 0
        elif record.kind == "commit.made":
            tests = said.get("tests") == "PASS" or (said.get("tests") == "FAIL" and not broken)
            if tests and all(said.get(judge) == "PASS" for judge in ("scope", "secrets", "bandit")):
                safe = record.data["tree"]
    return safe


def seconds_to_stop(ran: Ran) -> float:
    """From the record that made the kernel decide to the step that found nothing alive."""
    records = ran.records
    closed = next(i for i, r in enumerate(records) if r.kind == "stop.step")
    killed = next(r for r in records if r.kind == "stop.step" and r.data["step"] == "killed")
    return (killed.at_ms - records[closed - 1].at_ms) / 1000


class Watch:
    """The host around one run: looked at before, compared afterwards."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.before = rig, outside.fingerprint(rig.stage.repository)

    def check(self, ran: Ran, code: str, *, marker: str = "") -> Ran:
        """The run ended with `code`, in order, leaving its evidence and nothing else."""
        stop = ran.data("stop.decided")[0]
        assert ran.code == code, (stop, self.rig.log(ran))
        disposal = MEANING[StopCode(code)][0]
        assert stop["disposal"] == disposal.value
        steps = ran.data("stop.step")
        assert [s["step"] for s in steps] == ["lease_closed", "frozen", "persisted", "killed", STEP[disposal]], steps
        assert all(s["ok"] for s in steps), steps
        report = verify_run(ran.run_dir)
        assert report.ok, report
        assert ran.kinds()[-1] == "run.finished"
        finished = ran.data("run.finished")[0]
        assert (finished["code"], finished["exit"]) == (code, 0 if code == "DONE" else 1)
        taken = seconds_to_stop(ran)
        print(f"{code}: {taken * 1000:.0f} ms from the event that decided it to no process alive")
        assert taken < STOP_SECONDS_MAX
        assert ran.alive() == []
        assert not marker or outside.processes_of(marker) == []
        assert outside.mounts_of(ran.run_id) == []
        assert outside.fingerprint(self.rig.stage.repository) == self.before
        self._disposed(ran, disposal)
        self._evidence(ran)
        return ran

    @staticmethod
    def _disposed(ran: Ran, disposal: Disposal) -> None:
        workspace, quarantine = ran.run_dir / "workspace" / "rw", ran.run_dir / "quarantine"
        match disposal:
            case Disposal.QUARANTINE:
                assert not workspace.exists()
                assert quarantine.stat().st_mode & 0o777 == 0o700
                bits = [p.lstat().st_mode & 0o6111 for p in quarantine.rglob("*") if p.is_file() and not p.is_symlink()]
                assert not any(bits), "nothing in quarantine can be executed"
                assert not list(quarantine.rglob(".git"))
            case Disposal.REVERT:
                assert not quarantine.exists()
                store = Store.open(ran.contract.store)
                safe = _last_safe(ran)
                assert (ran.data("stop.decided")[-1]["checkpoint"] or ran.contract.base_tree) == safe
                for node in store.ls(safe, (ran.contract.thread,)):
                    if "/.inbounds/" not in node.path:
                        assert (workspace / node.path).read_bytes() == store.read_blob(node.blob), node.path
            case Disposal.KEEP:
                assert not workspace.exists()

    @staticmethod
    def _evidence(ran: Ran) -> None:
        """Step 3 kept what the agent had left, whatever became of it: a ref of its own, not the agent branch."""
        store = Store.open(ran.contract.store)
        kept = store.ref(f"refs/inbounds/evidence/{ran.run_id}")
        assert kept is not None
        assert store.tree_of(kept) == ran.data("snapshot.taken")[-1]["tree"]
        assert {p.name for p in ran.run_dir.iterdir()} >= {
            "journal.jsonl",
            "manifest.json",
            "report.html",
            "diff.patch",
        }
        made = ran.data("commit.made")
        assert store.ref(f"refs/heads/{ran.contract.branch}") == (made[-1]["commit"] if made else None)


def limits(**values: Any) -> Mapping[str, Any]:
    """Arguments for `Rig.run` with narrower limits."""
    from inbounds.contracts.documents import LimitsText

    return {"limits": LimitsText(**values)}


def eventually(what: Any, seconds: float = 20) -> Any:
    """Wait until `what()` is true, and give it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s")
