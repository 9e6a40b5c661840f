"""A first reviewed run on one's own repository: three commands, with real agents, from an empty HOME, timed."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import shop_repository as shop
from person import COLUMNS, ROWS, Person, screens

from inbounds.contracts.canonical import digest

pytestmark = [pytest.mark.agents, pytest.mark.slow]

SECONDS_MAX = 300  # what issue and README promise, model time aside (the model server takes none)
AGENTS = [("claude", "anthropic"), ("codex", "openai")]


def work() -> dict[str, Any]:
    """What the model does: reads, writes the surcharge, has the tests run, says so."""
    path = f"/work/{shop.SOURCE}"
    turns = [
        {"calls": [{"name": "read", "arguments": {"path": path}}]},
        {"text": "I add it.", "calls": [{"name": "write", "arguments": {"path": path, "content": shop.SOLVED}}]},
        {"calls": [{"name": "run_tests"}]},
        {"text": "The surcharge is charged.", "usage": {"input": 9_000, "output": 20}},
    ]
    return {"conversations": [{"turns": turns}]}


@pytest.mark.req("C6", "Q1")
@pytest.mark.parametrize(("agent", "provider"), AGENTS)
def test_three_commands(newcomer: Person, request: pytest.FixtureRequest, agent: str, provider: str) -> None:
    newcomer.path = (request.getfixturevalue(agent),)
    server = newcomer.provider(work(), provider)
    before, head = contents(newcomer.repository), shop.git(newcomer.repository, "rev-parse", "HEAD")
    began = time.monotonic()

    told = newcomer.runs("init")
    assert told.returncode == 0, told.stdout + told.stderr
    after_init = time.monotonic()
    for test in (*shop.ACCEPT, *shop.OTHERWISE_FAILING):
        assert test in told.stdout
    assert "ida@shop.example" in told.stdout
    assert re.search(rf"agents +.*\b{agent}\b", told.stdout), told.stdout

    flags = ("--agent", agent, "--goal", shop.GOAL, "--budget", "5", "--for", "30m")
    accept = [word for test in shop.ACCEPT for word in ("--accept", test)]
    terminal = newcomer.types("run", ".", *flags, *accept)
    shown = terminal.until("Enter signs")
    on_one_screen(shown, agent)
    terminal.type("\n")
    code = terminal.end()
    after_run = time.monotonic()
    assert code == 0, terminal.text

    review = newcomer.runs("review")
    ended = time.monotonic()
    assert review.returncode == 0, review.stdout + review.stderr
    assert "DONE" in review.stdout
    print(
        f"\n{agent}: init {after_init - began:.1f} s, run {after_run - after_init:.1f} s, "
        f"review {ended - after_run:.1f} s, together {ended - began:.1f} s"
    )
    assert ended - began < SECONDS_MAX

    run_id = newcomer.last()
    the_branch_holds_the_change(newcomer, run_id, terminal.text, head)
    # the work tree has what init said it wrote, and nothing else
    assert shop.git(newcomer.repository, "status", "--porcelain").splitlines() == ["?? .inbounds/"]
    assert {path.name for path in (newcomer.repository / ".inbounds").iterdir()} == {
        "policy.yaml",
        "config.yaml",
        "INCIDENT.md",
    }
    assert contents(newcomer.repository) == before
    the_agent_worked_for_real(newcomer, run_id, agent)
    assert server.bill.requests >= 4


def contents(top: Path) -> dict[str, bytes]:
    """Every file of the work tree but inbounds' own and git's."""
    files = (path for path in top.rglob("*") if path.is_file())
    found = {str(path.relative_to(top)): path.read_bytes() for path in files}
    return {name: content for name, content in found.items() if not name.startswith((".git/", ".inbounds/"))}


def on_one_screen(shown: str, agent: str) -> None:
    """Contract and blast radius fit a terminal of 80 by 24, with what is signed in them."""
    lines = list(screens(shown))
    assert len(lines) <= ROWS, f"{len(lines)} lines of {COLUMNS}:\n{shown}"
    for word in (shop.GOAL, agent, "$5", "30m", *(test.rpartition("::")[2] for test in shop.ACCEPT)):
        assert word in shown, f"{word!r} is not in\n{shown}"


def the_branch_holds_the_change(person: Person, run_id: str, shown: str, head: str) -> None:
    fetch = re.search(r"git fetch (\S+) (\S+)", shown)
    assert fetch, shown
    shop.git(person.repository, "fetch", "--quiet", fetch[1], fetch[2])
    assert shop.git(person.repository, "show", f"FETCH_HEAD:{shop.SOURCE}") == shop.SOLVED
    assert shop.git(person.repository, "diff", "--name-only", "HEAD", "FETCH_HEAD").split() == [shop.SOURCE]
    assert (
        shop.git(person.repository, "merge-base", "HEAD", "FETCH_HEAD")
        == head
        == shop.git(person.repository, "rev-parse", "HEAD")
    )
    assert run_id in shop.git(person.repository, "log", "-1", "--format=%B", "FETCH_HEAD")


def the_agent_worked_for_real(person: Person, run_id: str, agent: str) -> None:
    accepted = person.data(run_id, "run.accepted")[0]
    assert accepted["agent"]["name"] == agent
    assert accepted["limits"]["budget_micro_usd"] == 5_000_000
    kept = json.loads((person.state_directory / "runs" / run_id / "blast_radius.json").read_bytes())
    assert digest(kept) == accepted["blast_radius_sha256"]
    assert kept["money_at_most"] == "$5.00"
    called = person.data(run_id, "tool.called")
    assert [call["tool"] for call in called] == ["run_tests"]
    assert sum(usage["tool_calls"] for usage in person.data(run_id, "model.usage")) == 3
    baseline = person.data(run_id, "preflight.finished")[0]["baseline"]
    assert set(baseline["known_failing"]) >= set(shop.OTHERWISE_FAILING)
