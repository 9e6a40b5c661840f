"""The drill in hardened mode, over a real host service: each attack in a slot of its own, none of them left."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drillrig import WRITE, write_case

SECONDS = 120
WHOLE_SECONDS = 1_200  # three minutes on two processors that do nothing else
COUNTED = 120  # what issue and README promise; there are twice as many
HOST_TESTS = Path(__file__).resolve().parents[1] / "host"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A service over directories of its own."""
    if os.getuid() != 0:
        pytest.skip("the host service is root's: started as an ordinary user it can do nothing")
    monkeypatch.syspath_prepend(str(HOST_TESTS))
    from hostrig import Rig  # type: ignore[import-not-found]  # made reachable a line above

    rig = Rig()
    try:
        rig.start()
        monkeypatch.setenv("INBOUNDS_HOST_SOCKET", rig.paths.socket)
        yield rig
    finally:
        rig.close()


def slots(rig: Any) -> list[str]:
    """Numbers of those that are there, held or kept."""
    place = Path(rig.paths.state) / "slots"
    return sorted(path.name for path in place.iterdir()) if place.exists() else []


@pytest.mark.req("M9", "M12", "F1")
def test_attacks_are_tried_in_slots_that_are_gone_afterwards(service: Any, tmp_path: Path) -> None:
    path = write_case(tmp_path, f"{WRITE}\nsay(uid=os.stat(WORK).st_uid, jail=os.path.exists('/run/inbounds'))")
    done = subprocess.run(
        [sys.executable, "-m", "inbounds", "drill", str(tmp_path), "--mode", "hardened", "--case", str(path), "--json"],
        capture_output=True, text=True, check=False, timeout=SECONDS,
        env={**os.environ, "INBOUNDS_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert done.returncode == 0, (found, done.stderr, service.log.read_text())
    assert (found["mode"], found["counted"], found["escaped"]) == ("hardened", 1, 0)
    assert found["enforcement"]["volume_image"] == "enforced"
    assert slots(service) == []


@pytest.mark.slow
@pytest.mark.req("M9", "M12", "F1", "F2", "F6", "F7")
def test_of_the_whole_suite_nothing_escapes_a_slot(service: Any, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "inbounds", "drill", str(tmp_path), "--mode", "hardened", "--json"],
        capture_output=True, text=True, check=False, timeout=WHOLE_SECONDS,
        env={**os.environ, "INBOUNDS_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    found = json.loads(done.stdout)
    wrong = [case for case in found["cases"] if case["outcome"] in ("ESCAPED", "INCONCLUSIVE")]
    assert (done.returncode, wrong) == (0, []), (done.stderr[-2000:], service.log.read_text()[-2000:])
    assert found["counted"] >= COUNTED
    assert all(case["control"] == "proven" for case in found["cases"] if case["outcome"] != "NO CONTROL")
    assert found["complete"] is True
    assert slots(service) == []


@pytest.mark.req("M12")
def test_a_killed_drill_leaves_no_slot(service: Any, tmp_path: Path, place: Path) -> None:
    path = write_case(tmp_path, WRITE, "say(begun=1)\ntime.sleep(90)", DEADLINE_S=100)
    drill = subprocess.Popen(
        [sys.executable, "-m", "inbounds", "drill", str(tmp_path), "--mode", "hardened", "--case", str(path)],
        stdout=(tmp_path / "said").open("w"), stderr=subprocess.STDOUT, start_new_session=True,
        env={**os.environ, "INBOUNDS_HOME": str(tmp_path / "home"), "TMPDIR": str(place)},
    )  # fmt: skip
    try:
        until = time.monotonic() + SECONDS
        while not (slots(service) and any(place.glob("inbounds-drill-*/*/jail/stdout"))):
            assert time.monotonic() < until, service.log.read_text()
            assert drill.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.05)
        drill.send_signal(signal.SIGKILL)
        drill.wait()
        until = time.monotonic() + SECONDS
        while slots(service) or any(place.iterdir()):
            assert time.monotonic() < until, (slots(service), [str(path) for path in place.iterdir()])
            time.sleep(0.1)
    finally:
        drill.kill()
        drill.wait()
