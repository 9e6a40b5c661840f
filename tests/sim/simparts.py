"""The port Parts in the simulated world: what run/parts.py does to a host, done to World, with faults on the way.

Slow parts leave their steps with the worker; between two steps the world goes on.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from simjails import Crew, Jail
from simtrees import JUDGES
from simworker import Steps

from inbounds.contracts.errors import HostError
from inbounds.contracts.limits import Limits
from inbounds.contracts.reasons import Disposal, StopCode
from inbounds.run import amending

if TYPE_CHECKING:
    from simlife import Life

NAMES = {Disposal.KEEP: "kept", Disposal.REVERT: "reverted", Disposal.QUARANTINE: "quarantined"}
DEADLINE_SLACK_MS = 2_000


class Parts:
    """The parts of one life."""

    def __init__(self, life: "Life") -> None:
        self.life, self.sim, self.world, self.rng = life, life.sim, life.sim.world, life.rng
        self.faults = life.sim.faults
        self.crew = self.world.crew = Crew()
        self.world.post = self.post
        self.world.look = self.looks

    def post(self, kind: str, data: Mapping[str, Any]) -> None:
        """Something happened; on its way it may be lost, doubled, late or mangled."""
        if not self.life.alive:
            return
        what = self.faults.event()
        if what == "lost":
            self.sim.note(f"lost {kind}")
            return
        if what == "mangled":
            data = self.faults.mangled(data)
        if what != "late":
            self.life.supervisor.post(kind, data)
        if what in ("late", "doubled"):
            kept = dict(data)
            delay = self.rng.choice((1, 100, self.sim.unit_ms * 10))
            self.life.after(1 + self.rng.randrange(delay), lambda: self.life.supervisor.post(kind, kept))

    # -- at once, and slow

    def accepted(self) -> dict[str, Any]:
        return {
            "run_id": "sim",
            "contract_sha256": self.sim.agreed.sha256(),
            "limits": self.sim.limits.as_json(),
            "profile": self.sim.profile,
            "required_judges": list(JUDGES),
            "conduct": self.sim.agreed.conduct.as_json(),
        }

    def known(self) -> dict[str, Any]:
        totals = self.world.ledger.totals()
        return {"spent_micro_usd": totals.spent_micro_usd, "tokens": totals.spent_tokens,
                "tool_calls": totals.tool_calls}  # fmt: skip

    def preflight(self) -> None:
        self._slow(self._preflight())

    def reopen(self, checkpoint: str, *, restore: bool) -> None:
        self._slow(self._reopen(checkpoint, restore=restore))

    def iterate(self, n: int) -> None:
        self._slow(self._iterate(n))

    def snapshot(self, n: int) -> None:
        self._slow(self._snapshot(n))

    def judge(self, n: int) -> None:
        self._slow(self._judge(n))

    def _slow(self, steps: Steps) -> None:
        self.life.worker.steps = steps

    def _wait(self) -> int:
        return 1 + self.rng.randrange(self.sim.unit_ms)

    def _risk(self, name: str) -> None:
        self.faults.point(f"inside:{name}")
        self.faults.may_raise(name)

    def _open(self, *, paused: bool) -> None:
        self.crew.may_start()
        if self.world.workspace is None:
            self.world.restore("base")
        state = self.life.supervisor.loop.state
        self.world.open_gateway(state.limits, paused=paused)
        self.post("gateway.started", {"pid": 1})

    def _preflight(self) -> Steps:
        yield self._wait()
        self._risk("preflight")
        reasons = ["the host lacks something"] if self.rng.random() < self.sim.preflight_p else []
        if not reasons:
            self._open(paused=False)
            yield self._wait()
            self._run_judge("tester")
        self._risk("preflight")
        self.post(
            "preflight.finished", {"ok": not reasons, "reasons": reasons, "failing": self.world.trees.base.failing}
        )

    def _reopen(self, checkpoint: str, *, restore: bool) -> Steps:
        yield self._wait()
        self._risk("reopen")
        reasons = ["the host lacks something"] if self.rng.random() < self.sim.preflight_p else []
        if not reasons:
            self.crew.may_start()
            if restore:
                self.world.restore(checkpoint or "base")
            self._risk("reopen")
            self._open(paused=self.life.supervisor.loop.state.escalated_until_ms > 0)
            yield self._wait()
            self._run_judge("tester")
        self.post("run.reopened", {"ok": not reasons, "reasons": reasons, "checkpoint": checkpoint})

    def _run_judge(self, role: str) -> None:
        jail = self.crew.open(role)
        jail.go()
        self.world.executes(role)
        jail.end("exited")

    def _iterate(self, n: int) -> Steps:
        jail = self.crew.open("coder")
        self.sim.witness.opened_for(n)
        try:
            self.post("jail.started", {"role": "coder", "n": n})
            yield self._wait()
            self._risk("iterate")
            gateway = self.world.gateway
            assert gateway is not None
            gateway.begin_iteration()
            written = self.life.supervisor.loop.announce("iteration.started", {"n": n})
            while not written.is_set():
                yield 1
            jail.go(written.fault)
        except BaseException:
            jail.end("killed")
            self._exited(jail, n)
            raise
        state = self.life.supervisor.loop.state
        left = state.limits.wall_clock_ms - (self.life.supervisor.loop.now_ms() - state.started_ms)
        self.life.after(max(1, left + DEADLINE_SLACK_MS), lambda: self._late(jail))
        self.world.work(jail, self.sim.kind(n), self.sim.unit_ms)
        yield jail
        self._exited(jail, n)

    def _late(self, jail: Jail) -> None:
        jail.end("deadline")

    def _exited(self, jail: Jail, n: int) -> None:
        self.post("jail.exited", {"role": jail.role, "n": n, "reason": jail.reason, "exit_code": 0})

    def _taken(self, n: int) -> dict[str, Any]:
        tree = self.world.workspace
        if tree is None:
            raise HostError("there is no workspace")
        if self.world.workspace_full:
            raise HostError("no room for a snapshot")
        standing = self.world.trees.known[self.world.standing()]
        self.world.snapshots.add(tree.name)
        differ = 0 if tree is standing else max(1, abs(tree.changed - standing.changed))
        return {"n": n, "tree": tree.name, "changed": tree.changed, "iteration_changed": differ,
                "complete": tree.complete, "why": "" if tree.complete else "a link out of it"}  # fmt: skip

    def _snapshot(self, n: int) -> Steps:
        yield self._wait()
        self._risk("snapshot")
        self.sim.witness.quiet()
        self.post("snapshot.taken", self._taken(n))
        self._risk("snapshot")

    def _judge(self, n: int) -> Steps:
        name = self.life.supervisor.loop.state.tree
        tree = self.world.trees.known[name]
        standing = self.world.trees.known[self.world.standing()]
        for judge in JUDGES:
            yield self._wait()
            self._risk("judge")
            self._run_judge(judge)
            outcome, rules = tree.verdict(judge)
            self.post("verdict", {"judge": judge, "outcome": outcome, "summary": judge, "rules": list(rules), "n": n})
            if rules:
                return
        self.world.judged.add((n, name))
        self.post("iteration.finished", {
            "n": n, "tree": name, "changed": tree is not standing, "progress": tree.failing < standing.failing,
            "acceptance_failing": tree.failing, "failing_after": tree.failing + tree.regressions,
            "regressions": tree.regressions,
        })  # fmt: skip
        self._risk("judge")

    # -- in the loop's own thread: while one takes its time, everything else goes on

    def _meanwhile(self, name: str) -> None:
        self._risk(name)
        if self.rng.random() < 0.5:
            self.life.pass_(1 + self.rng.randrange(min(500, self.sim.unit_ms)))

    def halt_agent(self) -> None:
        self._meanwhile("halt_agent")
        self.crew.kill("coder")

    def commit(self, n: int, tree: str, head: tuple[int, str]) -> dict[str, Any]:
        del head
        self._meanwhile("commit")
        made = self.world.commit(n, tree)
        self.sim.witness.committed(n, tree)
        self._risk("commit")
        return {"n": n, "commit": made, "tree": tree, "branch": "inbounds/sim"}

    def slow_down(self, interval_ms: int, cpu_percent: int) -> dict[str, Any]:
        self._risk("slow_down")
        if self.world.gateway is not None:
            self.world.gateway.interval_ms = interval_ms
        return {"interval_ms": interval_ms, "cpu_percent": cpu_percent, "cpu": "held"}

    def escalate(self, why: str, until_ms: int) -> list[dict[str, Any]]:
        if self.world.gateway is not None:
            self.world.gateway.paused = True
        self._meanwhile("escalate")
        return [{"channel": "sim", "ok": True, "detail": f"{why} {until_ms}"}]

    def apply_limits(self, limits: Limits, *, unpause: bool) -> None:
        gateway = self.world.gateway
        if gateway is not None:
            gateway.amend(limits)
            if unpause:
                gateway.paused = False
        self._meanwhile("apply_limits")

    def close_doors(self) -> str:
        self._meanwhile("close_doors")
        if self.world.gateway is not None:
            self.world.gateway.close_lease()
        self._meanwhile("close_doors")
        return "closed"

    def halt(self) -> str:
        self.faults.point("inside:halt")
        ended = self.crew.halt()
        self._meanwhile("halt")
        return f"{ended} jails ended"

    @property
    def holding(self) -> bool:
        return False

    def persist(self) -> tuple[dict[str, Any], str]:
        self._meanwhile("persist")
        if self.world.workspace is None:
            return {}, "there was no workspace yet"
        taken = self._taken(self.life.supervisor.loop.state.n)
        self.world.evidence.add(self.sim.witness.legs)
        return taken, f"tree {taken['tree']}"

    def write_manifest(self) -> None:
        self._risk("write_manifest")

    def survivors(self) -> str:
        self._meanwhile("survivors")
        if self.crew.halt():
            raise HostError("a jail was started during the stop")
        return "none"

    def dispose(self, disposal: Disposal, checkpoint: str) -> tuple[str, str]:
        self._meanwhile("dispose")
        world = self.world
        if world.workspace is None and disposal is not Disposal.QUARANTINE:
            return NAMES[disposal], "there was no workspace"
        match disposal:
            case Disposal.KEEP:
                world.workspace = None
            case Disposal.REVERT:
                world.restore(checkpoint or "base")
            case Disposal.QUARANTINE:
                if world.workspace is not None:
                    world.quarantined.append(world.workspace.name)
                world.workspace = None
        self._risk("dispose")
        return NAMES[disposal], "done"

    def stop_programs(self) -> None:
        self._meanwhile("stop_programs")
        if self.world.gateway is not None:
            self.world.gateway.die()

    def promote(self, *, again: bool) -> dict[str, Any] | None:
        if not self.sim.promote_auto:
            return None
        self._risk("promote")
        commit = self.world.branch[-1].name if self.world.branch else ""
        if not commit:
            return {"outcome": "refused", "target": "development", "commit": "", "old": "", "reasons": ["no commit"]}
        if not (again and commit in self.world.development):
            self.world.land(commit)
        self._risk("promote")
        return {"outcome": "promoted", "target": "development", "commit": commit, "old": "", "reasons": []}

    def tell(self, code: StopCode) -> list[dict[str, Any]]:
        self._meanwhile("tell")
        return [{"channel": "sim", "ok": True, "detail": code.value}]

    def close(self) -> str:
        self.faults.point("inside:close")
        return "the report cannot be written" if self.rng.random() < self.faults.raise_p else ""

    # -- watching

    def looks(self) -> None:
        """Something is there to be seen: the watch sees it within half a second."""
        self.life.after(1 + self.rng.randrange(500), self._looked)

    def _looked(self) -> None:
        if not self.life.watching:
            return
        try:
            self.watch()
        except Exception as error:
            self.life.supervisor.fault(error)

    def watch(self) -> None:
        asked = self.world.requests
        if asked.stop is not None:
            said, asked.stop = asked.stop, None
            self.post("operator.stopped", said)
        if asked.signal:
            self.post("operator.stopped", {"who": "a signal", "why": asked.signal, "incident": False})
            asked.signal = ""
        if asked.amend is not None:
            said, asked.amend = asked.amend, None
            contract = self.sim.agreed.contract()
            self.post(*amending.read(said, contract, self.life.supervisor.loop.state.version))
        if asked.tampered:
            self.post("part.failed", {"part": "contract", "detail": "it is not what was signed"})
        state = self.life.supervisor.loop.state
        used = self.world.used
        if self.world.workspace is not None and (used[0] > state.limits.disk_bytes or used[1] > state.limits.inodes):
            self.post("volume.polled", {"bytes": used[0], "inodes": used[1]})
