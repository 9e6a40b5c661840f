"""The attack: a case's program in a real jail, composed as a run's coder or tester gets it, and what the judges say.

Workspace, binds, listeners, decoys, resolver and limits are those of a run; gateway and tool broker answer nothing
here. Knows nothing of outcomes.
"""

import dataclasses
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inbounds.contracts.job import BROKER_PORT, GATEWAY_PORT, RESOLVER_PORT, WORK
from inbounds.drill import control, judged, prelude
from inbounds.drill.arena import Arena
from inbounds.drill.case import Case
from inbounds.drill.ground import Field
from inbounds.drill.mode import House, Mode
from inbounds.sandbox.census import Process, look, members
from inbounds.sandbox.decoys import Decoys
from inbounds.sandbox.host import jail_python
from inbounds.sandbox.jail import Jail
from inbounds.sandbox.resolver import Resolver
from inbounds.sandbox.spec import Bind, JailExit, JailSpec, Listener
from inbounds.sandbox.volume import Volume

LOOK_S = 0.05  # how often it is seen which processes belong to the jail
LATER_S = 30  # beyond a case's deadline: for PID 1 to notice, and a machine that is busy
DENIALS_MAX = 200


@dataclass(slots=True)
class _Watched:
    """What resolver and decoys told, and every process of the jail that was ever seen."""

    denials: list[str] = dataclasses.field(default_factory=list)
    family: dict[int, Process] = dataclasses.field(default_factory=dict)

    def denied(self, what: str) -> None:
        if len(self.denials) < DENIALS_MAX:
            self.denials.append(what)


def attack(case: Case, arena: Arena, field: Field, mode: Mode) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run ATTACK in a jail, judge the workspace, hand it back if nothing is found; before and after."""
    scratch = arena.directory / "jail"
    scratch.mkdir(mode=0o700)
    arena.host |= {**field.places(WORK), "limits": control.limits_of(case, field)}
    with mode.house(scratch, field.ground.limits) as house:
        return _in(house, case, arena, field, scratch)


def _in(house: House, case: Case, arena: Arena, field: Field, scratch: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    volume = field.volume(house.place / "workspace", house.identity)
    work = Path(volume.root)
    before = {"said": {}, "findings": [], "denials": [], **arena.look(work)}
    watched = _Watched()
    decoys = Decoys(house.place / "decoys", house.identity, lambda name: watched.denied(f"decoy:{name}"))
    try:
        ended = _run(case, house, watched, scratch, _spec(case, arena, field, volume, decoys), arena.stopping)
    finally:
        decoys.close()
    after = control.seen(
        {
            "reason": ended.reason,
            "code": ended.exit_code,
            "signal": ended.signal,
            "alive": _survivors(watched.family),
            "ms": ended.ms,
            "stdout": control.text_of(scratch / "stdout"),
            "stderr": control.text_of(scratch / "stderr"),
        }
    )
    stood = arena.look(work)["work"]
    after["findings"] = judged.findings(field, volume)
    if case.later and not after["findings"]:
        control.later(case, arena, judged.hand_back(field, volume, arena.directory / "handed-back"))
    after = control.finish(after, arena, work)
    return before, {**after, "work": stood, "denials": watched.denials}


def _run(
    case: Case, house: House, watched: _Watched, scratch: Path, spec: JailSpec, stopping: threading.Event
) -> JailExit:
    jail = house.spawn(spec, scratch)
    resolver: Resolver | None = None
    try:
        if "resolver" in jail.listeners:
            resolver = Resolver(jail.listeners["resolver"], lambda question: watched.denied(f"name:{question.name}"))
        for name in ("gateway", "broker"):  # nobody answers there: connecting is refused rather than left waiting
            if name in jail.listeners:
                jail.listeners[name].close()
        jail.go()
        return _follow(jail, watched, case.deadline_s + LATER_S, stopping)
    finally:
        jail.kill()
        if resolver:
            resolver.close()


def _follow(jail: Jail, watched: _Watched, seconds: float, stopping: threading.Event) -> JailExit:
    """Wait for the end, noting every process of the jail; whatever is left of them is counted afterwards."""
    until = time.monotonic() + seconds
    ended = None
    while ended is None:
        init = look(jail.pid)
        if init:
            watched.family |= {process.pid: process for process in members(init)}
        ended = jail.wait(LOOK_S)
        if ended is None and (time.monotonic() > until or stopping.is_set()):
            ended = jail.kill()
    return ended


def _survivors(family: dict[int, Process]) -> int:
    """How many processes of the jail still live now that it has ended."""
    left = 0
    for process in family.values():
        now = look(process.pid)
        left += now is not None and now.started == process.started and not now.ended
    return left


def _spec(case: Case, arena: Arena, field: Field, volume: Volume, decoys: Decoys) -> JailSpec:
    assert isinstance(case.attack, str)
    policy = field.ground
    spec = JailSpec(
        role=case.role,
        argv=(jail_python(), "-I", "-c", prelude.program(case.attack, arena.host, field.work())),
        cwd=field.work(),
        env={"PYTHONPATH": ":".join(f"{WORK}/{path}".removesuffix("/.") for path in policy.pythonpath)},
        binds=(*(Bind(b.source, b.target, writable=b.writable) for b in volume.binds()), *policy.layer),
        limits=replace(policy.limits, **dict(case.limits or {})),
        deadline_ms=case.deadline_s * 1000,
    )
    if case.role == "tester":  # a judge's jail: no listener, no decoy, servers of its own
        return replace(spec, local_servers=True)
    return replace(
        spec,
        listeners=(
            Listener("gateway", "tcp", GATEWAY_PORT),
            Listener("broker", "tcp", BROKER_PORT),
            Listener("resolver", "udp", RESOLVER_PORT),
        ),
        decoys=decoys.files,
    )
