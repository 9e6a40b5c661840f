"""How fast `verify` reads: records a second for the whole of verify_run on a journal of realistic records.

`python bench/verify_bench.py [--records N] [--keep DIR] [--json FILE]`. The journal has what a long run leaves:
iterations of some hundred model requests and tool calls, a verdict and a commit at the end of each, a signed checkpoint
and an anchor behind each commit, people's signatures, one stop. Times are the best of three, CPU and wall clock.
"""

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "journal"))

import evidence

from inbounds.contracts.canonical import canonical
from inbounds.journal import chain, manifest
from inbounds.journal.anchor import Anchor
from inbounds.journal.merkle import Tree
from inbounds.journal.note import ORIGIN, Checkpoint
from inbounds.journal.verify import Verification, verify_run

MIX = ("tool",) * 7 + ("outside",) * 2 + ("denial",)
CALLS = 200  # model requests in one iteration
BAR = 200_000  # records a second
DECISIONS = frozenset({"run.accepted", "commit.made", "stop.decided", "run.finished", "promotion.decided"})


def calls(rng: random.Random, n: int, spent: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """What stands between the beginning and the end of an iteration."""
    for call in range(CALLS):
        yield "model.usage", evidence.usage(spent + 41 * call, n * CALLS + call, rng.randrange(400, 9_000))
        for _ in range(4):
            kind = rng.choice(MIX)
            if kind == "tool":
                yield "tool.called", {"tool": "run_tests", "outcome": "ok", "ms": rng.randrange(5, 4_000), "n": n}
            elif kind == "outside":
                yield "external.call", {"host": "pypi.org", "purpose": "package index", "bytes_out": 400, "bytes_in": 9}
            else:
                yield "denial", {"kind": "name", "detail": "telemetry.example", "sensitive": False}


def steps(records: int, rng: random.Random) -> Iterator[tuple[str, dict[str, Any]]]:
    """A run of about so many records, stopped in order."""
    whole = evidence.good_run()
    yield from whole[:4]
    made, n, spent = 4, 0, 0
    while made < records - 40:
        n += 1
        first, *rest = evidence.iteration(n, 5, 3, spent + 82_000)
        for step in (first, rest[0], *calls(rng, n, spent), *rest[5:]):
            made += 1
            yield step
        spent += 82_000
    yield from evidence.stop("DONE", "every acceptance test passes and no judge objects", "keep")
    yield "run.finished", {"code": "DONE", "exit": 0}


def write(home: Path, records: int) -> Path:
    """The run's directory, as the real writer would leave it, without its syncs."""
    run_dir = home / "runs" / evidence.RUN_ID
    run_dir.mkdir(parents=True)
    evidence.keep_key(home)
    rng, tree, prev = random.Random(1), Tree(), chain.GENESIS  # noqa: S311 - figures that can be had again, no secrets
    anchors, derivation = [], manifest.Derivation()
    seq = 0
    with (run_dir / "journal.jsonl").open("wb") as file:

        def put(kind: str, data: dict[str, Any]) -> None:
            nonlocal seq, prev
            record, line = chain.encode(seq, evidence.START + seq * 9, kind, data, prev)
            file.write(line)
            tree.append(bytes.fromhex(record.hash))
            derivation.take(record)
            seq, prev = seq + 1, record.hash

        put("journal.opened", {"version": chain.FORMAT})
        for kind, data in steps(records, rng):
            put(kind, data)
            if kind in DECISIONS:
                root = tree.root()
                note = evidence.SIGNER.sign(str(Checkpoint(ORIGIN + evidence.RUN_ID, seq, root)))
                put("journal.checkpoint", {"size": seq, "root": root.hex(), "note": note})
                anchors.append(Anchor(seq - 1, prev, "", seq - 1, root.hex(), note).line())
    (run_dir / "contract.json").write_bytes(canonical(evidence.CONTRACT))
    (run_dir / "blast_radius.json").write_bytes(canonical(evidence.RADIUS))
    (run_dir / "manifest.json").write_bytes(manifest.encode(derivation.made(seq - 1, prev, seq)))
    (home / "anchors").mkdir()
    (home / "anchors" / f"{evidence.RUN_ID}.jsonl").write_bytes(b"".join(anchors))
    return run_dir


def cpu_s() -> float:
    """Of this process and of those that it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(run_dir: Path, processes: int) -> tuple[Verification, float, float]:
    """The verification, CPU seconds and wall-clock seconds, the best of three."""
    cpu = wall = float("inf")
    for _ in range(3):
        began, began_cpu = time.perf_counter(), cpu_s()
        found = verify_run(run_dir, processes=processes)
        cpu, wall = min(cpu, cpu_s() - began_cpu), min(wall, time.perf_counter() - began)
    return found, cpu, wall


def main() -> int:
    """Print the figures; 1 if the run does not verify."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="make the run here and leave it")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="inbounds-bench-") as place:
        run_dir = write(chosen.keep or Path(place), chosen.records)
        size = (run_dir / "journal.jsonl").stat().st_size
        found, cpu, wall = measure(run_dir, chosen.processes)
    count = int(next(check.detail for check in found.checks if check.name == "chain").split()[0])
    signed = next(check.detail for check in found.checks if check.name == "checkpoints").split()[0]
    figures = {
        "ok": found.ok,
        "processes": chosen.processes,
        "records": count,
        "bytes_per_record": size // count,
        "checkpoints": int(signed),
        "cpu_s": round(cpu, 2),
        "wall_s": round(wall, 2),
        "records_per_cpu_s": int(count / cpu),
        "records_per_s": int(count / wall),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    }
    for name, figure in figures.items():
        print(f"{name:20} {figure:>12,}" if type(figure) is int else f"{name:20} {figure:>12}")
    print(f"the bar: {BAR:,} records a second by the wall: {'met' if figures['records_per_s'] >= BAR else 'NOT met'}")
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return 0 if found.ok else 1


if __name__ == "__main__":
    sys.exit(main())
