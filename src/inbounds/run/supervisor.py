"""The supervisor of one run: carries the kernel's effects out through its ports, and leads recovery to its end.

It holds no provider key and moves no protected ref; it knows neither jail nor gateway, only the ports. Slow effects go
to the worker; the stop sequence runs in the loop's own thread.
"""

from collections.abc import Callable, Mapping
from typing import Any, assert_never

from inbounds.contracts.errors import EXIT_KEPT, EXIT_REFUSED, HostError, InboundsError
from inbounds.contracts.reasons import DISPOSED, Disposal, StopCode
from inbounds.kernel import effects
from inbounds.kernel.events import Accepted, Failed, SnapshotTaken
from inbounds.kernel.state import Phase
from inbounds.run.loop import Events, Loop, Written
from inbounds.run.ports import Journal, Parts, Worker
from inbounds.run.replay import Replayed

WORKER_SECONDS_MAX = 20.0  # its jails are dead; what it still does is reading back files


class Supervisor:
    """One run's effects; the same for a new run, one that goes on, and one that is brought to its end."""

    def __init__(
        self, journal: Journal, replayed: Replayed, now_ms: Callable[[], int], events: Events | None = None
    ) -> None:
        """`journal` is open for writing and `replayed` what it holds; `equip` before anything else is called."""
        self.journal, self._replayed = journal, replayed
        self.loop = Loop(journal, now_ms, replayed.state, replayed.at_ms, events)
        self._decided: dict[str, Any] = {}
        self.parts: Parts
        self.worker: Worker

    def equip(self, parts: Parts, worker: Worker) -> None:
        """The ports; they post through `post` and `say`."""
        self.parts, self.worker = parts, worker

    def post(self, kind: str, data: Mapping[str, Any]) -> None:
        """Something happened; safe from any thread."""
        self.loop.post(kind, self._by(data))

    def say(self, kind: str, data: Mapping[str, Any]) -> None:
        """Something is about to be done: returns when that is on disk. Not for the loop's own thread."""
        self.loop.say(kind, self._by(data))

    def hand_in(self, kind: str, data: Mapping[str, Any]) -> Written:
        """As `post`; what is returned is set once the record is on disk."""
        return self.loop.hand_in(kind, self._by(data))

    def fault(self, error: Exception) -> None:
        """Work that raised: an event like every other."""
        detail = error.one_line() if isinstance(error, InboundsError) else f"{type(error).__name__}: {error}"
        part = "preflight" if self.loop.state.phase is Phase.PREFLIGHT else "host"
        self.post(Failed.KIND, {"part": part, "detail": detail})

    def start(self) -> int:
        """A new run, to its end; its exit code."""
        self.worker.start()
        self.loop.post(Accepted.KIND, self.parts.accepted())
        return self._until_finished()

    def go_on(self, kind: str, data: Mapping[str, Any]) -> int:
        """Take a run up again with what allows it: run.recovered or run.reauthorized."""
        self._replayed.done.clear()  # those were an earlier stop's steps: the next one has its own
        self.worker.start()
        self.loop.post(kind, data)
        return self._until_finished()

    def finish(self, kind: str, data: dict[str, Any]) -> int:
        """Recovery: bring the run to its end because of this event; a stop that was decided is only carried on.

        The steps of a stop stand in the journal once more, as `verify` wants them from the second writer; evidence that
        was taken is not taken again from what has been disposed of since, and the decision is not repeated.
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

    def perform(self, effect: effects.Effect, ref: str) -> None:
        """World: carry one effect out, or hand it to the worker."""
        match effect:
            case effects.RunPreflight():
                self.worker.put(ref, self.parts.preflight)
            case effects.StartIteration():
                n = effect.n
                self.worker.put(ref, lambda: self.parts.iterate(n))
            case effects.TakeSnapshot():
                n = effect.n
                self.worker.put(ref, lambda: self.parts.snapshot(n))
            case effects.Judge():
                n = effect.n
                self.worker.put(ref, lambda: self.parts.judge(n))
            case effects.Reopen():
                tree, restore = effect.checkpoint, effect.restore
                self.worker.put(ref, lambda: self.parts.reopen(tree, restore=restore))
            case effects.HaltAgent():
                self.parts.halt_agent()
            case effects.Commit():
                self.loop.record("commit.made", self.parts.commit(effect.n, effect.tree, self.journal.head))
            case effects.SlowDown():
                self.loop.record("run.slowed", self.parts.slow_down(effect.interval_ms, effect.cpu_percent))
            case effects.Escalate():
                self.loop.record("escalation.raised", {"why": effect.why, "until_ms": effect.until_ms})
                self._tell(self.parts.escalate(effect.why, effect.until_ms))
            case effects.ApplyLimits():
                self.parts.apply_limits(effect.limits, unpause=effect.unpause)
            case _:
                self._stop(effect)

    # -- the stop sequence, in the loop's own thread

    def _stop(self, effect: effects.StopEffect) -> None:
        match effect:
            case effects.CloseDoors():
                self._step("lease_closed", self.parts.close_doors)
            case effects.Freeze():
                self._step("frozen", self._halt)
            case effects.RecordStop():
                stop = {"code": effect.code.value, "why": effect.why, "disposal": effect.disposal.value,
                        "checkpoint": effect.checkpoint}  # fmt: skip
                self._decided = stop
                self.loop.record("stop.decided", stop)
            case effects.Persist():
                self._step("persisted", self._persist)
            case effects.Kill():
                self._step("killed", self._kill)
            case effects.Dispose():
                self._dispose(effect.disposal, effect.checkpoint)
            case effects.Finish():
                self._finish(effect.code)
            case _:
                assert_never(effect)

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
        # What the worker still opens or reads must be there before it is kept or disposed of, and nothing after. Where
        # processes are only frozen it waits for them; they write nothing, and `_kill` comes before the disposal.
        if not self.parts.holding:
            self.worker.end(WORKER_SECONDS_MAX)
        self.loop.drain()
        if "persisted" in self._replayed.done:
            return self._replayed.done["persisted"]
        record, detail = self.parts.persist()
        if record:
            self.loop.record(SnapshotTaken.KIND, record)
        self.parts.write_manifest()
        return detail

    def _kill(self) -> str:
        try:
            return self.parts.survivors()
        finally:
            self.worker.end(WORKER_SECONDS_MAX)
            self.loop.drain()

    def _dispose(self, disposal: Disposal, checkpoint: str) -> None:
        """Done again by whoever carries a stop on, whatever the journal says: its disk may have lost a move since."""
        try:
            name, detail = self.parts.dispose(disposal, checkpoint)
            ok = True
        except (InboundsError, OSError) as fault:
            name, ok, detail = DISPOSED[disposal], False, str(fault)
        self.loop.record("stop.step", {"step": name, "ok": ok, "detail": detail})

    def _finish(self, code: StopCode) -> None:
        self.parts.stop_programs()
        self.worker.end(WORKER_SECONDS_MAX)
        self.loop.drain()
        if self._decided and not self.loop.state.stop_hash:
            # It did not fit when it was due (a full disk); without it nobody could ever let the run go on (E11, E14).
            self.loop.record("stop.decided", self._decided)
        if code is StopCode.DONE and (landed := self.parts.promote(again=bool(self._replayed.done))):
            self.loop.record("promotion.decided", landed)
        self._tell(self.parts.tell(code))
        exit_code = EXIT_KEPT if code is StopCode.DONE else EXIT_REFUSED
        self.loop.record("run.finished", {"code": code.value, "exit": exit_code})

    # -- the rest

    def _by(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        ref = self.worker.ref
        return {**data, "by": ref} if ref else data

    def _tell(self, notices: Any) -> None:
        for notice in notices:
            self.loop.record("notice.sent", notice)

    def _until_finished(self) -> int:
        self.loop.run(self)
        return self._close()

    def _close(self) -> int:
        self.worker.end(0)
        if self.loop.unwritten:  # what is not in the journal has not happened: the next writer goes on from there
            self.journal.close(in_order=False)
            raise HostError(f"the run has ended, and its journal does not say so: {self.loop.unwritten}")
        self.journal.sync()
        trouble = self.parts.close()
        self.journal.close()
        if trouble:
            raise HostError(trouble)
        return EXIT_KEPT if self.loop.state.stop_code == StopCode.DONE else EXIT_REFUSED
