"""Every case of the classes resources, evidence, failopen, economic and behaviour, as a drill runs it; and that they can
fail: jails without the limit that a case is about let it through.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from drillrig import Weakened, run

from inbounds.drill.case import Case, built_in
from inbounds.drill.ground import Ground
from inbounds.drill.mode import choose
from inbounds.drill.runner import Drill
from inbounds.sandbox.probe import probe
from inbounds.sandbox.spec import JailLimits, JailSpec

CLASSES = ("resources", "evidence", "failopen", "economic", "behaviour")
CASES = [case for case in built_in() if case.class_ in CLASSES]
BY_ID = {case.id: case for case in CASES}
# Where the attempt itself needs what not every host or user has; everywhere else a control that fails is a fault.
MAY_LACK_A_CONTROL = {
    "resources.clock-namespace": "time namespaces need Linux 5.6 and a user who may make a user namespace",
    "resources.descriptor-flood": "a hard limit below 1,000 descriptors",
}
LIMITED = (
    "descriptor-flood", "fill-home", "fill-inodes", "fork-bomb", "large-file", "memory-many-processes",
    "memory-one-process", "memory-shared", "processor-burner", "thread-bomb",
)  # fmt: skip


@pytest.fixture(scope="module")
def drill() -> Iterator[Drill]:
    facts = probe()
    if facts.level == 0:
        pytest.skip(f"no jail can be made here: {facts.problem}; {facts.fix}")
    with Drill(Ground(), choose("rootless", f"test-{os.getpid()}")) as made:
        yield made


@pytest.mark.req("M10", "M11", "M12")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_it_succeeds_where_nothing_guards_and_not_here(drill: Drill, case: Case) -> None:
    result = drill.case(case)
    if result.outcome == "NO CONTROL" and case.id in MAY_LACK_A_CONTROL:
        pytest.skip(f"{MAY_LACK_A_CONTROL[case.id]}: {result.observed}")
    assert result.outcome in {"BLOCKED", "CONTAINED", "DETECTED"}, result
    assert result.control == "proven"
    assert result.observed


@pytest.mark.parametrize("name", LIMITED)
def test_without_its_limit_it_escapes(name: str) -> None:
    def unlimited(spec: JailSpec, _: Path) -> JailSpec:
        return replace(spec, limits=JailLimits())

    result = run(BY_ID[f"resources.{name}"], Weakened(unlimited, choose("rootless", f"weak-{os.getpid()}")))
    assert result.outcome == "ESCAPED", result


def test_there_are_enough_of_each() -> None:
    count = {name: sum(case.class_ == name for case in CASES) for name in CLASSES}
    assert sum(count.values()) >= 90
    assert min(count.values()) >= 12
    assert set(BY_ID) >= set(MAY_LACK_A_CONTROL)
