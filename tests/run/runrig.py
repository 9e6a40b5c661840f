"""A real run for tests: the demo's stage, the bundled model server, the real supervisor, jails, gateway and judges.

Only the provider is ours (it is the edge of the world). Layers are built once a session.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inbounds.agents.profile import Install
from inbounds.contracts.bound import Contract, decode
from inbounds.contracts.documents import LimitsText
from inbounds.demo import acts, outside, stage
from inbounds.journal import append_only, chain
from inbounds.modelserver.server import ModelServer
from inbounds.run import authorize, bind, follow, launch, recovery
from inbounds.run.home import Home
from inbounds.run.order import Order, order

SECONDS_MAX = 120


def write(path: str, content: str) -> dict[str, Any]:
    """One model turn that writes a file with the reference agent's own tool."""
    return {"calls": [{"name": "write", "arguments": {"path": path, "content": content}}]}


def script(*turns: dict[str, Any], loop: bool = False) -> dict[str, Any]:
    """A script of one conversation."""
    return {"conversations": [{"turns": list(turns), "loop": loop}]}


@dataclass
class Ran:
    """A run that is over (or not): its directory and what its journal says."""

    home: Home
    run_dir: Path

    @property
    def run_id(self) -> str:
        return self.run_dir.name

    @property
    def contract(self) -> Contract:
        return decode((self.run_dir / launch.CONTRACT).read_bytes())

    @property
    def records(self) -> list[chain.Record]:
        return list(chain.linked(chain.records(self.run_dir / launch.JOURNAL)))

    def data(self, kind: str) -> list[dict[str, Any]]:
        return [dict(r.data) for r in self.records if r.kind == kind]

    @property
    def code(self) -> str:
        """The code of the last leg's stop; each leg has one."""
        stops = self.data("stop.decided")
        assert len(stops) == 1 + len(self.data("run.reauthorized")), stops
        return str(stops[-1]["code"])

    @property
    def manifest(self) -> dict[str, Any]:
        found = json.loads((self.run_dir / "manifest.json").read_bytes())
        assert isinstance(found, dict)
        return found

    def alive(self) -> list[int]:
        return outside.processes_of(self.run_id)

    def kinds(self) -> list[str]:
        """What happened, in order; the checkpoints that sign it are left out."""
        return [record.kind for record in self.records if record.kind != "journal.checkpoint"]


@dataclass
class Living:
    """A run under way."""

    ran: Ran
    started: launch.Started

    def until(
        self, kind: str, *, seconds: float = 60, where: Callable[[Mapping[str, Any]], bool] = lambda _: True
    ) -> None:
        """Wait for a record of this kind."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            path = self.ran.run_dir / launch.JOURNAL
            if path.exists():
                for line in path.read_bytes().split(b"\n")[:-1]:
                    record = json.loads(line)
                    if record["kind"] == kind and where(record["data"]):
                        return
            assert self.started.process.poll() is None, (self.ran.records[-8:], Rig.log(self.ran))
            time.sleep(0.02)
        raise AssertionError(f"no {kind} within {seconds} s")

    def kill_supervisor(self) -> None:
        self.started.process.send_signal(signal.SIGKILL)
        self.started.process.wait(10)

    def end(self) -> Ran:
        self.started.process.wait(SECONDS_MAX)
        return self.ran


@dataclass
class Rig:
    """Makes runs on one stage."""

    home: Home
    stage: stage.Stage
    server: ModelServer | None = None
    living: list[Living] = field(default_factory=list)

    def plays(self, script: Any) -> ModelServer:
        """Have the provider play this script from now on."""
        for journal in (self.home.path / "runs").glob("*/journal.jsonl"):
            append_only.release_path(journal)  # of supervisors that were killed and never recovered
        if self.server is not None:
            self.server.stop()
        self.server = ModelServer(script).start()
        return self.server

    def order(
        self, *, install: Install | None = None, limits: LimitsText | None = None, gpus: Any = None, **wish: Any
    ) -> Any:
        assert self.server is not None
        wish = {"agent": "reference", "model": acts.MODEL, "limits": limits or LimitsText(), **wish}
        gateway = acts.provider(self.server)
        asked = Order(self.stage.thread, bind.Wish(**wish))
        return order(self.home, asked, gateway=gateway, key=self.stage.key, install=install, gpus=gpus)

    def start(self, script: Any, *, change: Callable[[Contract], Contract] | None = None, **kwargs: Any) -> Living:
        """Start a run; `change` alters the bound contract before it is signed."""
        self.plays(script)
        made = self.order(**kwargs)
        contract = change(made.contract) if change else made.contract
        contract = authorize.authorize(self.home, contract, ask=lambda: True, key=self.stage.key)
        run_dir = launch.prepare(self.home, contract, made.blast, made.settings)
        living = Living(Ran(self.home, run_dir), launch.start(self.home, run_dir, made.upstreams()))
        self.living.append(living)
        return living

    def run(self, script: Any, **kwargs: Any) -> Ran:
        """A run to its end."""
        living = self.start(script, **kwargs)
        for _ in follow.follow(living.ran.run_dir, lambda: living.started.process.poll() is None):
            pass
        ran = living.end()
        assert recovery.phase(self.home, ran.run_id) == "finished", self.log(ran)
        return ran

    @staticmethod
    def log(ran: Ran) -> str:
        return (ran.run_dir / "logs" / "supervisor.log").read_text()

    def edit(self, path: str, text: str) -> None:
        """Change a contract file of the stage (contracts are read from the work tree)."""
        (self.stage.repository / path).write_text(text, encoding="utf-8")

    def close(self) -> None:
        for living in self.living:
            if living.started.process.poll() is None:
                os.kill(living.started.process.pid, signal.SIGKILL)
                living.started.process.wait(10)
        if self.server is not None:
            self.server.stop()
