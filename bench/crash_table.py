"""The crash matrix's rows as the page docs/crash-matrix.md: tables in the order in which a run passes its boundaries.

Makes no run and judges none.
"""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from crashrig import HONEST, QUARANTINED, REVERTED, Row

TEXT = """\
# Crash matrix

Real runs, killed with SIGKILL at one boundary after the other, and what came of each. Made by `make crash`
(`bench/crash_matrix.py`); not written by hand.

{when}, commit {commit}, {machine}, {took}. **{deaths} deaths in {runs} runs; {bad} did not end as they must.**{missed}

## What is killed, and where

The script is a run of two iterations, the second of which reaches the goal. A supervisor that nobody kills writes down
every boundary that it passes (`tests/run/crashing.py`), so a new effect or record joins the matrix by itself:

- an **effect** of the kernel, *before* it is begun (its record is on disk) and *behind* it (done, with all it led to);
- a **record** of the journal, *before* it is written (what it tells of has been done) and *behind* it (one line is
  written: not synced, no checkpoint, no anchor). Records that nobody waits for die at one of the two, in turns;
- **inside** an effect: before a file is made, opened for writing, renamed, its mode changed or removed, or a program
  is started, in the loop's thread and in the worker's: of each kind an early, a middle and a late one.

Victims are the **supervisor**, the **gateway** and the **broker**. A loss of *power* is a supervisor's death and a
journal cut in the middle of a line that was not synced; the simulator (`tests/sim`) has the ones in which other files
lose bytes too.

The **host service** of hardened runs has tests of its own in place of rows here: `tests/host/test_host_crash.py` kills
it at each of the 19 steps of a slot's life (6 of opening, 8 of attaching and closing, 4 of discarding, 1 of a jail's
start), once the whole service and once the one session, 38 deaths, and a restart at 3 more: what was being opened or
discarded is undone, what was kept is adopted, no process lives. What its death does to a whole run is in
`tests/run/test_run_hardened.py` (`test_a_dead_service_ends_the_run_with_nothing_alive`: STOP_HOST_FAILED, evidence
kept, `discard` once it is back).

## What must hold

Behind a supervisor's death no process and no mount of the run is left, `recover` takes the run up with the same
provider, and it ends with the same result tree, the same disposal and the same code as the run in which nobody died.
Behind a gateway's it stops with STOP_GATEWAY_FAILED (a broker's: STOP_HOST_FAILED), in order, unless the goal was
reached before the death was known; nothing more is sent, what was reserved stays charged, and with a signature
`resume` goes on to DONE. In every case: no line of the journal is lost, `verify` holds, each judged tree is committed
once and under its own number, the result lands once, nothing is started behind the stop, spend never falls, is at
least what the provider bills and at most the cap, manifest, report, prompts and the last tree are there.
`tests/run/crashrig.py` looks, `tests/run/test_crash_matrix.py` has a sample in CI and shows that the looks can fail.

Seconds are from the next supervisor's start (gateway and broker: from the death) to the end of the run's program; a
machine's load stretches them.
"""


def page(rows: Sequence[Row], order: Sequence[tuple[str, str, str]], took: str, root: Path) -> str:
    """The whole page; `order` names every death in its place, `took` says how long they took."""
    made = {(row.scene, row.victim, row.at): row for row in rows}
    found = [made[key] for key in order if key in made]
    missed = sum(row.outcome == "not passed" for row in found)
    parts = [
        TEXT.format(
            took=took,
            when=time.strftime("%Y-%m-%d", time.gmtime()),
            commit=_commit(root),
            machine=f"{os.cpu_count()} cores with a load of {os.getloadavg()[2]:.0f}, Linux {platform.release()},"
            f" Python {platform.python_version()}",
            deaths=sum(1 + row.at.count(" then ") for row in found if row.outcome != "not passed"),
            runs=len(found),
            bad=sum(bool(row.problem) for row in found),
            missed=f" {missed} runs did not come by their boundary this time." if missed else "",
        )
    ]
    titles = {
        HONEST.name: "An honest run",
        REVERTED.name: "The stop of a run that is reverted (STOP_ITERATIONS_EXCEEDED)",
        QUARANTINED.name: "The stop of a run that is quarantined (STOP_SCOPE_EXCEEDED)",
    }
    for scene, title in titles.items():
        parts.append(f"\n## {title}\n\n" + "\n".join(_boundaries([row for row in found if row.scene == scene])) + "\n")
        parts.append("\n### Inside an effect\n\n" + "\n".join(_inside([r for r in found if r.scene == scene])) + "\n")
    parts.append("\n## Two deaths, the broker's, and others\n\n" + "\n".join(_others(found)) + "\n")
    return "".join(parts)


def _boundaries(rows: Iterable[Row]) -> Iterator[str]:
    cells: dict[str, dict[str, str]] = {}
    victims = ("supervisor", "gateway")
    for row in rows:
        if row.victim in victims and row.at.startswith(("effect", "record")) and " then " not in row.at:
            where, _, moment = row.at.rpartition(" ")
            cells.setdefault(where, {})[f"{row.victim} {moment}"] = _cell(row)
    columns = [f"{victim} {moment}" for victim in victims for moment in ("before", "behind")]
    columns = [column for column in columns if any(column in found for found in cells.values())]
    yield f"| boundary | {' | '.join(columns)} |"
    yield "| --- " * (1 + len(columns)) + "|"
    for where, found in cells.items():
        yield f"| {where} | {' | '.join(found.get(column, '') for column in columns)} |"


def _inside(rows: Iterable[Row]) -> Iterator[str]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.at.startswith("inside") and row.outcome != "not passed":
            groups.setdefault(row.at.removeprefix("inside ").rpartition(" ")[0].rpartition("#")[0], []).append(row)
    yield "| before | deaths | outcome | seconds, median and most |"
    yield "| --- | --- | --- | --- |"
    for where, found in groups.items():
        took = [row.seconds for row in found]
        outcome = ", ".join(sorted({row.outcome for row in found}))
        yield f"| {where} | {len(found)} | {outcome} | {statistics.median(took):.1f}, {max(took):.1f} |"


def _others(rows: Iterable[Row]) -> Iterator[str]:
    yield "| victim | boundary | outcome |"
    yield "| --- | --- | --- |"
    for row in rows:
        if row.victim in ("broker", "power") or " then " in row.at or not row.at.startswith(("effect", "record", "in")):
            yield f"| {row.victim} | {row.at} | {_cell(row)} |"


def _cell(row: Row) -> str:
    if row.outcome == "not passed":
        return row.outcome
    if row.problem:
        return "**FAILED**"
    then = ", then DONE" if row.victim in ("gateway", "broker") and row.outcome != "DONE" else ""
    return f"{row.outcome} {row.seconds:.1f} s{then}"


def _commit(root: Path) -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"
