"""The loop with a simulated world: records before effects, faults become stops, a stop always goes to its end."""

import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from inbounds.contracts import conduct
from inbounds.contracts.errors import HostError
from inbounds.contracts.limits import DEFAULT
from inbounds.journal import chain
from inbounds.journal.writer import Journal
from inbounds.kernel import effects as fx
from inbounds.kernel.decide import decide
from inbounds.kernel.effects import Effect
from inbounds.kernel.state import Phase, State
from inbounds.run import replay
from inbounds.run.loop import Loop, Recorded

STOP = ["CloseDoors", "Freeze", "RecordStop", "Persist", "Kill", "Dispose", "Finish"]
ACCEPTED = {
    "limits": DEFAULT.as_json(),
    "profile": "standard",
    "required_judges": ["scope", "tests"],
    "conduct": conduct.DEFAULT.as_json(),
}


class World:
    """Carries effects out by writing them down; `faults` maps an effect's name to what it raises."""

    def __init__(self, journal: Path, clock: "Clock", faults: Mapping[str, Exception] | None = None) -> None:
        self.loop: Loop
        self.path, self.clock, self.faults = journal, clock, dict(faults or {})
        self.done: list[str] = []
        self.named: list[tuple[str, str]] = []
        self.known_at: dict[str, list[str]] = {}
        self.script: dict[str, Callable[[Effect], None]] = {}

    def perform(self, effect: Effect, ref: str) -> None:
        name = type(effect).__name__
        self.done.append(name)
        self.named.append((name, ref))
        self.known_at.setdefault(name, [record.kind for record in chain.records(self.path)])
        if name in self.faults:
            raise self.faults[name]
        if name in self.script:
            self.script[name](effect)
        elif isinstance(effect, fx.RunPreflight):
            self.loop.post("preflight.finished", {"ok": True, "reasons": [], "failing": 1})
        elif isinstance(effect, fx.StartIteration):
            self.loop.record("iteration.started", {"n": effect.n})
            self.loop.post("jail.exited", {"role": "coder", "reason": "exited", "n": effect.n})
        elif isinstance(effect, fx.TakeSnapshot):
            tree = {"tree": f"t{effect.n}", "changed": 1, "iteration_changed": 1, "complete": True, "why": ""}
            self.loop.post("snapshot.taken", {"n": effect.n, **tree})
        elif isinstance(effect, fx.Judge):
            for judge in ("scope", "tests"):
                self.loop.post("verdict", {"judge": judge, "outcome": "PASS", "summary": "", "rules": []})
            counts = {"progress": True, "acceptance_failing": 0, "failing_after": 0, "regressions": 0}
            self.loop.post("iteration.finished", {"n": effect.n, "tree": effect.tree, "changed": True, **counts})
        elif isinstance(effect, fx.Commit):
            self.loop.record("commit.made", {"n": effect.n, "commit": "c", "tree": effect.tree})
        elif isinstance(effect, fx.RecordStop):
            told = {"code": effect.code, "why": effect.why, "disposal": effect.disposal}
            self.loop.record("stop.decided", {**told, "checkpoint": effect.checkpoint})
        elif isinstance(effect, fx.Reopen):
            self.loop.post("run.reopened", {"ok": True, "reasons": []})
        elif isinstance(effect, fx.Finish):
            self.loop.record("run.finished", {"code": effect.code.value, "exit": 0})
        else:
            self.loop.record("stop.step", {"step": name, "ok": True, "detail": ""})


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.ms


class Run:
    """One run in a directory of its own, with a real journal."""

    def __init__(self, path: Path, faults: Mapping[str, Exception] | None = None) -> None:
        self.path = path / "journal.jsonl"
        self.clock = Clock()
        self.journal = Journal.open(self.path, at_ms=self.clock.ms)
        self.loop = Loop(self.journal, self.clock)
        self.world = World(self.path, self.clock, faults)
        self.world.loop = self.loop

    def go(self, kind: str = "run.accepted", data: Mapping[str, Any] | None = None) -> State:
        self.loop.post(kind, ACCEPTED if data is None else data)
        done: list[State] = []
        thread = threading.Thread(target=lambda: done.append(self.loop.run(self.world)), daemon=True)
        thread.start()
        thread.join(20)
        if not done:
            frame = sys._current_frames().get(thread.ident or 0)
            where = "".join(traceback.format_stack(frame)) if frame else "its thread is gone"
            pytest.fail(f"the loop did not end: {self.world.done}\n{where}")
        self.journal.close()
        return done[0]

    def again(self) -> None:
        """Another supervisor: the journal is opened anew, and the loop begins with what a replay of it says."""
        self.journal = Journal.open(self.path, at_ms=self.clock.ms)
        found = replay.replay(chain.linked(chain.records(self.path)))
        self.loop = Loop(self.journal, self.clock, found.state, found.at_ms)
        self.world.loop = self.loop

    def kinds(self) -> list[str]:
        return [record.kind for record in chain.linked(chain.records(self.path))]

    def stop(self) -> dict[str, Any]:
        return next(record.data for record in chain.records(self.path) if record.kind == "stop.decided")


def test_an_honest_run_ends_done_and_replays(tmp_path: Path) -> None:
    run = Run(tmp_path)
    state = run.go()
    assert run.stop()["code"] == "DONE"
    assert run.kinds()[-1] == "run.finished"
    assert replay.replay(chain.linked(chain.records(run.path))).state == state


def test_the_record_stands_before_its_effects_begin(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.go()
    known = run.world.known_at
    assert known["RunPreflight"][-1] == "run.accepted"
    assert known["StartIteration"][-1] == "preflight.finished"
    assert known["TakeSnapshot"][-1] == "jail.exited"
    assert known["Judge"][-1] == "snapshot.taken"
    assert known["Commit"][-1] == "iteration.finished"
    assert known["CloseDoors"][-1] == "commit.made"
    assert "stop.decided" in known["Persist"]


@pytest.mark.parametrize("effect", ["RunPreflight", "StartIteration", "TakeSnapshot", "Judge", "Commit"])
@pytest.mark.parametrize("fault", [HostError("no room"), OSError(28, "No space left"), AssertionError("a bug")])
def test_an_effect_that_fails_stops_the_run(tmp_path: Path, effect: str, fault: Exception) -> None:
    run = Run(tmp_path, {effect: fault})
    run.go()
    assert run.world.done[-8:] == [effect, *STOP]
    assert run.stop()["code"] == ("STOP_PREFLIGHT_FAILED" if effect == "RunPreflight" else "STOP_HOST_FAILED")
    assert "part.failed" in run.kinds()
    assert run.kinds()[-1] == "run.finished"


@pytest.mark.parametrize("effect", STOP)
@pytest.mark.parametrize("fault", [HostError("no room"), OSError(5, "Input/output error"), ValueError("a bug")])
@pytest.mark.req("E10")
def test_a_stop_goes_on_past_a_failing_step(tmp_path: Path, effect: str, fault: Exception) -> None:
    run = Run(tmp_path, {effect: fault})
    state = run.go()
    assert run.world.done[-7:] == STOP
    assert state.phase is Phase.FINISHED
    assert run.kinds()[-1] == "run.finished"
    failed = [record.data for record in chain.records(run.path) if record.kind == "effect.failed"]
    assert [item["effect"] for item in failed] == [effect]


def test_the_effects_left_after_a_fault_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inbounds.run import loop as module

    def two(state: State, event: object, at_ms: int) -> tuple[State, tuple[Effect, ...]]:
        after, effects = decide(state, event, at_ms)  # type: ignore[arg-type] # the loop hands events in
        first = bool(effects) and isinstance(effects[0], fx.StartIteration)
        return after, (*effects, fx.HaltAgent("left over")) if first else effects

    monkeypatch.setattr(module, "decide", two)
    run = Run(tmp_path, {"StartIteration": HostError("no jail")})
    run.go()
    assert "HaltAgent" not in run.world.done
    assert run.world.done[-7:] == STOP


def test_a_fault_after_the_last_record_adds_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path)

    def torn_down(effect: Effect) -> None:
        run.loop.record("part.failed", {"part": "gateway", "detail": "it died"})
        raise HostError("the judge's jail is gone")

    run.world.script["Judge"] = torn_down
    run.go()
    assert run.kinds()[-1] == "run.finished"
    assert run.stop()["code"] == "STOP_GATEWAY_FAILED"
    assert run.world.done.count("Finish") == 1


class FullDisk:
    """The real journal, on a disk that is full for the kinds named."""

    def __init__(self, journal: Journal, full_for: tuple[str, ...]) -> None:
        self.journal, self.full_for = journal, full_for

    def append(
        self, kind: str, data: dict[str, Any], at_ms: int | None = None, *, sync: bool | None = None
    ) -> Recorded:
        if kind.startswith(self.full_for):
            raise HostError("cannot write: No space left on device")
        return self.journal.append(kind, data, at_ms, sync=sync)


def test_nothing_goes_forward_without_its_record(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.loop._journal = FullDisk(run.journal, ("jail.exited", "part."))
    state = run.go()
    assert state.phase is Phase.FINISHED
    assert "TakeSnapshot" not in run.world.done
    assert run.world.done[-7:] == STOP
    assert run.stop()["code"] == "STOP_HOST_FAILED"
    assert "No space left" in run.stop()["why"]


def test_a_stop_ends_even_where_nothing_can_be_written(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.loop._journal = FullDisk(run.journal, ("jail.", "part.", "stop.", "effect.", "run.finished"))
    assert run.go().phase is Phase.FINISHED
    assert run.world.done[-7:] == STOP


def test_a_malformed_record_stops_and_is_kept(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.world.script["TakeSnapshot"] = lambda _: run.loop.post("snapshot.taken", {"n": "one"})
    run.go()
    assert run.stop()["code"] == "STOP_HOST_FAILED"
    assert "malformed" in run.stop()["why"]
    assert any(record.data == {"n": "one"} for record in chain.records(run.path))


@pytest.mark.req("E1")
def test_the_wall_clock_stops_a_run_that_says_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path)

    def hang(effect: Effect) -> None:
        run.clock.ms += DEFAULT.wall_clock_ms

    run.world.script["StartIteration"] = hang
    begin = time.monotonic()
    run.go()
    assert run.stop()["code"] == "STOP_RUNTIME_EXCEEDED"
    assert "clock.tick" in run.kinds()
    assert time.monotonic() - begin < 10


def test_a_clock_set_back_makes_no_decision_in_the_past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inbounds.run import loop as module

    asked: list[int] = []

    def noted(state: State, event: object, at_ms: int) -> tuple[State, tuple[Effect, ...]]:
        asked.append(at_ms)
        return decide(state, event, at_ms)  # type: ignore[arg-type] # the loop hands events in

    monkeypatch.setattr(module, "decide", noted)
    run = Run(tmp_path)

    def back(effect: Effect) -> None:
        run.loop.record("iteration.started", {"n": 1})
        run.clock.ms -= 5 * DEFAULT.wall_clock_ms
        run.loop.record("volume.polled", {"bytes": 1, "inodes": 1})
        run.loop.post("operator.stopped", {"who": "ana", "why": "enough", "incident": False})

    run.world.script["StartIteration"] = back
    run.go()
    assert asked == sorted(asked)
    times = [record.at_ms for record in chain.records(run.path)]
    assert times == sorted(times)
    assert set(times) <= {*asked, times[0]}  # a replay decides at the same times


def test_a_clock_set_back_between_two_supervisors_does_not_lengthen_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.world.script["StartIteration"] = lambda _: run.loop.post(
        "operator.stopped", {"who": "ana", "why": "enough", "incident": False}
    )
    run.go()
    stop = next(record for record in chain.records(run.path) if record.kind == "stop.decided")
    last = max(record.at_ms for record in chain.records(run.path))
    run.clock.ms -= 5 * DEFAULT.wall_clock_ms
    run.again()
    run.clock.ms += DEFAULT.wall_clock_ms  # so long went by, whatever the clock shows
    run.go("run.reauthorized", {"stop_hash": stop.hash, "operators": ["ana"]})
    codes = [record.data["code"] for record in chain.records(run.path) if record.kind == "stop.decided"]
    assert codes == ["STOP_OPERATOR", "STOP_RUNTIME_EXCEEDED"]
    assert max(record.at_ms for record in chain.records(run.path)) >= last + DEFAULT.wall_clock_ms


def test_events_posted_by_many_threads_are_all_recorded(tmp_path: Path) -> None:
    run = Run(tmp_path)

    def flood(effect: Effect) -> None:
        def chat(who: int) -> None:
            for line in range(200):
                run.loop.post("agent.said", {"n": who, "text": str(line)})

        threads = [threading.Thread(target=chat, args=(who,)) for who in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        run.loop.post("operator.stopped", {"who": "ana", "why": "enough", "incident": False})

    run.world.script["StartIteration"] = flood
    run.go()
    assert run.kinds().count("agent.said") == 1_000
    assert run.stop()["code"] == "STOP_OPERATOR"


def _records(run: Run) -> list[chain.Record]:
    return list(chain.linked(chain.records(run.path)))


def test_an_effect_is_named_by_its_record_and_what_it_leads_to_says_so(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.go()
    records = _records(run)
    kinds = {record.kind: str(record.seq) for record in records}
    names = dict(run.world.named)
    for effect, cause in (
        ("RunPreflight", "run.accepted"),
        ("StartIteration", "preflight.finished"),
        ("TakeSnapshot", "jail.exited"),
        ("Judge", "snapshot.taken"),
        ("Commit", "iteration.finished"),
        ("CloseDoors", "commit.made"),
    ):
        assert names[effect] == f"{kinds[cause]}.0"
    assert [names[effect].split(".") for effect in STOP] == [[kinds["commit.made"], str(place)] for place in range(7)]
    by = {record.kind: record.data.get("by") for record in records}
    assert by["iteration.started"] == names["StartIteration"]
    assert by["commit.made"] == names["Commit"]
    assert by["stop.decided"] == names["RecordStop"]
    assert by["run.finished"] == names["Finish"]
    assert [r.data["by"] for r in records if r.kind == "stop.step"] == [
        names[effect] for effect in STOP if effect not in ("RecordStop", "Finish")
    ]


@pytest.mark.parametrize("effect", ["StartIteration", "TakeSnapshot", "Judge", "Commit"])
def test_a_stop_that_an_effect_leads_to_is_the_only_one(tmp_path: Path, effect: str) -> None:
    """Also where the effect raises behind it: the leg has one stop event and one sequence."""
    run = Run(tmp_path)

    def fails(_: Effect) -> None:
        run.loop.record("part.failed", {"part": "gateway", "detail": "it died"})
        raise HostError("and then this")

    run.world.script[effect] = fails
    run.go()
    assert run.kinds().count("stop.decided") == 1
    assert [name for name in run.world.done if name in STOP] == STOP


def test_a_stop_cuts_the_effects_beside_the_one_that_led_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inbounds.run import loop as module

    def two(state: State, event: object, at_ms: int) -> tuple[State, tuple[Effect, ...]]:
        after, effects = decide(state, event, at_ms)  # type: ignore[arg-type] # the loop hands events in
        first = bool(effects) and isinstance(effects[0], fx.StartIteration)
        return after, (*effects, fx.HaltAgent("left over")) if first else effects

    monkeypatch.setattr(module, "decide", two)
    run = Run(tmp_path)
    run.world.script["StartIteration"] = lambda _: run.loop.record(
        "operator.stopped", {"who": "ana", "why": "enough", "incident": False}
    )
    run.go()
    assert "HaltAgent" not in run.world.done
    assert run.world.done[-7:] == STOP


def _said(run: Run, kind: str) -> list[tuple[str, bool]]:
    """What an agent's thread hears that says this kind, and whether it stood in the journal by then."""
    heard: list[tuple[str, bool]] = []

    def speak() -> None:
        try:
            run.loop.say(kind, {"n": 1})
            heard.append(("", kind in run.kinds()))
        except HostError as fault:
            heard.append((str(fault), kind in run.kinds()))
        run.loop.post("jail.exited", {"role": "coder", "reason": "exited", "n": 1})

    def start(_: Effect) -> None:
        threading.Thread(target=speak, daemon=True).start()

    run.world.script["StartIteration"] = start
    run.go()
    return heard


def test_what_is_said_is_on_disk_before_its_sayer_goes_on(tmp_path: Path) -> None:
    assert _said(Run(tmp_path), "iteration.started") == [("", True)]


def test_what_could_not_be_written_is_not_said(tmp_path: Path) -> None:
    """An agent that is announced by no record must not be let go."""
    run = Run(tmp_path)
    run.loop._journal = FullDisk(run.journal, ("iteration.started",))
    [(fault, known)] = _said(run, "iteration.started")
    assert "No space left" in fault
    assert not known
    assert run.stop()["code"] == "STOP_HOST_FAILED"


def test_a_run_goes_on_in_a_second_leg_and_replays(tmp_path: Path) -> None:
    run = Run(tmp_path, {"Judge": HostError("no jail")})
    first = run.go()
    assert (first.phase, first.stop_code) == (Phase.FINISHED, "STOP_HOST_FAILED")
    stop = next(record for record in _records(run) if record.kind == "stop.decided")
    assert first.stop_hash == stop.hash
    run.world.faults.clear()
    run.again()
    assert run.loop.state == first  # a replay knows the stop's hash from the chain alone
    second = run.go("run.reauthorized", {"stop_hash": stop.hash, "operators": ["ana"]})
    assert (second.phase, second.stop_code) == (Phase.FINISHED, "DONE")
    assert run.kinds().count("stop.decided") == 2
    found = replay.replay(_records(run))
    assert found.state == second
    assert found.done.keys() == {effect for effect in STOP if effect not in ("RecordStop", "Finish")}


def test_a_word_that_opens_nothing_carries_nothing_out(tmp_path: Path) -> None:
    run = Run(tmp_path, {"Judge": HostError("no jail")})
    run.go()
    done = list(run.world.done)
    run.again()
    assert run.go("run.reauthorized", {"stop_hash": "0" * 64, "operators": ["ana"]}).phase is Phase.FINISHED
    assert run.world.done == done


@pytest.mark.parametrize(
    ("last", "effects"),
    [
        ("run.accepted", ["RunPreflight"]),
        ("preflight.finished", ["Reopen", "StartIteration"]),
        ("iteration.started", ["Reopen", "TakeSnapshot"]),
        ("snapshot.taken", ["Reopen", "TakeSnapshot"]),
        ("iteration.finished", ["Reopen", "Commit"]),
    ],
)
def test_a_run_goes_on_behind_any_record_that_its_supervisor_died_after(
    tmp_path: Path, last: str, effects: list[str]
) -> None:
    run = Run(tmp_path)
    run.go()
    lines = run.path.read_bytes().splitlines(keepends=True)
    keep = next(place for place, line in enumerate(lines) if f'"kind":"{last}"'.encode() in line) + 1
    run.path.write_bytes(b"".join(lines[:keep]))
    (run.path.parent / "journal.lock").unlink()
    run.world.done.clear()
    run.again()
    state = run.go("run.recovered", {"spent_micro_usd": 0, "tokens": 0, "tool_calls": 0})
    assert run.world.done[: len(effects)] == effects
    assert (state.stop_code, state.recoveries) == ("DONE", 1)
    assert replay.replay(_records(run)).state == state


@pytest.mark.parametrize("cut", STOP)
def test_what_is_left_of_a_stop_is_its_sequence_from_the_stop_event_on(tmp_path: Path, cut: str) -> None:
    """Every step may be repeated; the decision is not, once its record stands."""
    run = Run(tmp_path)
    run.go()
    records = _records(run)
    name = dict(run.world.named)[cut]
    upto = next(place for place, record in enumerate(records) if record.data.get("by") == name)
    found = replay.replay(records[:upto])  # it died within this step
    left = [type(effect).__name__ for effect in found.stop]
    decided = any(record.kind == "stop.decided" for record in records[:upto])
    assert left == [effect for effect in STOP if not (decided and effect == "RecordStop")]
    assert found.state.phase is Phase.STOPPING
