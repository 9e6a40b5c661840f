"""The crash matrix: a real run killed at every boundary, by SIGKILL, and what came of it, as a table in the docs.

`python bench/crash_matrix.py [--out docs/crash-matrix.md] [--rows FILE] [--only TEXT] [--together 2]`. Rows that are in
FILE already are not made again. Exit code 1 where one did not hold.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests" / "run"))

import crashrig  # noqa: E402 - stands beside the tests; the line above makes it reachable
from crash_table import page  # noqa: E402 - stands beside this file
from crashrig import (  # noqa: E402 - as above
    GATEWAY,
    HONEST,
    HOST,
    QUARANTINED,
    REVERTED,
    SETTLEMENT,
    TORN,
    Crashes,
    NotPassedError,
    Point,
    Row,
    Untouched,
)

from inbounds.run.home import open_home  # noqa: E402 - as above

Job = tuple[str, str, str, Callable[[], Row]]  # scene, victim, boundary


def jobs(crashes: Crashes) -> list[Job]:
    """Every death of the matrix."""
    found: list[Job] = []
    for scene in (HONEST, REVERTED, QUARANTINED):
        known = crashes.untouched(scene)
        points = crashrig.chosen(known.points if scene is HONEST else known.stopping)
        dies = partial(crashrig.supervisor_dies, crashes, scene, known)
        found += [(scene.name, "supervisor", at.name, partial(dies, at)) for at in points]
        if scene is HONEST:
            found += _others(crashes, known, points)
    return found


def _others(crashes: Crashes, known: Untouched, points: list[Point]) -> list[Job]:
    """Two deaths, those of gateway and broker, and losses of power: all in the honest run."""
    found: list[Job] = []
    dies = partial(crashrig.supervisor_dies, crashes, HONEST, known)
    child = partial(crashrig.child_dies, crashes, known)
    living = [at for at in points if at in known.metered]
    effects = [at for at in living if at.kind == "effect"]
    records = [at for at in living if at.kind == "record" and at.moment == "behind"]
    found += [(HONEST.name, "gateway", at.name, partial(child, "gateway", at, GATEWAY)) for at in effects + records]
    found += [(HONEST.name, "broker", at.name, partial(child, "broker", at, HOST)) for at in effects[::2]]
    found.append((HONEST.name, "gateway", SETTLEMENT, partial(crashrig.settlement_is_lost, crashes, known)))
    for at, late in crashrig.twice(known):
        found.append((HONEST.name, "supervisor", f"{at.name} then {late.name}", partial(dies, at, late)))
    for name, seed in TORN:
        found.append((HONEST.name, "power", name, partial(dies, Point(name), torn=seed)))
    return found


def main() -> int:
    """Make the rows, and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--together", type=int, default=2)
    asked = parser.parse_args()
    rows: list[Row] = []
    if asked.rows and asked.rows.exists():
        rows = [row for line in asked.rows.read_text().splitlines() if not (row := Row(**json.loads(line))).problem]
    known = {(row.scene, row.victim, row.at) for row in rows}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="inbounds-crash-") as made:
        os.environ["INBOUNDS_HOME"] = f"{made}/home"
        (Path(made) / "home").mkdir()
        crashes = Crashes(open_home(Path(made) / "home"), Path(made))
        every = jobs(crashes)
        todo = [job for job in every if job[:3] not in known and asked.only in " ".join(job[:3])]
        todo.sort(key=lambda job: job[2].startswith("inside"))  # what most depends on comes first
        print(f"{len(todo)} deaths", flush=True)
        lock = threading.Lock()

        def do(job: Job) -> None:
            row = _made(job)
            with lock:
                rows.append(row)
                print(f"{len(rows)} {time.monotonic() - began:.0f}s {row}"[:3_000], flush=True)
                if asked.rows:
                    with asked.rows.open("a") as file:
                        file.write(json.dumps(asdict(row)) + "\n")

        with ThreadPoolExecutor(asked.together) as pool:
            list(pool.map(do, todo))
    if asked.out:
        minutes = round((time.monotonic() - began) / 60)
        took = "in several sittings, the last at that commit" if known else f"{minutes} minutes"
        asked.out.write_text(page(rows, [job[:3] for job in every], took, ROOT), encoding="utf-8")
    bad = [row for row in rows if row.problem]
    print(f"{len(rows)} deaths, {len(bad)} of them did not end as they must")
    return int(bool(bad))


def _made(job: Job) -> Row:
    scene, victim, at, make = job
    try:
        return make()
    except NotPassedError:
        return Row(scene, victim, at, "not passed", 0)
    except Exception:  # one row that does not hold shall not hide the others
        return Row(scene, victim, at, "FAILED", 0, traceback.format_exc()[-2_500:])


if __name__ == "__main__":
    sys.exit(main())
