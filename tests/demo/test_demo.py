"""`inbounds demo` as a person starts it: three real runs, the published facts, and nothing left on the host."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from inbounds.demo import outside
from inbounds.journal import chain
from inbounds.modelserver.server import ModelServer
from inbounds.sandbox.hardened import PLACE
from inbounds.sandbox.probe import probe

pytestmark = pytest.mark.slow

SECONDS_MAX = 60  # as the README promises, after the set-up, which builds the dependency layer
# What each act prints, no more and no less: scripts read it.
KEYS = {
    "run_id", "exit", "stop_code", "iterations", "tests_failing_before", "tests_failing_after", "cost_usd",
    "budget_usd", "branch", "commits", "escaped", "report", "manifest", "verified",
}  # fmt: skip
CODES = ["DONE", "STOP_UNAUTHORIZED_ACCESS", "STOP_BUDGET_EXCEEDED"]
KEY = "sk-live-demo-key-0123456789"
KEPT = ("PATH", "PIP_INDEX_URL", "PIP_CONFIG_FILE", PLACE)  # with where no host service is (conftest.py)


@pytest.fixture(autouse=True)
def _jails() -> None:
    facts = probe()
    if facts.level < 1:
        pytest.skip(f"no jail can be made here: {facts.problem or ', '.join(facts.lacking)}")


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inbounds-demo") / "state"


def demo(
    state: Path, place: Path, *flags: str, env: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """The command with a HOME and a TMPDIR of its own, both empty."""
    for name in ("home", "tmp"):
        (place / name).mkdir(exist_ok=True)
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    own = {"HOME": str(place / "home"), "TMPDIR": str(place / "tmp"), "INBOUNDS_HOME": str(state), "LANG": "C.UTF-8"}
    return subprocess.run(
        [sys.executable, "-m", "inbounds", "demo", *flags],
        env={**kept, **own, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def left(place: Path) -> list[str]:
    return [str(path.relative_to(place)) for name in ("home", "tmp") for path in (place / name).rglob("*")]


@pytest.mark.req("G6", "H13", "I2")
def test_three_acts(state: Path, tmp_path: Path) -> None:
    done = demo(state, tmp_path, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert set(told) == {"acts"}
    honest, hostile, expensive = acts = told["acts"]
    for act in acts:
        assert set(act) == KEYS
        assert act["escaped"] == []
        assert act["verified"] is True
        assert act["cost_usd"] <= act["budget_usd"]
        assert Path(act["report"]).stat().st_size > 1_000
        assert json.loads(Path(act["manifest"]).read_bytes())["exit"]["code"] == act["stop_code"]
    assert [act["stop_code"] for act in acts] == CODES
    assert [act["exit"] for act in acts] == [0, 1, 1]
    assert honest["iterations"] == 2
    assert (honest["tests_failing_before"], honest["tests_failing_after"]) == (3, 0)
    assert len(honest["commits"]) == 2
    assert hostile["commits"] == []
    assert 0 < expensive["cost_usd"] <= expensive["budget_usd"] == 0.05
    landed = [r.data["outcome"] for r in chain.records(journal(state, honest)) if r.kind == "promotion.decided"]
    assert landed == ["promoted", "rolled_back"]

    # nothing is left of it outside the state directory, and nothing in it still runs
    assert left(tmp_path) == []
    assert outside.mounts_of(str(tmp_path.parent)) == []
    assert outside.processes_of(str(state)) == []
    for act in acts:
        assert outside.processes_of(act["run_id"]) == []


def journal(state: Path, act: dict[str, Any]) -> Path:
    return state / "runs" / act["run_id"] / "journal.jsonl"


def test_for_a_person_it_ends_with_a_table_and_the_reports(state: Path, tmp_path: Path) -> None:
    demo_ready(state, tmp_path)
    began = time.monotonic()
    done = demo(state, tmp_path)
    took = time.monotonic() - began
    assert done.returncode == 0, done.stdout + done.stderr
    for word in (*CODES, "Positive control", "Rolling act 1 back", "As expected"):
        assert word in done.stdout
    assert done.stdout.count("report.html") == 3
    assert took < SECONDS_MAX, f"{took:.0f} s"


def demo_ready(state: Path, place: Path) -> None:
    """Have the layer built, which is a part of the set-up, unless another test has done it."""
    if not list((state / "layers").glob("*/layer.json")):
        assert demo(state, place, "--json").returncode == 0


def test_live_without_a_key_says_what_it_wants(state: Path, tmp_path: Path) -> None:
    done = demo(state, tmp_path, env={"LIVE": "1"})
    assert done.returncode == 100
    assert "OPENAI_API_KEY" in done.stderr
    assert "ANTHROPIC_API_KEY" in done.stderr
    without = demo(state, tmp_path, "--live", env={"ANTHROPIC_API_KEY": KEY, "PATH": "/usr/bin:/bin"})
    assert without.returncode == 111
    assert "npm install -g @anthropic-ai/claude-code" in without.stderr


def test_live_goes_through_the_operators_own_provider(state: Path, tmp_path: Path) -> None:
    """The model server stands where a real provider would: known by gateway.yaml and the key in the environment."""
    source = Path(outside.__file__).parent / "scripts" / "honest.json"
    server = ModelServer({**json.loads(source.read_bytes()), "key": KEY}).start()
    settings = tmp_path / "home" / ".config" / "inbounds" / "gateway.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f"upstreams:\n  openai:\n    base_url: {server.url}/v1\n", encoding="utf-8")
    try:
        done = demo(state, tmp_path, "--live", "--json", env={"OPENAI_API_KEY": KEY})
        lines = list(server.bill.lines)
    finally:
        server.stop()
    assert done.returncode == 0, done.stdout + done.stderr
    honest, hostile, expensive = json.loads(done.stdout)["acts"]
    assert [honest["stop_code"], hostile["stop_code"], expensive["stop_code"]] == CODES
    assert {line.model for line in lines} == {"gpt-5-mini"}
    assert all(line.status == 200 for line in lines)
    # act 1 was served by it, and act 3's cap held whatever it would have asked for
    assert honest["cost_usd"] > 0
    assert expensive["cost_usd"] <= expensive["budget_usd"] == 0.002
    assert KEY not in done.stdout + done.stderr
    for path in state.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
