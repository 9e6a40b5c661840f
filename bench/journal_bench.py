"""How fast the journal is: append, open, decode and verify, measured on this machine, over a journal of a long run.

`python bench/journal_bench.py [--records N] [--json FILE]` prints a table; times are processor time of this process
where the work is computing, and wall time where it waits for the disk. Knows nothing of a real run.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from inbounds.journal import chain, ed25519, merkle
from inbounds.journal.signing import Signer
from inbounds.journal.writer import Journal

RECORDS = 1_000_000
RECORDS_MIN = 1_000  # below, it is the clock that is measured
GROUP = 256  # what the supervisor's loop takes between two syncs in a busy second
SYNCED = 500  # with one sync a record; a disk takes milliseconds for each
CHECKPOINTS = 100
AT_MS = 1_795_216_500_000
RUN = "20261120-231500-a1b2c3"
# What a busy run writes, by share: model calls, tool calls, denials, what was written.
MIX: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "model.usage",
        {
            "model": "model-large",
            "host": "api.example",
            "ref": "7f3a2b",
            "input_tokens": 18_250,
            "output_tokens": 840,
            "cache_read_tokens": 16_000,
            "cost_micro_usd": 41_375,
            "ms": 6_250,
            "status": 200,
        },
    ),
    ("tool.called", {"tool": "edit", "outcome": "ok", "ms": 12, "ref": "7f3a2b"}),
    ("tool.called", {"tool": "run_tests", "outcome": "ok", "ms": 8_420, "ref": "91c0de"}),
    ("denial", {"part": "gateway", "what": "host", "target": "pypi.example", "n": 1}),
)


class Row(NamedTuple):
    """One measurement: how many of what, in how many seconds."""

    name: str
    times: int
    seconds: float
    clock: str

    @property
    def rate(self) -> float:
        """Per second."""
        return self.times / self.seconds if self.seconds else 0.0


def _timed(name: str, count: int, clock: str, work: Callable[[], object]) -> Row:
    read = time.process_time if clock == "cpu" else time.perf_counter
    start = read()
    work()
    return Row(name, count, read() - start, clock)


def _append(journal: Journal, count: int, group: int) -> None:
    for n in range(count):
        kind, data = MIX[n % len(MIX)]
        journal.append(kind, data, AT_MS + n)
        if n % group == group - 1:
            journal.sync()
    journal.sync()


def _drain(found: Iterator[object]) -> None:
    for _ in found:
        pass


def measure(records: int, place: Path) -> list[Row]:
    """All rows, over a journal of `records` records below `place`."""
    path = place / "runs" / RUN / "journal.jsonl"
    signer = Signer(bytes(range(32)))
    rows: list[Row] = []
    half = records // 2
    with Journal.open(path, at_ms=AT_MS, signer=signer) as journal:
        for clock in ("wall", "cpu"):
            name = f"append, a sync for {GROUP} records"
            rows.append(_timed(name, half, clock, lambda: _append(journal, half, GROUP)))
        rows.append(_timed("append, a sync for each record", SYNCED, "wall", lambda: _append(journal, SYNCED, 1)))
        decide = lambda: [journal.append("commit.made", {"commit": "0" * 40}) for _ in range(CHECKPOINTS)]  # noqa: E731 - one measurement
        rows.append(_timed("decision: record, checkpoint, sync, anchor", CHECKPOINTS, "wall", decide))
        count = journal.head[0] + 1
    rows.append(_timed("open (chain and tree)", count, "cpu", lambda: Journal.open(path, signer=signer).close()))
    rows.append(_timed("links (hash and chain)", count, "cpu", lambda: _drain(chain.linked(chain.links(path)))))
    rows.append(_timed("records (and their data)", count, "cpu", lambda: _drain(chain.linked(chain.records(path)))))
    strict = lambda: _drain(chain.linked(chain.records(path, canonical_form=True)))  # noqa: E731 - one measurement
    rows.append(_timed("records (and canonical form)", count, "cpu", strict))
    leaves = [bytes.fromhex(link.hash) for link in chain.links(path)]
    rows.append(_timed("Merkle root of a list", count, "cpu", lambda: merkle.root(leaves)))
    text = b"a checkpoint's text"
    signature = signer.sign_raw(text)
    ed25519.verify(signer.key.public, text, signature)  # makes the tables, once a process and key
    check = lambda: [ed25519.verify(signer.key.public, text, signature) for _ in range(CHECKPOINTS)]  # noqa: E731 - one measurement
    rows.append(_timed("Ed25519 verification", CHECKPOINTS, "cpu", check))
    rows += _verify(path.parent, count)
    return rows


def _verify(run_dir: Path, count: int) -> list[Row]:
    """The whole verifier; what it finds missing (contract, manifest) is not what is measured."""
    try:
        from inbounds.journal import verify
    except ImportError as error:
        sys.stderr.write(f"verify is not measured: {error}\n")
        return []
    return [_timed("verify", count, "cpu", lambda: verify.verify_run(run_dir))]


def main() -> int:
    """Print the table; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=RECORDS, help=f"length of the journal, default {RECORDS}")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--dir", type=Path, help="where to write the journal; a temporary directory by default")
    asked = parser.parse_args()
    if not RECORDS_MIN <= asked.records <= chain.RECORDS_MAX - 2_000:
        parser.error(f"--records is between {RECORDS_MIN} and {chain.RECORDS_MAX - 2_000}")
    with tempfile.TemporaryDirectory(prefix="inbounds-bench-", dir=asked.dir) as place:
        rows = measure(asked.records, Path(place))
        size = (Path(place) / "runs" / RUN / "journal.jsonl").stat().st_size
    where = f"Python {platform.python_version()}, {os.cpu_count()} processors, {platform.machine()}"
    print(f"{asked.records} records, {size / 1e6:.0f} MB; {where}")
    for row in rows:
        print(f"{row.name:45} {row.rate:12,.0f} /s  {row.seconds:8.2f} s {row.clock}")
    if asked.json:
        facts = [{**row._asdict(), "per_second": round(row.rate)} for row in rows]
        asked.json.write_text(json.dumps({"machine": where, "bytes": size, "rows": facts}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
