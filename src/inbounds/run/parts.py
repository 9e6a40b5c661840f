"""The parts of one run and what the supervisor has them do: host and baseline, agent, snapshot, judges, stop.

Made lazily, so that recovery opens only what is left on disk. Each method is one effect's work; none decides.
"""

import os
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from inbounds.agents.profile import Install
from inbounds.agents.registry import profile
from inbounds.broker.control import BrokerProcess
from inbounds.contracts.bound import Contract
from inbounds.contracts.canonical import digest
from inbounds.contracts.errors import HostError
from inbounds.contracts.limits import Limits
from inbounds.contracts.reasons import DISPOSED, Disposal, StopCode
from inbounds.contracts.units import show_duration
from inbounds.gateway.control import GatewayProcess
from inbounds.gateway.ledger import standing
from inbounds.judges.scope import shown
from inbounds.kernel.events import Failed, SnapshotTaken
from inbounds.kernel.state import Phase, State
from inbounds.notify.notice import Message, Settings
from inbounds.notify.tell import tell
from inbounds.run import (
    committing,
    gate,
    judging,
    preflight,
    promotion,
    prompt,
    replay,
    stopping,
    tools,
    touching,
    versions,
)
from inbounds.run.building import jail_limits
from inbounds.run.coder import Coder
from inbounds.run.crew import Crew
from inbounds.run.granting import Granted
from inbounds.run.home import Home
from inbounds.run.housing import DECOYS, JOBS, WORKSPACE, Housing
from inbounds.run.launch import BLAST, SETTINGS
from inbounds.run.observing import HandIn, Observer
from inbounds.run.ports import Post
from inbounds.run.preflight import Found
from inbounds.run.witness import STAMPS, Witness
from inbounds.sandbox.decoys import Decoys
from inbounds.sandbox.maturity import LEVEL_MAX
from inbounds.sandbox.restraint import CGROUP_FREEZE
from inbounds.sandbox.volume import Volume
from inbounds.store.descent import delete_tree
from inbounds.store.snapshot import Snapshot
from inbounds.store.store import Store
from inbounds.store.tree import Change

TOKEN_BYTES = 32
DEADLINE_SLACK_MS = 2_000  # the kernel stops at the limit; the jail's own deadline is the second wall


class Parts:
    """Everything of one run besides the loop."""

    def __init__(
        self, home: Home, run_dir: Path, contract: Contract, *, post: Post, say: Post, hand_in: HandIn,
        state: Callable[[], State], now_ms: Callable[[], int], keys_fd: int, journal_key: str = "",
    ) -> None:  # fmt: skip
        """Open the store only; the rest is made by preflight or by reopening.

        `say` returns when it is on disk, `hand_in` tells later; `now_ms` is the run's own time for any thread.
        """
        self.home, self.run_dir, self.contract, self.post, self._say = home, run_dir, contract, post, say
        self.store = Store.open(contract.store)
        self.housing = Housing(contract, run_dir, self._owner_before)
        self._state, self._now_ms = state, now_ms
        self.crew = Crew(self.housing.identity, post, self._n)
        self._keys_fd, self._journal_key = keys_fd, journal_key
        self._settings = preflight.read_settings(run_dir / SETTINGS)
        self._gpu = Granted(contract, self._settings, self.crew.pids)
        self._token = secrets.token_urlsafe(TOKEN_BYTES)
        self._volume: Volume | None = None
        self._gateway: GatewayProcess | None = None
        self._broker: BrokerProcess | None = None
        self._bench: judging.Bench | None = None
        self._coder: Coder | None = None
        self._decoys: Decoys | None = None
        self._tools: tools.Tools | None = None
        conduct = contract.conducted()
        self.witness = Witness(
            lambda: self._gateway,
            home.path / "anchors" / f"{contract.run_id}{STAMPS}",
            conduct.timestamp_url,
            conduct.timestamp_ca,
        )
        self._left: Snapshot | None = None
        self._snapshot: Snapshot | None = None
        self._aside: tuple[str, ...] = ()
        self.holding = False
        self._limiting = threading.Lock()
        self.observer = Observer(
            run_dir, contract, self.store, self.crew, post=post, hand_in=hand_in, state=state, limits=self._limits,
            volume=lambda: self._volume, jobs=lambda: self.housing.place / JOBS, now_ms=now_ms, gpu=self._gpu.finding,
        )  # fmt: skip

    # -- effects

    def accepted(self) -> dict[str, Any]:
        """The journal's first word about the run: what was agreed, by hash."""
        contract = self.contract
        blast = preflight.read_settings(self.run_dir / BLAST)
        return {
            "run_id": contract.run_id,
            "plan_id": contract.plan.plan_id,
            "plan_sha256": contract.plan_sha256,
            "requirements": [
                {"id": r.id, "sha256": contract.requirements_sha256[r.id], "owner": r.owner}
                for r in contract.requirements
            ],
            "thread": contract.thread,
            "policy_sha256": contract.policy_sha256,
            "contract_sha256": contract.sha256(),
            "blast_radius_sha256": digest(blast),
            "operator": contract.operator,
            "agent": {"name": contract.agent, "version": contract.agent_version, "sha256": contract.agent_sha256},
            "model": contract.model,
            "base_commit": contract.base_commit,
            "base_tree": contract.base_tree,
            "store": contract.store,
            "branch": contract.branch,
            "mode": contract.mode,
            "limits": contract.limits,
            "conduct": contract.conduct,
            "budget_micro_usd": contract.numbers().budget_micro_usd,
            "profile": contract.profile,
            "required_judges": list(judging.REQUIRED),
            "journal_key": self._journal_key,
            "versions": versions.collect(contract.agent, contract.agent_version, contract.layer),
        }

    def known(self) -> dict[str, Any]:
        """run.recovered's data: what the ledger knows of the run, and what died."""
        found = standing(self.home.ledger, self.contract.run_id)
        if found is None:  # no gateway had been started
            return {"spent_micro_usd": 0, "tokens": 0, "tool_calls": 0}
        totals = found.totals
        return {
            "spent_micro_usd": totals.spent_micro_usd,
            "tokens": totals.spent_tokens,
            "tool_calls": totals.tool_calls,
            "reserved_micro_usd": totals.reserved_micro_usd,
            "open": found.open,
            "in_doubt": found.in_doubt,
        }

    def preflight(self) -> None:
        """Everything that must hold before an agent starts; posts preflight.finished."""
        found = Found()
        self._move_in(found)
        preflight.agent(self.contract, self._settings, found)
        preflight.signature(self.contract, found)
        preflight.drilled(self.home, self.contract, found)
        if found.ok:
            self._clear()
            self._open_parts()
            preflight.baseline(self._the_bench(), found)
        if found.ok:
            preflight.budget(self.home, self.contract, found)
        self.post("preflight.finished", found.as_record())

    def reopen(self, checkpoint: str, *, restore: bool) -> None:
        """Take a run up again whose supervisor died or whose stop was re-authorized; posts run.reopened."""
        found = Found()
        self._move_in(found)
        preflight.agent(self.contract, self._settings, found)
        tree = checkpoint or self.contract.base_tree
        if found.ok:
            self._clear()
            self._open_parts(tree if restore else "")
            preflight.baseline(self._the_bench(), found)
        if found.ok:
            if self._volume is not None and not restore:  # its first look opens every file: before the agent's are told
                self._volume.snapshot(alive=False)
            self._the_bench().take_up(self._standing_tree())
            if self._state().escalated_until_ms:
                self._the_gateway().pause("an operator is asked whether the run may go on")
        told = {"enforcement": found.enforcement, "level": found.level, "checkpoint": tree, "restored": restore}
        self.post("run.reopened", {"ok": found.ok, "reasons": found.reasons, **told})

    def iterate(self, n: int) -> None:
        """Let the agent work once."""
        assert self._coder is not None
        assert self._volume is not None
        bench = self._the_bench()
        self.housing.extend(self._state().started_ms, self._limits())
        left_ms = self._limits().wall_clock_ms - (self._now_ms() - self._state().started_ms)
        text = prompt.compose(self.contract, n, bench.failing, bench.output if n > 1 else "")
        self._coder.iterate(n, text, self._volume, max(1, left_ms + DEADLINE_SLACK_MS))

    def snapshot(self, n: int) -> None:
        """Turn the workspace into a tree; posts snapshot.taken."""
        assert self._volume is not None
        left = self._volume.snapshot(alive=False)  # the agent's jail has ended
        self._left, self._snapshot = left, self._the_bench().set_aside(left)
        self._aside = tuple(sorted(judging.touched(left) - judging.touched(self._snapshot)))
        record = {**self._record(n, left), "tree": self._snapshot.tree, "left": left.tree}
        self.post(SnapshotTaken.KIND, {**record, "set_aside": [*map(shown, self._aside)]})

    def judge(self, n: int) -> None:
        """Have every judge speak about the last snapshot."""
        assert self._left is not None
        assert self._snapshot is not None

        def post(kind: str, data: Mapping[str, Any]) -> None:
            touching.of_tests(
                self.housing.files, n, self.post, self.contract.build_directories
            )  # before the word on which the run may stop
            self.post(kind, data)

        self._the_bench().judge(n, self._left, self._snapshot, post)

    def halt_agent(self) -> None:
        """End the agent's jail; the iteration is judged on what stands."""
        self.crew.kill("coder")

    def commit(self, n: int, tree: str, head: tuple[int, str]) -> dict[str, Any]:
        """Put the tree on the agent branch (K1, K6)."""
        when = self._now_ms() // 1_000
        made = committing.commit(self.store, self.contract, n=n, tree=tree, head=head, when=when)
        return {"n": n, "commit": made, "tree": tree, "branch": self.contract.branch}

    def slow_down(self, interval_ms: int, cpu_percent: int) -> dict[str, Any]:
        """Requests keep an interval, the agent's processes get a share of a processor (E9)."""
        self._the_gateway().pace(interval_ms)
        done = self.crew.slow(cpu_percent)
        return {"interval_ms": interval_ms, "cpu_percent": cpu_percent, "cpu": done}

    def escalate(self, why: str, until_ms: int) -> list[dict[str, Any]]:
        """Pause the lease, and ask a person (G8)."""
        self._the_gateway().pause("an operator is asked whether the run may go on")
        left = show_duration(max(1, until_ms - self._now_ms()))
        run_id = self.contract.run_id
        return self._told("escalation", f"{why}; without an answer in {left} the run ends", f"inbounds amend {run_id}")

    def apply_limits(self, limits: Limits, *, unpause: bool) -> None:
        """Have the amended limits hold at the gateway from now on (E8)."""
        with self._limiting:
            if self._gateway is None:
                return  # `_open_parts` reads those in force when there is one
            self._amend(self._gateway, limits)
            if unpause:
                self._gateway.unpause()

    def _amend(self, gateway: GatewayProcess, limits: Limits) -> None:
        gateway.amend(
            run_micro_usd=limits.budget_micro_usd,
            request_micro_usd=limits.request_micro_usd,
            run_tokens=limits.tokens,
            tool_calls=limits.tool_calls,
            turns=limits.turns,
        )

    def close_doors(self) -> str:
        """Stop, step 1."""
        if self._tools is not None:
            self._tools.close()
        if self._broker is not None:
            self._broker.close()
        if self._gateway is not None and not self._gateway.close_lease("the run is stopping"):
            return "the lease is closed; what was in flight is charged at its bound"
        return "gateway lease and tool broker are closed"

    def halt(self) -> str:
        """Rootless has no freezer of its own: the kill is the freeze, and comes before the evidence."""
        if self.housing.slot is not None:
            held = self.crew.freeze()
            self.holding = any(how == CGROUP_FREEZE for how in held.values())
            return "; ".join(f"{jail}: {how}" for jail, how in held.items()) or "no jail was alive"
        return f"{self.crew.halt()} jail(s) ended; without a delegated cgroup the kill comes before the evidence"

    def persist(self) -> tuple[dict[str, Any], str]:
        """Stop, step 3: the workspace's tree and diff are kept whatever becomes of it; the snapshot's record."""
        stopping.give_way(*self.observer.hold)
        self.crew.move_in(self.housing.again())
        if (volume := self._found_volume()) is None:
            return {}, "there was no workspace yet"
        taken = volume.snapshot()
        stopping.evidence(self.store, self.contract, self.run_dir, taken.tree)
        # Files set aside are written, as an earlier record says, and no part of the result.
        result = replace(taken, changes=tuple(c for c in taken.changes if c.path not in self._aside))
        return self._record(self._n(), result), f"tree {taken.tree}"

    def write_manifest(self) -> None:
        """The manifest of the journal as it stands."""
        stopping.write_manifest(self.run_dir)

    def survivors(self) -> str:
        """Stop, step 4: nothing of the run is alive; HostError if a process is."""
        held, self.holding = self.holding, False
        if self.crew.halt() and not held:
            raise HostError("a jail was started during the stop", where=self.contract.run_id)
        return self.housing.survivors()

    def dispose(self, disposal: Disposal, checkpoint: str) -> tuple[str, str]:
        """Stop, step 4: keep, revert or quarantine."""
        self.housing.again()
        volume = self._found_volume()
        if self._decoys is not None:  # they stand where the workspace does
            self._decoys.close()
        if volume is None:
            delete_tree(str(self.housing.place / WORKSPACE))  # half made, or half discarded, by a process that died
            return DISPOSED[disposal], f"there was no workspace{self.housing.leave(Disposal.KEEP)}"
        tree, room = checkpoint or self.contract.base_tree, self.housing.room(self._limits())
        name, detail = stopping.dispose(volume, disposal, self.run_dir, tree, room)
        return name, detail + self.housing.leave(disposal)

    def stop_programs(self) -> None:
        """End gateway, broker and watchers; they are no part of the run's result."""
        self._gpu.end()
        for part in (self._tools, self._broker, self._gateway):
            if part is not None:
                part.stop()
        if self._decoys is not None:
            self._decoys.close()

    def promote(self, *, again: bool) -> dict[str, Any] | None:
        """Ask the gate to move `development` where policy lets it by itself (K3)."""
        if not self.contract.promote_auto or promotion.standing(self.run_dir).landed:
            return None
        known = promotion.landed(self.contract, self.run_dir, "development") if again else None
        return known or promotion.promote(self.contract, self.run_dir, "development")

    def tell(self, code: StopCode) -> list[dict[str, Any]]:
        """Tell a person over the channels that policy names."""
        done = code is StopCode.DONE and self.contract.promote_auto
        return self._told(code.value, self._why(), "" if done else f"inbounds review {self.contract.run_id}")

    def close(self) -> str:
        """Manifest and report behind the last record."""
        self.witness.end()
        stopping.write_manifest(self.run_dir)
        return stopping.write_report(self.run_dir)

    # -- watching

    def watch(self) -> None:
        """What people ask for, whether the frozen documents are what was signed, what the volume holds."""
        self.observer.look()

    # -- making

    def _n(self) -> int:
        return self._state().n

    def _limits(self) -> Limits:
        """The limits in force, amendments included."""
        state = self._state()
        return self.contract.numbers() if state.phase is Phase.NEW else state.limits

    def _clear(self) -> None:
        """Remove what a process that died left half done and nobody needs."""
        for name in (JOBS, DECOYS):
            delete_tree(str(self.housing.place / name))

    def _move_in(self, found: Found) -> None:
        """Have a slot, in hardened mode, and measure the host where the run's jails will be."""
        try:
            self.crew.move_in(self.housing.open(self._limits(), self._service_gone, self._events_lost))
        except HostError as fault:  # never weakened: without its slot the run does not start
            found.reasons.append(f"the run is to be hardened: {fault.one_line()}")
        preflight.host(self.contract, found, self.housing.slot)
        self._gpu.begin(self.housing.identity, found.reasons, found.enforcement)

    def _events_lost(self, why: str) -> None:
        """Files read and written are then not all that there were: level 3 promises them (H5, P3)."""
        if self.contract.level >= LEVEL_MAX:
            self.post(Failed.KIND, {"part": "host", "detail": why})

    def _service_gone(self) -> None:
        self.post(Failed.KIND, {"part": "host", "detail": "the host service ended this run's slot"})

    def _open_parts(self, restore: str = "") -> None:
        self.crew.may_start()  # a stop that did not wait any longer has disposed of the workspace
        contract = msgspec.structs.replace(self.contract, limits=self._limits().as_json())
        self._volume = self._a_volume()
        if restore:
            self._volume.restore(restore)
        self._decoys = Decoys(self.housing.place / DECOYS, self.housing.identity, self._decoy_opened)
        housing = self.housing
        at = housing.place, self.crew, housing.identity
        self._bench = preflight.bench(self.home, contract, self.store, *at, self._gpu.devices)
        self._bench.decoys = {name: marker.encode() for name, marker in self._decoys.markers.items()}
        self.crew.may_start()
        config = gate.configuration(self.home, contract, self._settings, self._token)
        gateway = gate.start(config, self._keys_fd, self.post)
        with self._limiting:  # an amendment of this very moment comes after these, not before
            self._gateway = gateway
            if self._state().version > 1:  # what the ledger has of earlier amendments would win over the configuration
                self._amend(gateway, self._limits())
        self._broker = BrokerProcess.start(self._token, [tools.RUN_TESTS])
        self._broker.on_refused(self._tool_refused)
        self._broker.on_gone(lambda: self.post(Failed.KIND, {"part": "broker", "detail": "it ended by itself"}))
        self.post("broker.started", {"pid": self._broker.pid, "seal": dict(self._broker.sealed)})
        self._tools = tools.Tools(self._broker, self._tests_now, self.post)
        self._broker.on_call(self._tools.call)
        install = Install(**self._settings["agent"])
        self._coder = Coder(
            contract=contract,
            profile=profile(contract.agent),
            install=install,
            crew=self.crew,
            gateway=self._gateway,
            broker=self._broker,
            token=self._token,
            limits=jail_limits(contract.numbers()),
            layer=preflight.layer_path(self.home, contract),
            decoys=self._decoys,
            logs=self.run_dir / "logs",
            post=self.post,
            say=self._say,
            files=self.housing.files,
            devices=self._gpu.devices,
        )

    def _owner_before(self) -> int | None:
        """The user number that an earlier supervisor of this run gave its workspace, None where there is none."""
        try:
            return Volume.open(self.store, str(self.run_dir / WORKSPACE)).owner
        except HostError:
            return None  # none yet; one that does not open is the business of whoever needs it

    def _a_volume(self) -> Volume:
        """The workspace as it is found, or a new one of the base."""
        found = self._found_volume()
        if found is None:
            delete_tree(str(self.housing.place / WORKSPACE))
            return preflight.volume(self.store, self.contract, self.housing.place, self.housing.identity)
        if found.owner not in (None, self.housing.identity.uid):
            raise HostError(
                f"the workspace belongs to user number {found.owner}, which another run has now",
                where=self.contract.run_id,
                fix="inbounds status; then again when that run is over",
            )
        return found

    def _standing_tree(self) -> str:
        """The last committed tree, or the base's."""
        head = self.store.ref(f"refs/heads/{self.contract.branch}")
        return self.store.tree_of(head) if head else self.contract.base_tree

    def _the_gateway(self) -> GatewayProcess:
        assert self._gateway is not None
        return self._gateway

    def _why(self) -> str:
        found = ""
        for record in replay.records(self.run_dir):
            if record.kind == "stop.decided":
                found = str(record.data["why"])
        return found

    def _told(self, what: str, why: str, needs: str) -> list[dict[str, Any]]:
        settings = Settings(desktop=self.contract.notify.desktop, webhook=self.contract.notify.webhook or "",
                            env=dict(os.environ))  # fmt: skip
        message = Message(self.contract.run_id, what, why, str(self.run_dir / "report.html"), needs)
        return [{"channel": n.channel, "ok": n.ok, "detail": n.detail} for n in tell(settings, message)]

    def _the_bench(self) -> judging.Bench:
        assert self._bench is not None
        return self._bench

    def _tests_now(self) -> judging.Tested:
        assert self._volume is not None
        bench = self._the_bench()
        return bench.run_tests(bench.set_aside(self._volume.snapshot()).tree)

    def _record(self, n: int, taken: Snapshot) -> dict[str, Any]:
        counted = self.store.numstat(self.contract.base_tree, taken.tree)
        return {
            "n": n,
            "tree": taken.tree,
            "changed": len(taken.changes),
            "iteration_changed": len(self.store.diff(self._standing_tree(), taken.tree)),
            "changes": [_change(c) for c in taken.changes[: stopping.CHANGES_MAX]],
            "complete": taken.complete,
            "why": taken.why,
            "lines_added": sum(lines.added or 0 for lines in counted),
            "lines_removed": sum(lines.deleted or 0 for lines in counted),
            "files": taken.files,
            "bytes": taken.bytes,
        }

    def _found_volume(self) -> Volume | None:
        workspace = self.housing.place / WORKSPACE
        if self._volume is None and (workspace / "state" / "volume.json").exists():
            self._volume = Volume.open(self.store, str(workspace))
        return self._volume

    def _tool_refused(self, tool: str, why: str) -> None:
        self.post("denial", {"kind": "tool", "what": "tool", "detail": f"{tool}: {why}", "sensitive": False})

    def _decoy_opened(self, name: str) -> None:
        self.post("denial", {"kind": "decoy", "what": "decoy", "detail": f"~/{name} was opened", "sensitive": True})


def _change(change: Change) -> dict[str, Any]:
    return {
        "status": change.status,
        "path": shown(change.path),
        "old_path": shown(change.old_path),
        "old_mode": judging.octal(change.old_mode),
        "new_mode": judging.octal(change.new_mode),
        "blob": change.new_blob,
        "old_blob": change.old_blob,
    }
