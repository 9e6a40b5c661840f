"""Start an agent outside of any jail, exactly as its profile says, between a scripted provider and a real broker.

The profile's binds become links, its files go below a HOME of its own. Shared by the tests of each agent.
"""

import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from inbounds.agents.profile import AgentLaunch, AgentOutcome, AgentProfile, AgentTask, Install
from inbounds.broker.control import BrokerProcess, Call
from inbounds.broker.tools import Tool
from inbounds.modelserver.server import ModelServer

RUN_TESTS = Tool(
    "run_tests",
    "Run the thread's tests and give their output.",
    {"type": "object", "properties": {}, "additionalProperties": False},
)
SECONDS_MAX = 120


@dataclass
class Result:
    """What an agent did and left."""

    outcome: AgentOutcome
    stdout: bytes
    stderr: bytes
    exit_code: int
    launch: AgentLaunch
    workspace: Path


class Bench:
    """A workspace, a HOME, a provider and a broker for one agent."""

    def __init__(self, root: Path, script: object):
        self.root = root
        self.home, self.workspace, self.programs = root / "home", root / "work", root / "programs"
        for made in (self.home, self.workspace, self.programs):
            made.mkdir()
        subprocess.run(["git", "init", "-q", str(self.workspace)], check=True, env={"HOME": str(self.home)})
        self.server = ModelServer(script).start()
        self.calls: list[Call] = []
        self.broker = BrokerProcess.start(self.server.key, [RUN_TESTS])
        self.broker.on_call(self._called)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.broker_port = listener.getsockname()[1]
            self.broker.attach(listener, "agent")

    def _called(self, call: Call) -> None:
        self.calls.append(call)
        self.broker.answer(call.id, "2 passed in 0.01s")

    def close(self) -> None:
        self.broker.stop()
        self.server.stop()

    def run(self, profile: AgentProfile, install: Install, *, prompt: str, model: str, **more) -> Result:
        task = AgentTask(
            prompt=prompt,
            model=model,
            token=self.server.key,
            workspace=str(self.workspace),
            gateway_url=self.server.url,
            broker_url=f"http://127.0.0.1:{self.broker_port}",
            home=str(self.home),
            programs=str(self.programs),
            **more,
        )
        launch = profile.launch(install, task)
        for source, target in launch.binds:
            if source != target:
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                os.symlink(source, target)
        for name, content in launch.files.items():
            place = self.home / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        done = subprocess.run(
            launch.argv,
            env=dict(launch.env),
            cwd=self.workspace,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        outcome = profile.read(done.stdout, done.stderr, done.returncode)
        return Result(outcome, done.stdout, done.stderr, done.returncode, launch, self.workspace)
