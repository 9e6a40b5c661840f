"""The supervisor of one run: carries the kernel's effects out with jails, gateway, broker, judges and the store.

It holds no provider key and moves no protected ref. Slow effects run in one worker thread that lives as long as this
process (jails are bound to the thread that started them); the stop sequence runs in the loop's own thread.
"""

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, assert_never

from inbounds.contracts.bound import Contract
from inbounds.contracts.errors import EXIT_KEPT, EXIT_REFUSED, HostError, InboundsError
from inbounds.contracts.reasons import Disposal, StopCode
from inbounds.journal.writer import Journal
from inbounds.kernel import effects
from inbounds.kernel.events import Accepted, Failed, OperatorStopped, SnapshotTaken
from inbounds.kernel.state import Phase
from inbounds.run import committing, promotion, recovery, requests, stopping
from inbounds.run.clock import now_ms
from inbounds.run.crew import HaltedError
from inbounds.run.home import Home
from inbounds.run.launch import JOURNAL, read_contract
from inbounds.run.loop import Loop
from inbounds.run.parts import Parts

WORKER_SECONDS_MAX = 20.0  # its jails are dead; what it still does is reading back files
DISPOSED = ("kept", "reverted", "quarantined")
POLL_S = 0.5  # how often the volume's size and a person's requests are looked at


class Supervisor:
    """One run's effects; `starting` for a new run, `recovering` for one whose supervisor died."""

    def __init__(self, home: Home, run_dir: Path, contract: Contract, keys_fd: int, *, recovers: bool = False) -> None:
        """Use `starting` or `recovering`; the journal is replayed once it is locked and mended."""
        self.home, self.run_dir, self.contract = home, run_dir, contract
        self.journal = Journal.open(run_dir / JOURNAL)
        if not recovers and self.journal.head[0] > 0:
            self.journal.close()
            raise HostError("this run was started before", where=str(run_dir), expected="a run of its own")
        self._replayed = recovery.replay(run_dir)
        self.loop = Loop(self.journal, now_ms, self._replayed.state)
        self.parts = Parts(home, run_dir, contract, self.loop.post, lambda: self.loop.state.n, keys_fd)
        self._work: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._worker = threading.Thread(target=self._drain, name="worker", daemon=True)
        self._over = threading.Event()
        self._tree = self._replayed.checkpoint
        self.signalled = ""  # set by a signal handler, which may take no lock; read by `_watch`

    @classmethod
    def starting(cls, home: Home, run_dir: Path, keys_fd: int) -> "Supervisor":
        """A run that was prepared and signed."""
        return cls(home, run_dir, read_contract(run_dir), keys_fd)

    @classmethod
    def recovering(cls, home: Home, run_dir: Path, contract: Contract) -> "Supervisor":
        """A run whose supervisor is dead: its journal replayed, nothing started."""
        return cls(home, run_dir, contract, -1, recovers=True)

    def run(self) -> int:
        """The whole run; returns its exit code."""
        self._worker.start()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        self.loop.post("run.accepted", self.parts.accepted())
        return self._until_finished()

    def finish(self, kind: str, data: dict[str, Any]) -> int:
        """Recovery: bring the run to its end because of this event; a stop that was decided is only carried on.

        The steps of a stop stand in the journal once more, as `verify` wants them from the second writer; what has
        been done to the workspace already is not done again, and the decision is not repeated.
        """
        replayed = self._replayed
        if replayed.state.phase is Phase.FINISHED:  # it died over the manifest or the report
            self.journal.keep_anchor()
            return self._close()
        if replayed.stop:
            self.loop.carry_on(self, replayed.stop)
            return self._close()
        if replayed.state.phase is Phase.NEW:  # it died before it could say what it had accepted
            self.loop.post(Accepted.KIND, self.parts.accepted())
        self.loop.post(kind, data)
        return self._until_finished()

    def perform(self, effect: effects.Effect) -> None:  # one arm per effect
        """World: carry one effect out, or hand it to the worker."""
        match effect:
            case effects.RunPreflight():
                self._later(self.parts.preflight)
            case effects.StartIteration():
                n = effect.n
                self._later(lambda: self.parts.iterate(n))
            case effects.HaltAgent():
                self.parts.crew.kill("coder")
            case effects.TakeSnapshot():
                n = effect.n
                self._later(lambda: self.parts.snapshot(n))
            case effects.Judge():
                n = effect.n
                self._later(lambda: self.parts.judge(n))
            case effects.Commit():
                self._commit(effect)
            case effects.CloseDoors():
                self._step("lease_closed", self.parts.close_doors)
            case effects.Freeze():
                self._step("frozen", self._halt)
            case effects.RecordStop():
                stop = {"code": effect.code.value, "why": effect.why, "disposal": effect.disposal.value}
                self.loop.record("stop.decided", stop)
            case effects.Persist():
                self._step("persisted", self._persist)
            case effects.Kill():
                self._step("killed", self.parts.survivors)
            case effects.Dispose():
                self._dispose(effect.disposal)
            case effects.Finish():
                self._finish(effect.code)
            case _:
                assert_never(effect)

    # -- effects in the loop's own thread

    def _commit(self, effect: effects.Commit) -> None:
        commit = committing.commit(
            self.parts.store,
            self.contract,
            n=effect.n,
            tree=effect.tree,
            head=self.journal.head,
            when=now_ms() // 1_000,
        )
        self._tree = effect.tree
        made = {"n": effect.n, "commit": commit, "tree": effect.tree, "branch": self.contract.branch}
        self.loop.record("commit.made", made)

    def _step(self, name: str, act: Callable[[], str]) -> None:
        try:
            ok, detail = True, act()
        except (InboundsError, OSError) as fault:
            ok, detail = False, str(fault)
        self.loop.record("stop.step", {"step": name, "ok": ok, "detail": detail})

    def _halt(self) -> str:
        detail = self.parts.halt()
        self.loop.drain()  # what had happened until now stands before the stop
        return detail

    def _persist(self) -> str:
        if "persisted" in self._replayed.done:
            return self._replayed.done["persisted"]
        record, detail = self.parts.persist()
        if record:
            self.loop.record(SnapshotTaken.KIND, record)
        stopping.write_manifest(self.run_dir)
        return detail

    def _dispose(self, disposal: Disposal) -> None:
        done = next((name for name in DISPOSED if name in self._replayed.done), "")
        if done:
            self.loop.record("stop.step", {"step": done, "ok": True, "detail": self._replayed.done[done]})
            return
        try:
            name, detail = self.parts.dispose(disposal, self._tree or self.contract.base_tree)
            ok = True
        except (InboundsError, OSError) as fault:
            names = {Disposal.KEEP: "kept", Disposal.REVERT: "reverted", Disposal.QUARANTINE: "quarantined"}
            name, ok, detail = names[disposal], False, str(fault)
        self.loop.record("stop.step", {"step": name, "ok": ok, "detail": detail})

    def _finish(self, code: StopCode) -> None:
        self.parts.stop_programs()
        self._work.put(None)
        if self._worker.is_alive():
            self._worker.join(WORKER_SECONDS_MAX)
        self.loop.drain()
        if code is StopCode.DONE and self.contract.promote_auto and not promotion.standing(self.run_dir).landed:
            known = promotion.landed(self.contract, self.run_dir, "development") if self._replayed.done else None
            self.loop.record("promotion.decided", known or self.parts.promote())
        for notice in self.parts.tell(code):
            self.loop.record("notice.sent", notice)
        exit_code = EXIT_KEPT if code is StopCode.DONE else EXIT_REFUSED
        self.loop.record("run.finished", {"code": code.value, "exit": exit_code})

    # -- threads

    def _later(self, work: Callable[[], None]) -> None:
        self._work.put(work)

    def _drain(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except HaltedError:
                continue  # the run is stopping; what was asked for is moot
            except InboundsError as fault:
                part = "preflight" if self.loop.state.phase is Phase.PREFLIGHT else "host"
                self.loop.post(Failed.KIND, {"part": part, "detail": fault.one_line()})
            except Exception as fault:
                self.loop.post(Failed.KIND, {"part": "host", "detail": f"{type(fault).__name__}: {fault}"})
                raise

    def _watch(self) -> None:
        while not self._over.wait(POLL_S):
            asked = requests.take_stop(self.run_dir)
            if asked:
                self.loop.post(OperatorStopped.KIND, asked)
            if self.signalled:
                self.loop.post(OperatorStopped.KIND, {"who": "a signal", "why": self.signalled})
                self.signalled = ""
            found = self.parts.changed_contract()
            if found:
                self.loop.post(Failed.KIND, {"part": "contract", "detail": found})
            self.parts.poll()

    def _until_finished(self) -> int:
        self.loop.run(self)
        return self._close()

    def _close(self) -> int:
        self._over.set()
        self._work.put(None)
        self.journal.sync()
        stopping.write_manifest(self.run_dir)
        trouble = stopping.write_report(self.run_dir)
        self.journal.close()
        if trouble:
            raise HostError(trouble, where=str(self.run_dir))
        code, _ = self.parts.decided()
        return EXIT_KEPT if code is StopCode.DONE else EXIT_REFUSED
