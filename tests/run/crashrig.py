"""Runs that are killed at one boundary after the other, and what must hold when they have gone on.

The boundaries are those that an untouched run of the same script passes: its supervisor writes them down itself
(tests/run/crashing.py), so that a new effect or record joins by itself. Real processes, SIGKILL, one stage for each run.
"""

import hashlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aftermath import eventually
from faultrig import Process, gone, lines
from runrig import Living, Ran, Rig, script, write

from inbounds.contracts.documents import LimitsText
from inbounds.demo import acts, outside, stage
from inbounds.gateway import ledger
from inbounds.journal import append_only
from inbounds.journal.verify import verify_run
from inbounds.modelserver.server import ModelServer
from inbounds.run import decision, launch, recovery
from inbounds.run.home import Home
from inbounds.store.store import Store

RUN_SECONDS_MAX = 240  # a run takes five on an idle machine; what takes longer than this hangs
DELAY_MS = 700  # of a slow provider: long enough for everything that is done meanwhile
PLAN = "billing/.inbounds/WORK_PLAN.json"
POLICY = ".inbounds/policy.yaml"
STAND_IN = """#!{python} -I
import sys
sys.path.append({here!r})
sys.argv = ["inbounds.run", *sys.argv[4:]]
import crashing
crashing.arm({told!r})
from inbounds.run.__main__ import main
sys.exit(main())
"""
SETTLEMENT = "between a reply and its settlement"
# Records that nobody waits for: what stands in the middle of one is what a loss of power can leave.
TORN = (("record gateway.started#1 behind", 17), ("record jail.started#3 behind", 211))
# Records that lead to nothing by themselves, but for the last of their kind.
REPORTS = frozenset({"verdict", "jail.started", "jail.exited", "model.usage", "agent.said"})
DONE, HOST, GATEWAY = "DONE", "STOP_HOST_FAILED", "STOP_GATEWAY_FAILED"


def honest() -> Any:
    """Two iterations, the second of which reaches the goal; any later one does as the second."""
    played = json.loads((resources.files("inbounds.demo") / "scripts" / "honest.json").read_bytes())
    for talk in played["conversations"]:
        wrote = [turn for turn in talk["turns"] if any(call["name"] == "write" for call in turn.get("calls", ()))]
        talk["turns"] = [*wrote, talk["turns"][-1]]
    played["conversations"][0]["match"] = ["This is iteration"]
    return played


@dataclass(frozen=True)
class Scene:
    """A script, and how a run of it ends when nobody is killed."""

    name: str
    code: str
    limits: dict[str, Any] = field(default_factory=dict)

    @property
    def script(self) -> Any:
        """What the provider plays."""
        if self.name == "honest":
            return honest()
        if self.name == "reverted":
            return script(write("notes.py", '"""Notes."""\n'), {"text": "A note."})
        return script(write("other/x.py", "x = 1\n"), write("rates.py", "RATE = 1\n"), {"text": "Done."})


HONEST = Scene("honest", DONE)
REVERTED = Scene("reverted", "STOP_ITERATIONS_EXCEEDED", {"iterations": 1})
QUARANTINED = Scene("quarantined", "STOP_SCOPE_EXCEEDED", {"iterations": 1})


@dataclass(frozen=True)
class Point:
    """A boundary by its name in crashing.py."""

    name: str

    @property
    def kind(self) -> str:
        """effect, record or inside."""
        return self.name.split(" ", 1)[0]

    @property
    def what(self) -> str:
        """The boundary without its moment."""
        return self.name.rpartition(" ")[0]

    @property
    def moment(self) -> str:
        """before, behind or soon."""
        return self.name.rpartition(" ")[2]


@dataclass(frozen=True)
class Untouched:
    """A run of a scene in which nobody was killed."""

    points: tuple[Point, ...]
    ran: Ran
    result: list[tuple[str, str]]

    def until(self, last: str) -> tuple[Point, ...]:
        """The boundaries before one."""
        return self.points[: [point.name for point in self.points].index(last)]

    def since(self, first: str) -> tuple[Point, ...]:
        """The boundaries from one on."""
        return self.points[[point.name for point in self.points].index(first) :]

    @property
    def stopping(self) -> tuple[Point, ...]:
        """The boundaries of the stop, from the first of its effects on; inside, of the disposal: the rest is alike."""
        stop = self.since("effect CloseDoors#1 before")
        return tuple(point for point in stop if point.kind != "inside" or "Dispose#1" in point.name)

    @property
    def metered(self) -> tuple[Point, ...]:
        """The boundaries at which gateway and broker live."""
        living = self.until("effect Finish#1 before")
        return tuple(point for point in living if point in self.since("record broker.started#1 before"))


def chosen(points: Sequence[Point]) -> list[Point]:
    """All effects before and behind, and all records; of what nobody waits for, one moment each, in turns.

    Of the changes inside an effect's first time, of each kind an early one, one in the middle, and a late one.
    """
    groups: dict[str, list[Point]] = {}
    for point in points:
        number = int(point.what.partition("#")[2].split(" ")[0].partition("#")[0] or 1)
        if point.kind == "record" and point.what.split(" ")[1].partition("#")[0] in REPORTS:
            if point.moment == ("before", "behind")[number % 2]:
                groups[point.name] = [point]
        elif point.kind != "inside":
            groups[point.name] = [point]
        elif number == 1 or point.what.startswith("inside append"):
            groups.setdefault(point.name.rpartition("#")[0] + point.moment, []).append(point)
    found: list[Point] = []
    for members in groups.values():
        last = len(members) - 1
        found += [members[at] for at in sorted({0, last // 2, last * 9 // 10})]
    return sorted(found, key=points.index)


@dataclass(frozen=True)
class Row:
    """What came of one death."""

    scene: str
    victim: str
    at: str
    outcome: str
    seconds: float
    problem: str = ""


@dataclass
class Case:
    """One run under way or over."""

    rig: Rig
    living: Living
    told: Path

    @property
    def ran(self) -> Ran:
        """The run."""
        return self.living.ran

    @property
    def struck(self) -> dict[str, Any] | None:
        """What was alive when somebody was killed."""
        place = self.told.with_suffix(".struck")
        try:
            found = json.loads(place.read_bytes())
        except (FileNotFoundError, ValueError):  # not yet, or half written by one that is about to kill itself
            return None
        assert isinstance(found, dict)
        return found

    def spent(self) -> ledger.Standing | None:
        """What the ledger knows of it."""
        return ledger.standing(self.rig.home.ledger, self.ran.run_id)


@dataclass
class Crashes:
    """Starts runs whose supervisors have been told where to die."""

    home: Home
    place: Path
    _preparing: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        """Make the stand-in for the interpreter."""
        (self.place / "told").mkdir()
        self.program = self.place / "inbounds-crashing"
        text = STAND_IN.format(python=sys.executable, here=str(Path(__file__).parent), told=str(self.place / "told"))
        self.program.write_text(text)
        self.program.chmod(0o700)

    @contextmanager
    def case(self, scene: Scene, *orders: dict[str, str], delay_ms: int = 0) -> Iterator[Case]:
        """A run of a scene; `orders` are for its supervisors, one after the other. The provider may be slow."""
        with self._preparing:  # one at a time: a layer is built by the first
            rig = Rig(self.home, stage.build(self.home.path))
            _widen(rig)
            played = scene.script
            for talk in played["conversations"]:
                talk["turns"] = [{**turn, "delay_ms": delay_ms} for turn in talk["turns"]]
            rig.server = ModelServer(played).start()
            made = rig.order(limits=LimitsText(**scene.limits))
            contract = authorized(rig, made.contract)
        run_dir = launch.prepare(self.home, contract, made.blast, made.settings)
        told = self.place / "told" / f"{run_dir.name}.json"
        told.write_text(json.dumps(orders))
        case = Case(rig, Living(Ran(self.home, run_dir), self.start(run_dir, rig, "start")), told)
        rig.living.append(case.living)
        try:
            yield case
        finally:
            rig.living.append(case.living)
            rig.close()
            append_only.release_path(run_dir / launch.JOURNAL)

    def start(self, run_dir: Path, rig: Rig, mode: str) -> launch.Started:
        """A supervisor of ours, with the keys of the rig's provider."""
        assert rig.server is not None
        keys = json.dumps(acts.provider(rig.server)[1]).encode()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(launch, "sys", SimpleNamespace(executable=str(self.program)))
            return launch.start(self.home, run_dir, keys, mode)

    def again(self, case: Case, mode: str) -> None:
        """Another supervisor for the same run."""
        case.living = Living(case.ran, self.start(case.ran.run_dir, case.rig, mode))

    def untouched(self, scene: Scene) -> Untouched:
        """A run in which nobody is killed: where one could be, and its result."""
        with self.case(scene) as case:
            over(case, scene.code)
            points = case.told.with_suffix(".points").read_text().splitlines()
            return Untouched(tuple(map(Point, points)), case.ran, result(case.ran))


def authorized(rig: Rig, contract: Any) -> Any:
    """Signed by the stage's key."""
    from inbounds.run import authorize

    return authorize.authorize(rig.home, contract, ask=lambda: True, key=rig.stage.key)


def _widen(rig: Rig) -> None:
    """A run that loses iterations and minutes to its deaths is not to end for that."""
    plan = (rig.stage.repository / PLAN).read_text()
    rig.edit(PLAN, plan.replace('"iterations": 4, "no_progress": 2', '"iterations": 8, "no_progress": 3'))
    policy = (rig.stage.repository / POLICY).read_text()
    rig.edit(POLICY, policy.replace("wall_clock: 5m", "wall_clock: 30m"))


def result(ran: Ran) -> list[tuple[str, str]]:
    """The agent branch against the base: each path with its content's id."""
    store = Store.open(ran.contract.store)
    head = store.ref(f"refs/heads/{ran.contract.branch}")
    tree = store.tree_of(head) if head else ran.contract.base_tree
    return [(change.path, change.new_blob) for change in store.diff(ran.contract.base_tree, tree)]


# -- deaths


class NotPassedError(Exception):
    """This time the run did not come by that boundary: how often a file is opened differs a little."""


def died(case: Case) -> list[bytes]:
    """Wait until the supervisor has killed itself; the journal's lines then. Nothing of the run is alive behind it."""
    code = case.living.started.process.wait(RUN_SECONDS_MAX)
    if code == 0 and case.struck is None:
        raise NotPassedError
    assert code == -9, (code, Rig.log(case.ran)[-2_000:])
    struck = case.struck
    assert struck is not None
    case.told.with_suffix(".struck").unlink()
    gone([Process(pid, started) for pid, started in struck["family"]])
    eventually(lambda: not case.ran.alive())
    assert outside.mounts_of(case.ran.run_id) == []
    return lines(case.ran)


def over(case: Case, code: str, before: Sequence[bytes] = ()) -> None:
    """The run is over, with this code, and all of its evidence holds."""
    ended = case.living.started.process.wait(RUN_SECONDS_MAX)
    ran = case.ran
    assert recovery.phase(case.rig.home, ran.run_id) == "finished", (ended, Rig.log(ran)[-2_000:])
    assert lines(ran)[: len(before)] == list(before), "a line was lost"
    assert ran.code == code, (ran.data("stop.decided"), Rig.log(ran)[-2_000:])
    assert ended == (0 if code == DONE else 1)
    found = verify_run(ran.run_dir)
    assert found.ok, [check for check in found.checks if not check.ok]
    assert ran.alive() == []
    assert outside.mounts_of(ran.run_id) == []
    evidence(ran)
    committed(ran)
    still(ran)
    paid(case)


def evidence(ran: Ran) -> None:
    """Nothing that was seen is lost: prompts by their hashes, the tree of the last snapshot, manifest, report."""
    for asked in ran.data("iteration.started"):
        kept = (ran.run_dir / "logs" / asked["prompt_file"]).read_bytes()
        assert hashlib.sha256(kept).hexdigest() == asked["prompt_sha256"]
    store = Store.open(ran.contract.store)
    taken = ran.data("snapshot.taken")
    kept_ref = store.ref(f"refs/inbounds/evidence/{ran.run_id}")
    if taken:
        assert kept_ref is not None
        assert store.tree_of(kept_ref) == taken[-1].get("left", taken[-1]["tree"])
    assert ran.manifest["exit"]["code"] == ran.code
    assert (ran.run_dir / "report.html").stat().st_size > 0


def committed(ran: Ran) -> None:
    """Every judged tree that changed something is committed once, under its own number; one landing at most."""
    store, contract = Store.open(ran.contract.store), ran.contract
    finished, made = decided(ran, "iteration.finished"), ran.data("commit.made")
    assert len({one["n"] for one in finished}) == len(finished), "an iteration was judged to its end twice"
    wanted = [(one["n"], one["tree"]) for one in finished if one["changed"]]
    assert [(one["n"], one["tree"]) for one in made] == wanted
    head = store.ref(f"refs/heads/{contract.branch}")
    assert head == (made[-1]["commit"] if made else None)
    if head:
        log = store.git("log", "--format=%H%x00%B%x01", f"{contract.base_commit}..{head}")
        messages = [entry.strip("\n").split("\0") for entry in log.split("\x01") if entry.strip()]
        assert {commit for commit, _ in messages} == {one["commit"] for one in made}
        numbers = [re.findall(r"^Iteration: (\d+)$", message, re.MULTILINE) for _, message in messages]
        assert len({number for (number,) in numbers}) == len(messages), "one iteration, two commits"
    landed = [one["commit"] for one in ran.data("promotion.decided") if one["outcome"] == "promoted"]
    assert len(landed) == (ran.code == DONE), ran.data("promotion.decided")
    tip = store.ref("refs/heads/development")
    merges = store.git("rev-list", "--merges", tip).split() if tip else []
    assert merges == landed, "what landed is not what was recorded"


def decided(ran: Ran, kind: str) -> list[dict[str, Any]]:
    """What the kernel still acted on: records of this kind that no stop had overtaken."""
    found, stopping = [], False
    for record in ran.records:
        stopping = (stopping or record.kind == "stop.step") and record.kind != "run.reauthorized"
        if record.kind == kind and not stopping:
            found.append(dict(record.data))
    return found


def still(ran: Ran) -> None:
    """Nothing executes behind a stop, unless people open another leg; the numbers of the iterations go up."""
    stopped = False
    for kind in ran.kinds():
        stopped = (stopped or kind == "stop.decided") and kind != "run.reauthorized"
        assert not (stopped and kind in ("jail.started", "iteration.started", "commit.made", "gateway.started")), kind
    numbers = [one["n"] for one in ran.data("iteration.started")]
    assert numbers == sorted(set(numbers)), numbers
    if not ran.data("run.reauthorized"):
        assert numbers == list(range(1, len(numbers) + 1)), numbers


def paid(case: Case) -> None:
    """The ledger has at least what the provider would bill, at most the cap; no request passed it by."""
    assert case.rig.server is not None
    lines_of = case.rig.server.bill.lines
    billed = sum(one.input_tokens * acts.PRICE_INPUT + one.output_tokens * acts.PRICE_OUTPUT for one in lines_of)
    known = case.spent()
    if known is None:
        assert not lines_of
        return
    assert known.totals.requests >= len(case.rig.server.seen)
    assert billed // 1_000_000 <= known.totals.spent_micro_usd <= case.ran.contract.limits["budget_micro_usd"]
    told = case.ran.manifest["cost"]["spent_micro_usd"]
    # what was in flight when a gateway died is charged in the ledger, and told by the next gateway's first request
    assert told <= known.totals.spent_micro_usd
    assert told == known.totals.spent_micro_usd or case.ran.code == GATEWAY, (told, known.totals)


def reauthorized(rig: Rig, ran: Ran) -> None:
    """What `inbounds resume` does, with the stage's key."""
    from inbounds.contracts.canonical import canonical
    from inbounds.journal import sshsig
    from inbounds.run import authorize

    statement = decision.reauthorization(rig.home, ran.run_id, "seen")
    signature = sshsig.sign(rig.stage.key, canonical(statement), authorize.APPROVAL_NAMESPACE)
    kept = {"kind": "resume", "operator": ran.contract.operator, "statement": statement, "signature": signature}
    decision.append(rig.home, ran.run_id, "operator.decision", kept)


# -- what is shown


def supervisor_dies(crashes: Crashes, scene: Scene, known: Untouched, *at: Point, torn: int = -1) -> Row:
    """Kill the supervisor (and its successors) at these boundaries, recover, and look. `torn`: cut the journal too."""
    with crashes.case(scene, *({"victim": "supervisor", "at": point.name} for point in at)) as case:
        before: list[bytes] = []
        spent = 0
        began = 0.0
        for _ in at:
            now = died(case)
            assert now[: len(before)] == before, "a line was lost"
            before = now if torn < 0 else tear(case, torn)
            found = case.spent()
            assert found is None or found.totals.spent_micro_usd >= spent, "spend fell"
            spent = found.totals.spent_micro_usd if found else 0
            phase = recovery.phase(case.rig.home, case.ran.run_id)
            assert phase == "orphaned" or (phase == "starting" and not before), phase
            began = time.monotonic()
            crashes.again(case, "recover")
        over(case, scene.code, before)
        seconds = time.monotonic() - began
        found = case.spent()
        assert spent <= (found.totals.spent_micro_usd if found else 0), "spend fell"
        assert case.struck is None
        same(case.ran, known)
        if torn >= 0:
            (mended,) = (one for one in case.ran.data("journal.recovered") if one["torn"])
            assert (case.ran.run_dir / mended["torn"]["aside"]).stat().st_size == mended["torn"]["bytes"]
    return Row(
        scene.name,
        "supervisor" if torn < 0 else "power",
        " then ".join(point.name for point in at),
        scene.code,
        seconds,
    )


def tear(case: Case, seed: int) -> list[bytes]:
    """What a loss of power leaves: the journal to a byte in the middle of a line that was not synced."""
    path = case.ran.run_dir / launch.JOURNAL
    append_only.release_path(path)
    whole = path.read_bytes()
    synced = int(case.told.with_suffix(".synced").read_text().split()[-1])
    open_ends = [at for at in range(synced + 1, len(whole)) if whole[at - 1 : at] != b"\n"]
    assert open_ends, "the control: a line was not synced"
    cut = open_ends[seed % len(open_ends)]
    with path.open("r+b") as file:
        file.truncate(cut)
    return whole[:cut].split(b"\n")[:-1]


def same(ran: Ran, known: Untouched) -> None:
    """The result and what became of the workspace are those of the run in which nobody died."""
    assert result(ran) == known.result
    ours, theirs = ran.data("stop.decided")[-1], known.ran.data("stop.decided")[-1]
    assert ours["disposal"] == theirs["disposal"]
    steps = [one["step"] for one in ran.data("stop.step") if one["ok"]]
    assert steps[-1] == known.ran.data("stop.step")[-1]["step"]
    assert [one for one in ran.data("stop.step") if not one["ok"]] == []
    for name in ("workspace/rw", "quarantine", "quarantine-2"):
        assert (ran.run_dir / name).exists() == (known.ran.run_dir / name).exists(), name


def child_dies(crashes: Crashes, known: Untouched, victim: str, at: Point, code: str) -> Row:
    """Kill gateway or broker at a boundary: the run stops with `code`, in order, and goes on with a signature."""
    with crashes.case(HONEST, {"victim": victim, "at": at.name}) as case:
        began = eventually(lambda: case.struck is not None and time.monotonic(), RUN_SECONDS_MAX)
        early = at in known.until("effect Judge#2 before")  # afterwards the goal may be reached before it is known
        asked, spent = len(case.rig.server.seen) if case.rig.server else 0, case.spent()
        case.living.started.process.wait(RUN_SECONDS_MAX)
        found = DONE if not early and reached(case.ran, victim) else code
        over(case, found)
        seconds = time.monotonic() - began
        assert case.rig.server is not None
        if victim == "gateway":
            assert len(case.rig.server.seen) == asked, "a request was sent behind its death"
            assert case.ran.kinds().count("gateway.started") == 1
        charged = case.spent()
        assert charged is not None
        assert spent is None or charged.totals.spent_micro_usd >= spent.totals.spent_micro_usd
        if found != DONE:
            before = lines(case.ran)
            reauthorized(case.rig, case.ran)
            crashes.again(case, "resume")
            over(case, DONE, before)
            assert result(case.ran) == known.result
            after = case.spent()
            assert after is not None
            assert after.totals.spent_micro_usd >= charged.totals.spent_micro_usd
    return Row(HONEST.name, victim, at.name, found, seconds)


def reached(ran: Ran, victim: str) -> bool:
    """Whether the run had reached its goal before the death was known: by the journal's order."""
    stop = ran.data("stop.decided")[0]
    return stop["code"] == DONE and victim not in [one["part"] for one in decided(ran, "part.failed")]


def twice(known: Untouched) -> list[tuple[Point, Point]]:
    """A sample of boundaries, each with one of the recovery behind it at which its supervisor dies as well."""
    first = ["effect RunPreflight#1 before", "effect StartIteration#1 behind", "effect Judge#1 before",
             "record commit.made#1 before", "effect Judge#2 before", "record commit.made#2 behind",
             "effect Persist#1 before", "effect Dispose#1 before", "effect Finish#1 before"]  # fmt: skip
    names = {point.name for point in known.points}
    assert names.issuperset(first), set(first) - names
    open_way = ["record run.recovered#1 before", "record run.recovered#1 behind", "effect Reopen#1 before",
                "record run.reopened#1 before", "record run.reopened#1 behind"]  # fmt: skip
    pairs = [(first[0], "effect RunPreflight#1 before"), *zip(first[1:5], open_way[1:], strict=True)]
    pairs += [(first[4], open_way[0]), (first[5], "record journal.recovered#1 behind")]
    pairs += [(at, at.replace("before", "behind")) for at in first[6:]]
    return [(Point(at), Point(late)) for at, late in pairs]


def settlement_is_lost(crashes: Crashes, known: Untouched) -> Row:
    """The gateway dies when the provider has replied (and billed), and before it could settle: it stays charged."""
    with crashes.case(HONEST, delay_ms=DELAY_MS) as case:
        server = case.rig.server
        assert server is not None
        eventually(lambda: server.bill.lines, RUN_SECONDS_MAX)
        (pid,) = (int(one["pid"]) for one in case.ran.data("gateway.started"))
        reserved = case.spent()
        assert reserved is not None
        assert reserved.open == 1
        os.kill(pid, signal.SIGSTOP)
        time.sleep(2 * DELAY_MS / 1_000)  # the reply is on its way, and lies in the socket of one that sleeps
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        over(case, GATEWAY)
        seconds = time.monotonic() - began
        left = case.spent()
        assert left is not None
        assert len(server.seen) == len(server.bill.lines) == left.totals.requests == 1
        assert left.totals.spent_micro_usd == reserved.totals.spent_micro_usd > 0, "the reservation is not charged"
        assert left.totals.settled_micro_usd == 0
        assert case.ran.data("model.usage") == []
        before = lines(case.ran)
        reauthorized(case.rig, case.ran)
        crashes.again(case, "resume")
        over(case, DONE, before)
        assert result(case.ran) == known.result
        after = case.spent()
        assert after is not None
        assert after.in_doubt == 1
        assert after.totals.unknown_micro_usd == reserved.totals.spent_micro_usd
    return Row(HONEST.name, "gateway", SETTLEMENT, GATEWAY, seconds)
