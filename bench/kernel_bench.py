"""What one decision of the kernel costs, and that it does not grow with the journal's length.

`python bench/kernel_bench.py [--events N] [--json FILE]`: p50 and p99 in microseconds, early and late in a
long history. Knows the kernel alone: no file, no process.
"""

import argparse
import json
import platform
import random
import statistics
import time
from pathlib import Path

from inbounds.contracts.conduct import Conduct
from inbounds.contracts.limits import CEILING
from inbounds.kernel.decide import decide
from inbounds.kernel.events import (
    Accepted,
    Denial,
    Event,
    IterationStarted,
    JailExited,
    Polled,
    PreflightFinished,
    Tick,
    Usage,
)
from inbounds.kernel.state import State

WINDOW = 10_000
AT_MS = 1_795_216_500_000
BAR_P50_US = 20.0
SEED = 7


def history(events: int) -> tuple[list[float], list[float]]:
    """(microseconds per decision in the first window, in the last) of a run that has had so many events."""
    draw = random.Random(SEED)  # noqa: S311 - a mix of events, no secret
    opening: list[Event] = [
        Accepted(CEILING, "standard", ("scope", "tests"), Conduct(slow_at_percent=80, escalate_at_percent=90)),
        PreflightFinished(ok=True, reasons=(), failing=1),
        IterationStarted(1),
    ]
    state = State()
    for at, event in enumerate(opening):
        state, _ = decide(state, event, AT_MS + at)
    mix: list[Event] = [
        Usage(spent_micro_usd=1, input_tokens=10, output_tokens=1, tool_calls=0),
        Tick(),
        JailExited("tester", "exited", 1),
        Polled(1, 1),
    ]
    first: list[float] = []
    last: list[float] = []
    for done in range(events):
        event = Denial("name", "x", sensitive=False) if done % 5_000 == 0 else draw.choice(mix)
        begin = time.perf_counter_ns()
        state, _ = decide(state, event, AT_MS + 3 + done)
        taken = (time.perf_counter_ns() - begin) / 1_000
        if done < WINDOW:
            first.append(taken)
        if done >= events - WINDOW:
            last.append(taken)
    return first, last


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    first, last = history(max(asked.events, 2 * WINDOW))
    rows = {
        f"decision, first {WINDOW:,} events": first,
        f"decision, last {WINDOW:,} of {asked.events:,} events": last,
    }
    figures = {
        name: {"p50_us": round(statistics.median(taken), 2), "p99_us": round(sorted(taken)[len(taken) * 99 // 100], 2)}
        for name, taken in rows.items()
    }
    for name, found in figures.items():
        print(f"{name:<48} p50 {found['p50_us']:>7.2f} µs   p99 {found['p99_us']:>7.2f} µs")
    print(f"the bar: p50 below {BAR_P50_US} µs: {'met' if statistics.median(last) < BAR_P50_US else 'NOT met'}")
    print(f"last against first: {statistics.median(last) / statistics.median(first):.2f} x")
    if asked.json:
        asked.json.write_text(json.dumps({"python": platform.python_version(), "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
