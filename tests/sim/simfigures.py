"""Many simulated runs on all processors, their figures printed and written as JSON; or one run with its trace.

Knows nothing of what a run is: it sums up what `simulate` tells.
"""

import argparse
import contextlib
import json
import logging
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from simcanaries import CANARIES, Canary
from siminvariants import Violation
from simrun import Tally, simulate, simulated_host

from inbounds.contracts.reasons import StopCode
from inbounds.kernel.effects import Effect
from inbounds.kernel.events import BY_KIND
from inbounds.kernel.state import Phase

RUNS = 100_000
CHUNK = 250  # seeds that one process takes at a time
SAID = 10_000  # runs between two words of progress
SHOWN = 20
MEMORY = Path("/dev/shm")


@dataclass(slots=True)
class Figures:
    """Of many runs."""

    runs: int = 0
    seconds: float = 0.0
    tally: Tally = field(default_factory=Tally)
    failures: list[tuple[int, str, str]] = field(default_factory=list)


def effects() -> list[str]:
    """The names of all effects."""
    names: list[str] = []
    todo = list(get_args(Effect))
    while todo:
        one = todo.pop(0)
        todo = [*get_args(one), *todo] if get_args(one) else todo
        names += [] if get_args(one) else [one.__name__]
    return names


@contextlib.contextmanager
def memory() -> Iterator[Path]:
    """A directory of our own, in memory where the host has such a place."""
    with tempfile.TemporaryDirectory(
        prefix="inbounds-sim-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None
    ) as place:
        yield Path(place)


def many(seeds: Sequence[int]) -> Figures:
    """Simulate each; a violation ends its run alone."""
    found = Figures()
    logging.disable(logging.CRITICAL)  # the loop logs each fault that is dealt to it
    try:
        with memory() as place, simulated_host():
            for seed in seeds:
                found.runs += 1
                try:
                    found.tally.add(simulate(seed, place))
                except Violation as violation:
                    found.failures.append((seed, violation.name, violation.detail[:500]))
    finally:
        logging.disable(logging.NOTSET)
    return found


def find(canary: Canary) -> tuple[int, str]:
    """The first seed that finds a planted bug, and the invariant that did; (-1, "") where none does."""
    logging.disable(logging.CRITICAL)
    try:
        with memory() as place, simulated_host(), canary.planted():
            for seed in range(canary.seeds):
                try:
                    simulate(seed, place)
                except Violation as violation:
                    if violation.name in canary.found_by:
                        return seed, violation.name
    finally:
        logging.disable(logging.NOTSET)
    return -1, ""


def everywhere(first: int, runs: int, jobs: int) -> Figures:
    """As `many`, on so many processors."""
    began = time.monotonic()
    chunks = [range(at, min(at + CHUNK, first + runs)) for at in range(first, first + runs, CHUNK)]
    total = Figures()
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for part in pool.imap_unordered(many, chunks):
            total.runs += part.runs
            total.tally.add(part.tally)
            total.failures += part.failures
            for seed, name, _ in part.failures:
                print(f"seed {seed}: {name}", flush=True)
            if total.runs % SAID == 0:
                print(f"{total.runs} runs, {len(total.failures)} failures", flush=True)
    total.seconds = time.monotonic() - began
    return total


def boundaries(tally: Tally) -> dict[str, dict[str, int]]:
    """Before and behind each effect: how often it was passed, and how often a supervisor died there."""
    names = [f"{side}:{name}" for name in effects() for side in ("before", "after")]
    names += ["append:before", "append:written", "append:synced"]
    return {name: {"passed": tally.points[name], "deaths": tally.faults[f"death at {name}"]} for name in names}


def as_json(found: Figures, jobs: int) -> dict[str, Any]:
    """Everything, for a machine."""
    tally = found.tally
    met = {pair: count for pair, count in sorted(tally.met.items()) if pair.split(" ")[1] in BY_KIND}
    deaths = sum(count for name, count in tally.faults.items() if name.startswith("death at "))
    return {
        "runs": found.runs, "jobs": jobs, "seconds": round(found.seconds, 1),
        "runs_per_second": round(found.runs / found.seconds, 1) if found.seconds else None,
        "steps": tally.steps, "supervisors": tally.lives, "records": tally.records, "deaths": deaths,
        "kills": tally.faults["kill"], "power_losses": tally.faults["power loss"],
        "recoveries": tally.recoveries, "resumes_tried": tally.resumes, "resumes_refused": tally.refused,
        "stops": {code.value: tally.stops[code.value] for code in StopCode},
        "faults": {name: count for name, count in sorted(tally.faults.items()) if not name.startswith("death at ")},
        "phases_and_events": {"met": len(met), "of": len(Phase) * len(BY_KIND), "each": met},
        "boundaries": boundaries(tally),
        "failures": [{"seed": seed, "invariant": name, "detail": detail} for seed, name, detail in found.failures],
    }  # fmt: skip


def say(figures: dict[str, Any]) -> None:
    """Everything that a person asks first."""
    per = figures["runs_per_second"]
    print(f"{figures['runs']} runs in {figures['seconds']} s on {figures['jobs']} processor(s): {per} runs/s")
    print(
        f"{figures['steps']} steps, {figures['records']} records, {figures['supervisors']} supervisors, "
        f"{figures['kills']} kills, {figures['power_losses']} power losses, {figures['recoveries']} recoveries, "
        f"{figures['resumes_tried']} resumes tried, {figures['resumes_refused']} refused"
    )
    for title in ("stops", "faults"):
        print(f"{title}: " + ", ".join(f"{name} {count}" for name, count in figures[title].items()))
    untouched = [name for name, count in figures["boundaries"].items() if not count["deaths"]]
    print(f"boundaries of effects: {len(figures['boundaries'])}, without a death: {', '.join(untouched) or 'none'}")
    print(f"phases with events met: {figures['phases_and_events']['met']} of {figures['phases_and_events']['of']}")
    for failure in figures["failures"][:SHOWN]:
        print(f"FAILED seed {failure['seed']}: {failure['invariant']}: {failure['detail']}")
    print(f"{len(figures['failures'])} failures")


def traced(seed: int, *, trace: bool) -> int:
    """One run; its trace where it is asked for or where it fails."""
    lines: list[str] = []
    logging.disable(logging.CRITICAL)
    with memory() as place, simulated_host():
        try:
            simulate(seed, place, lines.append)
        except Violation as violation:
            print("\n".join(lines))
            print(f"FAILED seed {seed}: {violation}")
            return 1
    if trace:
        print("\n".join(lines))
    print(f"seed {seed} holds: {len(lines)} lines of trace")
    return 0


def canaries() -> int:
    """Which seed and which invariant finds each planted bug."""
    missed = 0
    for canary in CANARIES:
        seed, name = find(canary)
        missed += seed < 0
        print(f"{canary.name:45} {f'seed {seed}: {name}' if seed >= 0 else 'NOT FOUND'}", flush=True)
    return 1 if missed else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 where everything holds."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seed", type=int, help="this run alone")
    parser.add_argument("--trace", action="store_true", help="with --seed: everything that happens")
    parser.add_argument("--canaries", action="store_true", help="the planted bugs, and who finds each")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    asked = parser.parse_args(argv)
    if asked.canaries:
        return canaries()
    if asked.seed is not None:
        return traced(asked.seed, trace=asked.trace)
    found = everywhere(asked.first, asked.runs, asked.jobs)
    figures = as_json(found, asked.jobs)
    say(figures)
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    absent = [code for code, count in figures["stops"].items() if not count] if asked.runs >= RUNS else []
    if absent:
        print(f"stop codes that never occurred: {', '.join(absent)}")
    return 1 if figures["failures"] or absent else 0
