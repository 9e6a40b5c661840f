"""A real run killed by SIGKILL at its boundaries, in CI each effect once: `make crash` has all of them, and a table.

What dies are supervisor, gateway and broker; a run goes on behind the first by itself, behind the others when a person
has signed. The host service of a later stage will join as another victim.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import crashrig
import pytest
from crashrig import GATEWAY, HONEST, HOST, QUARANTINED, REVERTED, Crashes, Point, Row, Scene, Untouched

from inbounds.run.home import Home
from inbounds.store.store import Store

TOGETHER = 2  # runs at a time: much of one is waiting
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_200)]


@pytest.fixture(scope="module")
def crashes(state_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crashes]:
    """Runs whose supervisors can be told where to die."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INBOUNDS_HOME", str(state_home.path))
        yield Crashes(state_home, Path(tmp_path_factory.mktemp("crashes")))


@pytest.fixture(scope="module")
def honest(crashes: Crashes) -> Untouched:
    """The control: the run in which nobody dies, which names the boundaries."""
    return crashes.untouched(HONEST)


def together(work: Sequence[Callable[[], Row]]) -> list[Row]:
    """Some at a time; the first that does not hold is raised when all are over."""
    with ThreadPoolExecutor(TOGETHER) as pool:
        return [done.result() for done in [pool.submit(one) for one in work]]


def effects(known: Untouched) -> list[Point]:
    """Each effect of a run once: the first before it is begun, the next when it is done."""
    names = dict.fromkeys(point.what for point in known.points if point.kind == "effect")
    found = [Point(f"{name} {('before', 'behind')[at % 2]}") for at, name in enumerate(names)]
    assert set(found) <= set(known.points)
    assert len(found) > 15, "the control: a run of two iterations has as many effects"
    return found


@pytest.mark.req("E16", "K1")
def test_a_run_goes_on_behind_every_effect(crashes: Crashes, honest: Untouched) -> None:
    def killed(at: Point) -> Callable[[], Row]:
        return lambda: crashrig.supervisor_dies(crashes, HONEST, honest, at)

    for row in together([killed(at) for at in effects(honest)]):
        print(row)


@pytest.mark.req("E12", "E13")
def test_a_stop_is_carried_on(crashes: Crashes) -> None:
    def killed(scene: Scene, known: Untouched, name: str) -> Callable[[], Row]:
        return lambda: crashrig.supervisor_dies(crashes, scene, known, Point(name))

    work = []
    for scene, inside in ((REVERTED, "open"), (QUARANTINED, "os.chmod")):
        known = crashes.untouched(scene)
        middle = [point for point in known.points if point.name.startswith(f"inside Dispose#1 {inside}")]
        assert middle, "the control: a disposal changes files"
        names = ["effect RecordStop#1 behind", middle[len(middle) // 2].name]
        work += [killed(scene, known, name) for name in names]
    together(work)


@pytest.mark.req("E16")
def test_a_recovery_that_dies_is_recovered(crashes: Crashes, honest: Untouched) -> None:
    def killed(first: Point, late: Point) -> Callable[[], Row]:
        return lambda: crashrig.supervisor_dies(crashes, HONEST, honest, first, late)

    together([killed(*pair) for pair in crashrig.twice(honest)[1::3]])


@pytest.mark.req("E14", "G9")
def test_a_run_stops_with_its_gateway_and_goes_on_with_a_signature(crashes: Crashes, honest: Untouched) -> None:
    def killed(victim: str, name: str, code: str) -> Callable[[], Row]:
        return lambda: crashrig.child_dies(crashes, honest, victim, Point(name), code)

    at = ("record broker.started#1 behind", "effect StartIteration#1 before", "record verdict#2 behind",
          "effect Freeze#1 before")  # fmt: skip
    work = [killed("gateway", name, GATEWAY) for name in at]
    work.append(killed("broker", "effect StartIteration#2 before", HOST))
    rows = together([*work, lambda: crashrig.settlement_is_lost(crashes, honest)])
    assert [row.outcome for row in rows] == [GATEWAY, GATEWAY, GATEWAY, "DONE", HOST, GATEWAY]


@pytest.mark.req("H14", "E16")
def test_a_run_goes_on_behind_a_torn_line(crashes: Crashes, honest: Untouched) -> None:
    def torn(name: str, seed: int) -> Callable[[], Row]:
        return lambda: crashrig.supervisor_dies(crashes, HONEST, honest, Point(name), torn=seed)

    together([torn(*one) for one in crashrig.TORN])


def test_what_is_looked_at_can_fail(crashes: Crashes, honest: Untouched) -> None:
    ran = honest.ran
    store = Store.open(ran.contract.store)
    for look in (crashrig.evidence, crashrig.committed, crashrig.still):
        look(ran)
    crashrig.same(ran, honest)
    with pytest.raises(AssertionError):
        crashrig.same(ran, replace(honest, result=[]))
    prompt = ran.run_dir / "logs" / ran.data("iteration.started")[0]["prompt_file"]
    asked = prompt.read_bytes()
    prompt.write_bytes(asked[:-1])
    with pytest.raises(AssertionError):
        crashrig.evidence(ran)
    prompt.write_bytes(asked)
    branch, (first, last) = f"refs/heads/{ran.contract.branch}", [one["commit"] for one in ran.data("commit.made")]
    for ref, wrong, right in (
        (branch, first, last),
        ("refs/heads/development", first, store.ref("refs/heads/development")),
    ):
        assert right is not None
        assert store.compare_and_swap(ref, wrong, right)
        with pytest.raises(AssertionError):
            crashrig.committed(ran)
        assert store.compare_and_swap(ref, right, wrong)
    crashrig.committed(ran)
