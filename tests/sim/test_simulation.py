"""2,000 simulated runs hold, every planted bug is found, and a seed always gives the same run.

The long job is `make sim`: 100,000 runs. A failure prints its seed; `python -m tests.sim --seed N --trace` shows it.
"""

import re
from pathlib import Path

import pytest
import simfigures
from simcanaries import CANARIES, Canary
from simrun import simulate, simulated_host

from inbounds.contracts.reasons import StopCode

RUNS = 2_000


@pytest.fixture(scope="module")
def figures() -> simfigures.Figures:
    return simfigures.many(range(RUNS))


@pytest.mark.slow
@pytest.mark.req("E10", "E11", "E14")
def test_every_invariant_holds_in_every_run(figures: simfigures.Figures) -> None:
    assert figures.runs == RUNS
    shown = "\n".join(f"seed {seed}: {name}: {detail}" for seed, name, detail in figures.failures[:10])
    assert not figures.failures, f"{len(figures.failures)} of {RUNS} runs fail:\n{shown}"


def test_the_runs_go_everywhere(figures: simfigures.Figures) -> None:
    """A simulator that never comes to a place says nothing about it."""
    tally = figures.tally
    assert not [code for code in StopCode if not tally.stops[code.value]]
    assert not [name for name, count in simfigures.boundaries(tally).items() if not count["passed"]]
    died = [name for name, count in simfigures.boundaries(tally).items() if count["deaths"]]
    assert len(died) >= 32, died  # of 37; the long job comes to each
    for fault in ("kill", "power loss", "event lost", "event doubled", "event late", "event mangled", "part raises",
                  "disk full", "sync fails", "clock set", "suspended", "gateway dies", "workspace full"):  # fmt: skip
        assert tally.faults[fault], fault
    assert tally.recoveries
    assert 0 < tally.refused < tally.resumes


@pytest.mark.parametrize("canary", CANARIES, ids=lambda canary: canary.name.replace(" ", "-"))
def test_a_planted_bug_is_found(canary: Canary) -> None:
    seed, name = simfigures.find(canary)
    assert seed >= 0, f"no seed below {canary.seeds} finds it"
    assert name in canary.found_by


def test_a_seed_gives_the_same_run_again(tmp_path: Path) -> None:
    def traced(seed: int, place: Path) -> list[str]:
        lines: list[str] = []
        with simulated_host():
            simulate(seed, place, lines.append)
        return [re.sub(r"[0-9a-f]{64}|'(holder_)?pid': \d+", "", line) for line in lines]

    for seed in range(40):
        first = traced(seed, tmp_path)
        assert len(first) > 1
        assert first == traced(seed, tmp_path)


def test_what_is_planted_is_taken_out_again() -> None:
    before = [[getattr(target, name) for target, name, _ in canary.patches()] for canary in CANARIES]
    for canary in CANARIES:
        with canary.planted():
            pass
    assert before == [[getattr(target, name) for target, name, _ in canary.patches()] for canary in CANARIES]
