"""The jails of a run, ended while they begin: nothing is missed, nothing starts afterwards, nothing is counted twice."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from inbounds.run.crew import Crew, HaltedError
from inbounds.sandbox.identity import identity
from inbounds.sandbox.probe import probe
from inbounds.sandbox.spec import JailLimits, JailSpec

SLEEP = JailSpec(role="coder", argv=("/usr/bin/sleep", "60"), cwd="/")
NORMAL = f"{JailLimits().nice}\n"


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture
def crew(heard: list[str]) -> Crew:
    facts = probe()
    if facts.level < 1:
        pytest.skip(f"no jail can be made here: {facts.problem or ', '.join(facts.lacking)}")

    def post(kind: str, _: Mapping[str, Any]) -> None:
        heard.append(kind)

    return Crew(identity("20260101-000000-crew00"), post)


@pytest.mark.req("E10")
def test_a_halt_while_a_jail_is_made_hears_of_it_and_ends_it(crew: Crew, heard: list[str], tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            crew.run(SLEEP, tmp_path)
        except BaseException as fault:
            failed.append(fault)

    worker = threading.Thread(target=work)
    worker.start()
    while not crew._lock.locked():
        time.sleep(0.001)
    assert crew.halt() == 1
    assert heard[:1] == ["jail.started"], "whoever halted knows that it had started"
    worker.join(30)
    assert not worker.is_alive()
    assert crew.halt() == 0, "the dead are not counted again"
    with pytest.raises(HaltedError):
        crew.open(SLEEP, tmp_path)
    assert heard == ["jail.started", "jail.exited"]
    assert all("gone before it began" in str(fault) for fault in failed)


def test_a_jail_that_was_killed_and_not_yet_waited_for_is_not_alive(crew: Crew, tmp_path: Path) -> None:
    jail = crew.open(SLEEP, tmp_path)
    jail.go()
    assert crew.halt() == 1, "the control: it was alive"
    assert crew.halt() == 0
    assert crew.finish(jail).reason == "killed"


def test_a_freeze_holds_every_jail_and_lets_none_begin(crew: Crew, tmp_path: Path) -> None:
    jails = []
    for n in range(2):
        (tmp_path / str(n)).mkdir()
        jails.append(crew.open(SLEEP, tmp_path / str(n)))
        jails[-1].go()
    frozen = crew.freeze()
    assert set(frozen) == {f"coder ({jail.pid})" for jail in jails}
    assert set(frozen.values()) <= {"cgroup.freeze", "SIGSTOP"}
    assert all(jail.wait(0) is None for jail in jails), "frozen is not dead: what is in memory can still be looked at"
    with pytest.raises(HaltedError):
        crew.open(SLEEP, tmp_path)
    assert crew.halt() == 2
    assert {crew.finish(jail).reason for jail in jails} == {"killed"}


def test_a_slow_down_holds_for_later_jails_too(crew: Crew, tmp_path: Path) -> None:
    assert crew.slow(50) == "no jail of the agent is alive; later ones begin slowly"
    other = JailSpec(role="tester", argv=("/usr/bin/nice",), cwd="/")
    (tmp_path / "tester").mkdir()
    crew.run(other, tmp_path / "tester")
    assert (tmp_path / "tester" / "stdout").read_text() == NORMAL, "judges are never slowed"
    nice = JailSpec(role="coder", argv=("/usr/bin/nice",), cwd="/")
    (tmp_path / "slow").mkdir()
    crew.run(nice, tmp_path / "slow")
    assert (tmp_path / "slow" / "stdout").read_text() == "19\n"
    jail = crew.open(SLEEP, tmp_path)
    jail.go()
    assert crew.slow(50) in {"nice 19", "cpu.max 50%"}
    assert crew.slow(100) == "later jails have their full share"
    (tmp_path / "lifted").mkdir()
    crew.run(nice, tmp_path / "lifted")
    assert (tmp_path / "lifted" / "stdout").read_text() == NORMAL
    assert crew.halt() == 1
    assert crew.finish(jail).reason == "killed"
