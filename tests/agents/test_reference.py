"""The reference agent against the scripted provider and a real broker, outside of any jail."""

import json
import os

import pytest

from inbounds.agents.registry import profile

REFERENCE = profile("reference")


def _run(table, **more):
    install = REFERENCE.find([])
    return table.run(REFERENCE, install, prompt="make it greet", model="gpt-5", **more)


def _turn(name, **arguments):
    return {"calls": [{"name": name, "arguments": arguments}]}


def _results(table):
    """What the tools answered, as the model saw it in the last request."""
    body = json.loads(table.server.seen[-1].body)
    return [message["content"] for message in body["messages"] if message["role"] == "tool"]


def test_works_with_all_its_tools(bench):
    table = bench(
        [
            _turn("list", path="."),
            _turn("read", path="greet.py"),
            _turn("search", pattern="def gr.et", path="."),
            _turn("write", path="deep/er/new.py", content="X = 1\n"),
            _turn("run_tests"),
            {"text": "It greets."},
        ]
    )
    (table.workspace / "greet.py").write_text("def greet():\n    return 'hi'\n")
    result = _run(table)
    assert result.outcome.ok
    assert result.outcome.said == "It greets."
    listed, read, searched, written, tested = _results(table)
    assert listed == ".git/\ngreet.py"
    assert read == "def greet():\n    return 'hi'\n"
    assert searched == "greet.py:1:def greet():"
    assert written == "6 bytes written"
    assert tested == "2 passed in 0.01s"
    assert (table.workspace / "deep/er/new.py").read_text() == "X = 1\n"
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["type"] for event in events] == ["tool"] * 5 + ["said", "result"]


@pytest.mark.parametrize(
    "path", ["../out.txt", "/tmp/inbounds-reference-out.txt", "link/out.txt", "file-link", "a/../../out.txt"]
)
def test_writes_in_the_workspace_only(bench, path):
    table = bench([_turn("write", path=path, content="x"), {"text": "done"}])
    outside = table.root / "outside"
    outside.mkdir()
    (outside / "target").write_text("as it was")
    os.symlink(outside, table.workspace / "link")
    os.symlink(outside / "target", table.workspace / "file-link")
    result = _run(table)
    assert result.outcome.ok
    assert _results(table)[0].startswith("error: ")
    assert sorted(entry.name for entry in outside.iterdir()) == ["target"]
    assert (outside / "target").read_text() == "as it was"
    assert not (table.root / "out.txt").exists()
    assert not os.path.exists("/tmp/inbounds-reference-out.txt")


@pytest.mark.parametrize(
    "call",
    [
        {"name": "shell", "arguments": {"command": "id"}},
        {"name": "read", "arguments": {"path": "none"}},
        {"name": "read", "arguments": {"path": 7}},
        {"name": "read", "arguments": {"path": "x", "more": "y"}},
        {"name": "search", "arguments": {"pattern": "(", "path": "."}},
        {"name": "read", "arguments": "no json"},
        {"name": "write", "arguments": {"path": "", "content": "x"}},
    ],
)
def test_tells_the_model_what_went_wrong(bench, call):
    table = bench([{"calls": [call]}, {"text": "I see."}])
    result = _run(table)
    assert result.outcome.ok
    assert _results(table)[0].startswith("error: ")


@pytest.mark.parametrize("status", [402, 403])
def test_gives_up_at_a_limit(bench, status):
    table = bench([{"fault": {"kind": "status", "status": status}}])
    result = _run(table)
    assert result.outcome.refused
    assert not result.outcome.ok
    assert result.exit_code == 1
    assert table.server.bill.requests == 1


def test_tries_again_where_a_fault_passes(bench):
    table = bench([{"text": "done", "fault": {"kind": "status", "status": 503, "times": 1}}])
    assert _run(table).outcome.ok
    assert table.server.bill.requests == 2


@pytest.mark.parametrize("kind", ["cut", "malformed"])
def test_ends_where_replies_stay_broken(bench, kind):
    table = bench([{"text": "done", "fault": {"kind": kind}}])
    result = _run(table)
    assert not result.outcome.ok
    assert not result.outcome.refused
    assert table.server.bill.requests == 3


def test_a_loop_ends_at_the_turns_that_are_allowed(bench):
    table = bench({"conversations": [{"turns": [_turn("list", path=".")], "loop": True}]})
    result = _run(table, turns_max=5)
    assert not result.outcome.ok
    assert "5 turns" in result.outcome.detail
    assert table.server.bill.requests == 5


def test_reads_an_end_that_is_no_result():
    assert not REFERENCE.read(b"", b"killed", -9).ok
    assert not REFERENCE.read(b'{"type":"result"}\n', b"", 0).ok
    assert not REFERENCE.read(b"\xff\n[1]\nnonsense", b"", 0).ok
