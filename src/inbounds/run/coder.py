"""One iteration: the agent in a fresh jail, gateway and broker attached to its listeners, decoys and resolver watched.

Nothing the agent says is believed: its exit and words are recorded, the tree is judged.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inbounds.agents.profile import AgentProfile, AgentTask, Install
from inbounds.broker.control import BrokerProcess
from inbounds.contracts.bound import Contract
from inbounds.contracts.errors import HostError
from inbounds.contracts.job import BROKER_PORT, GATEWAY_PORT, RESOLVER_PORT, WORK
from inbounds.contracts.paths import joined
from inbounds.gateway.control import GatewayProcess
from inbounds.judges.scope import shown
from inbounds.run import touching
from inbounds.run.building import inside
from inbounds.run.crew import Crew
from inbounds.run.mounts import layer_binds
from inbounds.run.workbench import read_limited
from inbounds.sandbox.decoys import Decoys
from inbounds.sandbox.fileevents import FileEvents
from inbounds.sandbox.gpu import Device
from inbounds.sandbox.reads import Reads
from inbounds.sandbox.resolver import Question, Resolver
from inbounds.sandbox.spec import Bind, JailLimits, JailSpec, Listener
from inbounds.sandbox.volume import Volume

Post = Callable[[str, Mapping[str, Any]], None]
OUTPUT_BYTES_MAX = 16 << 20  # as much of an agent's stdout as is read for its last words
ROLE = "coder"


@dataclass(frozen=True, slots=True)
class Coder:
    """What every iteration of one run shares."""

    contract: Contract
    profile: AgentProfile
    install: Install
    crew: Crew
    gateway: GatewayProcess
    broker: BrokerProcess
    token: str
    limits: JailLimits
    layer: Path | None
    decoys: Decoys
    logs: Path
    post: Post
    say: Post
    files: FileEvents | None = None
    devices: tuple[Device, ...] = ()

    def iterate(self, n: int, prompt: str, volume: Volume, deadline_ms: int) -> None:
        """Run the agent once; posts iteration.started, jail records, agent.said."""
        scratch = self.logs / f"agent-{n}"
        scratch.mkdir(mode=0o700, exist_ok=True)
        asked = self._keep(n, prompt)
        hidden = {self.token: "[token]", prompt: f"[{asked['prompt_file']}]"}
        jail = self.crew.open(self._spec(prompt, volume, deadline_ms), scratch, hidden)
        names: set[str] = set()
        resolver = Resolver(jail.listeners["resolver"], lambda question: self._asked(question, names))
        reads = Reads([] if self.files else [(bind.source, bind.target) for bind in volume.binds()])
        try:
            self.gateway.begin_iteration(n)
            self.gateway.attach(jail.listeners["gateway"], ROLE)
            self.broker.attach(jail.listeners["broker"], ROLE)
            touching.of_tests(self.files, n - 1, self.post, self.contract.build_directories)
            self.say("iteration.started", {"n": n, **asked})
            jail.go()
        except BaseException:
            jail.kill()
            self.crew.finish(jail)
            reads.end()
            raise
        try:
            ended = self.crew.finish(jail, after=lambda: self._words(n, scratch))
        finally:
            seen = reads.end()
        if self.files:
            seen = touching.of_agent(self.files, n, self.post, self.contract.build_directories)
        self.post("files.read", seen.as_record(n, shown))
        resolver.close()
        self.gateway.detach(ROLE)
        self.broker.detach(ROLE)
        if ended.detail:
            self.post("agent.ended", {"n": n, "detail": ended.detail})

    def _keep(self, n: int, prompt: str) -> dict[str, str]:
        """Keep what the agent is asked, on disk before it is asked: the journal has its hash (H15)."""
        content = prompt.encode("utf-8", "backslashreplace")
        stated = hashlib.sha256(content).hexdigest()
        name = f"prompt-{n}.txt"
        if (self.logs / name).exists():  # a leg that begins this iteration once more overwrites no evidence
            name = f"prompt-{n}-{stated[:8]}.txt"
        try:
            fd = os.open(self.logs / name, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(fd)
        except OSError as error:
            raise HostError(f"the prompt cannot be kept: {error.strerror}", where=str(self.logs / name)) from error
        return {"prompt_sha256": stated, "prompt_file": name}

    def _words(self, n: int, scratch: Path) -> None:
        stdout = read_limited(scratch / "stdout", OUTPUT_BYTES_MAX) or b""
        stderr = read_limited(scratch / "stderr", OUTPUT_BYTES_MAX) or b""
        outcome = self.profile.read(stdout, stderr, 0)
        said = (outcome.said or outcome.detail).replace(self.token, "[token]")  # it has it, and may repeat it
        self.post("agent.said", {"n": n, "text": said, "ok": outcome.ok})

    def _asked(self, question: Question, names: set[str]) -> None:
        """One denial a name and iteration: that both address families were asked for says nothing more."""
        if question.name in names:
            return
        names.add(question.name)
        self.post("denial", {"kind": "name", "what": "name", "detail": question.name, "sensitive": False})

    def _spec(self, prompt: str, volume: Volume, deadline_ms: int) -> JailSpec:
        contract = self.contract
        workspace = joined(WORK, contract.thread) if contract.thread != "." else WORK
        task = AgentTask(
            prompt=prompt,
            model=contract.model,
            token=self.token,
            workspace=workspace,
            turns_max=contract.numbers().turns,
        )
        launch = self.profile.launch(self.install, task)
        python_path = [*contract.test_pythonpath, *contract.layer_pythonpath]
        return JailSpec(
            role=ROLE,
            argv=launch.argv,
            cwd=workspace,
            env={**launch.env, "PYTHONPATH": ":".join(f"{WORK}/{path}".removesuffix("/.") for path in python_path)},
            binds=(
                *(Bind(b.source, b.target, writable=b.writable) for b in volume.binds()),
                *layer_binds(self.layer),
                *(Bind(source, target, executable=target in launch.executables) for source, target in launch.binds),
            ),
            listeners=(
                Listener("gateway", "tcp", GATEWAY_PORT),
                Listener("broker", "tcp", BROKER_PORT),
                Listener("resolver", "udp", RESOLVER_PORT),
            ),
            limits=self.limits,
            deadline_ms=deadline_ms,
            files=launch.files,
            decoys=self.decoys.files,
            executables=launch.executables,
            devices=self.devices,
            build=inside(contract.build_directories),
        )
