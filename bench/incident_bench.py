"""How fast `inbounds stop --all` is: real runs in real jails, agents busy and waiting for a model, stopped at once.

`python bench/incident_bench.py [--runs 20] [--times 1] [--json FILE]`. Each agent writes the time into its workspace
every 20 ms, so that the last one written says when the last agent executed anything, whatever the journals claim.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inbounds.agents import npm
from inbounds.agents.profile import Install
from inbounds.agents.registry import profile
from inbounds.contracts.documents import LimitsText
from inbounds.demo import acts, stage
from inbounds.journal.verify import verify_run
from inbounds.modelserver.server import ModelServer
from inbounds.run import authorize, bind, launch
from inbounds.run.home import Home, open_home
from inbounds.run.order import Order, Ordered, order

RUNS = 20  # what the requirement names (O4)
TOGETHER = 4  # runs that are in their preflight at a time: each runs the test suite
START_SECONDS_MAX = 600
STOP_SECONDS_MAX = 300
BAR_MS = 1_000  # the requirement's
HANGS = {"conversations": [{"turns": [{"fault": {"kind": "hang"}}], "loop": True}]}
LIMIT, ROOM = re.compile(r"((?:wall_clock|runtime_ceiling): )\d+m"), r"\g<1>60m"
AGENT = """\
import http.client, json, os, sys, threading, time
task = json.load(open(sys.argv[1]))

def ask():
    body = {"model": task["model"], "max_tokens": 100, "messages": [{"role": "user", "content": "Go on."}]}
    head = {"Authorization": "Bearer " + os.environ["INBOUNDS_TOKEN"], "Content-Type": "application/json"}
    link = http.client.HTTPConnection("127.0.0.1", 8100, timeout=3600)
    link.request("POST", "/v1/chat/completions", json.dumps(body), head)
    link.getresponse().read()

threading.Thread(target=ask, daemon=True).start()
beat = os.open(os.path.join(task["workspace"], "beat.txt"), os.O_WRONLY | os.O_CREAT)
while True:
    os.pwrite(beat, b"%d" % time.time_ns(), 0)
    time.sleep(0.02)
"""


@dataclass(frozen=True)
class Fleet:
    """Runs under way in one state directory."""

    home: Home
    started: list[launch.Started]

    def records(self, run_dir: Path) -> list[dict[str, Any]]:
        """A journal's whole lines."""
        return [json.loads(line) for line in (run_dir / launch.JOURNAL).read_bytes().split(b"\n")[:-1]]


def _ready(started: launch.Started) -> bool:
    if started.process.poll() is not None:
        raise SystemExit((started.run_dir / "logs" / launch.LOG).read_text())
    return any(started.run_dir.glob("workspace/**/beat.txt"))


def _orders(home: Home, on: stage.Stage, server: ModelServer, count: int) -> Iterator[Ordered]:
    program = on.repository.parent / "busy_agent.py"
    program.write_text(AGENT, encoding="utf-8")
    found = profile("reference").find(())
    assert found is not None
    install: Install = replace(found, path=str(program), sha256=npm.sha256(program))
    for _ in range(count):
        wish = bind.Wish(agent="reference", model=acts.MODEL, limits=LimitsText())
        yield order(home, Order(on.thread, wish), gateway=acts.provider(server), key=on.key, install=install)


@contextlib.contextmanager
def fleet(home: Home, count: int) -> Iterator[Fleet]:
    """So many living runs, each with an agent at work and a model request in flight; ended if somebody has not."""
    on, server, started = stage.build(home.path), ModelServer(HANGS).start(), []
    for path in on.repository.glob("**/.inbounds/*"):  # the demo is over in minutes, a fleet takes longer to start
        path.write_text(LIMIT.sub(ROOM, path.read_text(encoding="utf-8")), encoding="utf-8")
    try:
        waiting: list[launch.Started] = []
        deadline = time.monotonic() + START_SECONDS_MAX
        for made in _orders(home, on, server, count):
            contract = authorize.authorize(home, made.contract, ask=lambda: True, key=on.key)
            run_dir = launch.prepare(home, contract, made.blast, made.settings)
            started.append(launch.start(home, run_dir, made.upstreams()))
            waiting.append(started[-1])
            while len(waiting) >= (TOGETHER if len(started) < count else 1):
                waiting = [one for one in waiting if not _ready(one)]
                if time.monotonic() > deadline:
                    raise SystemExit("the runs did not start")
                time.sleep(0.1)
        yield Fleet(home, started)
    finally:
        for one in started:
            if one.process.poll() is None:
                one.process.send_signal(signal.SIGKILL)
            one.process.wait(30)
        server.stop()


def stop(living: Fleet, *flags: str) -> dict[str, int]:
    """Stop them all with the command, as a person types it; milliseconds from its start to what happened."""
    env = {**os.environ, "INBOUNDS_HOME": str(living.home.path)}
    argv = [sys.executable, "-m", "inbounds", "stop", "--all", *flags, "--why", "bench", "--json"]
    load = os.getloadavg()[0]
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.time_ns() // 1_000_000
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=STOP_SECONDS_MAX, check=False)
    over = time.time_ns() // 1_000_000
    if done.returncode:
        raise SystemExit(done.stderr + done.stdout)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    told = json.loads(done.stdout)
    took = after.ru_utime + after.ru_stime - spent.ru_utime - spent.ru_stime
    latest: dict[str, int] = {"load": round(load), "command's own CPU": round(took * 1_000)}
    if told.get("recorded_at_ms"):
        latest["incident record written"] = int(told["recorded_at_ms"]) - began
    for one in living.started:
        one.process.wait(STOP_SECONDS_MAX)
        for name, at in _moments(living, one.run_dir).items():
            latest[name] = max(latest.get(name, 0), at - began)
        report = verify_run(one.run_dir)
        if not report.ok:
            raise SystemExit(f"{one.run_dir.name} does not verify: {report}")
    return {**latest, "command returned": over - began}


def _moments(living: Fleet, run_dir: Path) -> dict[str, int]:
    beat = next(path for path in run_dir.glob("quarantine*/**/beat.txt"))
    found = {"last agent executed": int(beat.read_bytes()) // 1_000_000}
    decided = False
    for record in living.records(run_dir):
        kind, at = record["kind"], int(record["at_ms"])
        if kind == "operator.stopped":
            found["request in the journal"] = at
        elif kind == "stop.step":
            found[f"step {record['data']['step']}"] = at
        elif kind == "stop.decided":
            decided, found["stop event"] = True, at
        elif kind == "journal.checkpoint" and decided:
            found.setdefault("stop event signed", at)
        elif kind == "run.finished":
            found["run over"] = at
        elif kind == "incident.recorded":
            found["incident in the journal"] = at
    return found


def main() -> int:
    """Print a table of medians; 1 where the bar is not met."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--everywhere", action="store_true", help="without --here: STOPS EVERY RUN ON THIS HOST")
    asked = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="inbounds-bench-"))
    rows: list[dict[str, int]] = []
    try:
        home = open_home(scratch / "state")
        os.environ["INBOUNDS_HOME"] = str(home.path)
        for _ in range(asked.times):
            with fleet(home, asked.runs) as living:
                rows.append(stop(living, *([] if asked.everywhere else ["--here"])))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"{asked.runs} runs, {os.cpu_count()} processors, {platform.release()}; ms from the command's start")
    for name in rows[0]:
        values = [row[name] for row in rows]
        print(f"{name:28} median {statistics.median(values):8.0f}   all {values}")
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    return 0 if statistics.median(row["incident record written"] for row in rows) < BAR_MS else 1


if __name__ == "__main__":
    sys.exit(main())
