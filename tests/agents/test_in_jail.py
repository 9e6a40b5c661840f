"""Each agent in a real jail, with what its profile declares and nothing else: no network, no host path, no shell of ours."""

import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from agent_bench import Bench
from jailrig import host_or_skip

from inbounds.agents.profile import AgentTask
from inbounds.agents.registry import profile
from inbounds.contracts.job import BROKER_PORT, GATEWAY_PORT
from inbounds.sandbox.identity import identity
from inbounds.sandbox.jail import spawn
from inbounds.sandbox.spec import Bind, JailSpec, Listener

WORKSPACE = "/work/billing"
DEADLINE_MS = 120_000
WORK = [
    {
        "text": "I write it, and look around.",
        "calls": [
            {"name": "write", "arguments": {"path": "greeting.txt", "content": "hello\nyou\n"}},
            {"name": "read", "arguments": {"path": "greeting.txt"}},
        ],
    },
    {"calls": [{"name": "run_tests"}]},
    {"text": "The greeting is written."},
]


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while piece := source.recv(1 << 16):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:  # either side went away, which ends the relay
        target.close()


def _relay(listener: socket.socket, port: int) -> None:
    """Play the gateway's part: accept from outside what the jail asks, and pass it on unchanged."""
    while True:
        try:
            asked, _ = listener.accept()
        except OSError:
            return
        answered = socket.create_connection(("127.0.0.1", port))
        for pair in ((asked, answered), (answered, asked)):
            threading.Thread(target=_pump, args=pair, daemon=True).start()


def _jailed(table: Bench, name: str, install, model: str, scratch: Path):
    agent, me = profile(name), identity("agents")
    os.chown(table.workspace, me.uid, me.gid)
    task = AgentTask("please greet", model, table.server.key, WORKSPACE)
    launch = agent.launch(install, task)
    spec = JailSpec(
        role="coder",
        argv=launch.argv,
        cwd=WORKSPACE,
        env=launch.env,
        binds=(
            Bind(str(table.workspace), WORKSPACE, writable=True),
            *(Bind(source, target, executable=target in launch.executables) for source, target in launch.binds),
        ),
        listeners=(Listener("gateway", "tcp", GATEWAY_PORT), Listener("broker", "tcp", BROKER_PORT)),
        files=launch.files,
        executables=launch.executables,
        deadline_ms=DEADLINE_MS,
    )
    jail = spawn(spec, identity=me, scratch=scratch)
    try:
        listener = jail.listeners["gateway"]
        listener.settimeout(None)
        threading.Thread(target=_relay, args=(listener, table.server.port), daemon=True).start()
        table.broker.attach(jail.listeners["broker"], "coder")
        jail.go()
        ended = jail.wait(DEADLINE_MS / 1000)
    finally:
        jail.kill()
    stdout, stderr = (scratch / "stdout").read_bytes(), (scratch / "stderr").read_bytes()
    assert ended is not None
    assert ended.reason == "exited", (ended, stderr)
    return agent.read(stdout, stderr, ended.exit_code)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("reference", "gpt-5"),
        pytest.param("claude", "claude-sonnet-4-5", marks=pytest.mark.agents),
        pytest.param("codex", "gpt-5", marks=pytest.mark.agents),
        pytest.param("codex", "gpt-6.1-sol", marks=pytest.mark.agents),
    ],
)
def test_works_with_what_it_declares(bench, request, tmp_path, name, model):
    host_or_skip()
    install = profile(name).find([]) if name == "reference" else request.getfixturevalue(name)
    table = bench(WORK)
    subprocess.run(["rm", "-rf", str(table.workspace / ".git")], check=True)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    outcome = _jailed(table, name, install, model, scratch)
    assert outcome.ok, outcome
    assert outcome.said == "The greeting is written."
    assert (table.workspace / "greeting.txt").read_text() == "hello\nyou\n"
    assert [call.tool for call in table.calls] == ["run_tests"]
