"""Whatever a hostile hand does to a run's evidence is found, named by its kind, and by two verifiers that share no code."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import evidence
import pytest
import tampering
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tampering import Tampering

from inbounds.journal.checks import State
from inbounds.journal.verify import Verification, verify_run
from inbounds.journal.writer import Journal

DOCS = Path(__file__).resolve().parents[2] / "docs" / "verify"


def kinds(found: Verification) -> dict[str, str]:
    return {check.name: check.kind for check in found.checks if check.state is State.FAILS}


def second(run: Path) -> tuple[int, dict[str, str]]:
    """What the scripts of docs/verify say: exit code, and the first kind of each check that fails."""
    found: dict[str, str] = {}
    code = 0
    for script in ("verify.py", "people.py"):
        argv = [sys.executable, "-I", str(DOCS / script), str(run)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode in (0, 1), done.stderr
        assert not done.stderr, done.stderr
        code |= done.returncode
        for line in done.stdout.splitlines():
            if line.startswith("FAILS"):
                name, _, rest = line.removeprefix("FAILS").strip().partition(" [")
                found.setdefault(name, rest.partition("]")[0])
        if code:
            break  # people.py is for a journal that holds
    return code, found


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A state directory with one finished run; copied for each manipulation."""
    home = tmp_path_factory.mktemp("sound")
    evidence.write(home, evidence.good_run())
    yield home
    shutil.rmtree(home)


@pytest.fixture
def run(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "home", ignore=shutil.ignore_patterns("journal.lock"))
    return tmp_path / "home" / "runs" / evidence.RUN_ID


def test_the_untouched_journal_verifies_twice(run: Path) -> None:
    found = verify_run(run)
    assert found.ok, kinds(found)
    assert second(run) == (0, {})


@pytest.mark.req("H14")
@pytest.mark.parametrize("one", tampering.ALL, ids=lambda one: f"{one.do.__name__}-{one.check}")
def test_each_manipulation_is_found_and_named(run: Path, one: Tampering) -> None:
    one.do(run)
    found = verify_run(run)
    assert not found.ok
    assert kinds(found).get(one.check) == one.kind, found.checks
    if one.both:
        code, said = second(run)
        assert code == 1
        assert said.get(one.check) == one.kind, said


def test_there_are_enough_of_them() -> None:
    assert len({one.do for one in tampering.ALL}) >= 60
    assert sum(one.both for one in tampering.ALL) >= 60


@pytest.mark.req("H14")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_single_changed_byte_is_found(run: Path, data: st.DataObject) -> None:
    path = run / "journal.jsonl"
    raw = path.read_bytes()
    place = data.draw(st.integers(0, len(raw) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda byte: byte != raw[place]))
    try:
        path.write_bytes(raw[:place] + bytes([value]) + raw[place + 1 :])
        assert not verify_run(run).ok
    finally:
        path.write_bytes(raw)


@pytest.mark.req("H14")
def test_every_cut_is_found(run: Path) -> None:
    raw = (run / "journal.jsonl").read_bytes()
    for length in [*range(0, len(raw), 997), len(raw) - 1]:
        (run / "journal.jsonl").write_bytes(raw[:length])
        assert not verify_run(run).ok, length
    (run / "journal.jsonl").write_bytes(raw)
    assert verify_run(run).ok


def test_a_line_torn_by_a_power_loss_is_repaired_and_reported_and_is_no_tampering(tmp_path: Path) -> None:
    steps = evidence.good_run()
    n = next(n for n, (kind, _) in enumerate(steps) if kind == "denial")
    run = evidence.write(tmp_path, steps[:n])
    raw = (run / "journal.jsonl").read_bytes()
    with (run / "journal.jsonl").open("ab") as file:
        file.write(raw.splitlines()[-1][:70])  # the next record reached the disk in part
    torn = verify_run(run)
    assert kinds(torn)["chain"] == "torn"
    assert "power loss" in next(check.detail for check in torn.checks if check.name == "chain")
    with Journal.open(run / "journal.jsonl", signer=evidence.SIGNER, at_ms=evidence.START + 10_000_000) as journal:
        for kind, data in steps[n:]:
            journal.append(kind, data, evidence.START + 10_000_000)
    evidence.close(run)
    mended = verify_run(run)
    assert mended.ok, kinds(mended)
    assert ["repaired after a power loss" in note for note in mended.notes] == [True]
    assert second(run) == (0, {})
