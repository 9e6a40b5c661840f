"""Claude Code and codex as they are, started as their profiles say: they work, use the broker, and give up at a limit."""

import json
from pathlib import Path

import pytest

from inbounds.agents.registry import profile

pytestmark = pytest.mark.agents

WORK = {
    "prices": {},
    "conversations": [
        {
            "match": ["please greet"],
            "turns": [
                {
                    "text": "I write it.",
                    "calls": [{"name": "write", "arguments": {"path": "greeting.txt", "content": "hello\nyou\n"}}],
                },
                {"calls": [{"name": "run_tests"}]},
                {"text": "The greeting is written.", "usage": {"input": 12_000, "output": 30}},
            ],
        }
    ],
}
BUDGET = json.dumps({"error": {"message": "the run's budget is spent", "type": "budget", "code": "budget"}})
# With and without code mode, where all calls go through one tool that runs JavaScript.
MODELS = [("claude", "claude-sonnet-4-5"), ("codex", "gpt-5"), ("codex", "gpt-6.1-sol")]


@pytest.mark.parametrize(("name", "model"), MODELS)
def test_completes_a_task_and_uses_the_broker(bench, request, name, model):
    install = request.getfixturevalue(name)
    table = bench(WORK)
    result = table.run(profile(name), install, prompt="-- please greet", model=model)
    assert result.outcome.ok, result.outcome
    assert result.outcome.said == "The greeting is written."
    assert (result.workspace / "greeting.txt").read_text() == "hello\nyou\n"
    assert [call.tool for call in table.calls] == ["run_tests"]
    answered = [line for line in table.server.bill.lines if line.status == 200 and line.turn.startswith("0/")]
    assert [line.turn for line in answered] == ["0/0", "0/1", "0/2"]
    assert {line.format for line in answered} == {profile(name).format}
    assert {line.model for line in table.server.bill.lines} == {model}
    left = {str(path.relative_to(result.workspace)) for path in result.workspace.rglob("*") if path.is_file()}
    assert {name for name in left if not name.startswith(".git/")} == {"greeting.txt"}


@pytest.mark.parametrize(("name", "model"), MODELS[:2])
@pytest.mark.parametrize("status", [402, 403])
def test_gives_up_at_a_limit(bench, request, name, model, status):
    install = request.getfixturevalue(name)
    table = bench([{"fault": {"kind": "status", "status": status, "body": BUDGET}}])
    result = table.run(profile(name), install, prompt="please greet", model=model)
    assert not result.outcome.ok
    assert result.outcome.refused, result.outcome
    assert "budget" in result.outcome.detail
    assert table.server.bill.requests <= 4


@pytest.mark.parametrize(("name", "model"), MODELS[:2])
def test_says_when_the_provider_fails(bench, request, name, model):
    install = request.getfixturevalue(name)
    table = bench([{"fault": {"kind": "status", "status": 400}}])
    result = table.run(profile(name), install, prompt="please greet", model=model)
    assert not result.outcome.ok
    assert not result.outcome.refused
    assert "ordered by the script" in result.outcome.detail


@pytest.mark.parametrize(("name", "model"), MODELS[:2])
def test_asks_for_nothing_that_runs_elsewhere(bench, request, name, model):
    install = request.getfixturevalue(name)
    table = bench([{"text": "done"}])
    table.run(profile(name), install, prompt="please greet", model=model, output_tokens_max=4096)
    bodies = [json.loads(seen.body) for seen in table.server.seen if seen.body]
    assert bodies
    for body in bodies:
        kinds = {str(tool.get("type", "")) for tool in body.get("tools", [])}
        assert not [kind for kind in kinds if "search" in kind and kind != "tool_search"], kinds
        assert body.get("max_tokens", 4096) <= 4096
        assert body.get("thinking", {}).get("budget_tokens", 0) < 4096
    assert all("content-encoding" not in seen.headers for seen in table.server.seen)


@pytest.mark.parametrize("name", ["claude", "codex"])
def test_an_install_names_its_program(request, name):
    install = request.getfixturevalue(name)
    assert Path(install.path).read_bytes()[:4] == b"\x7fELF"
    assert install.version[0].isdigit()
    assert len(install.sha256) == 64
