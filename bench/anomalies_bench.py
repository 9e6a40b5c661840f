"""Rates of the anomaly rules on histories: each commit judged against the one before, counted by rule.

    python bench/anomalies_bench.py --repo PATH [--repo PATH ...]      histories that are there
    python bench/anomalies_bench.py --fetch DIR pypi:click npm:axios   releases, a commit each (release_histories.py)

--show RULE prints each firing, for a person to say whether it was right. Judges with the built-in defaults and no plan,
so that nothing is declared: the strictest case. Rules over a run's journal (churn, same_calls, denial_burst) have
nothing to look at here.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from release_histories import history

from inbounds.contracts.anomalies import BY_NAME
from inbounds.judges.anomalies.judge import Iteration, judge
from inbounds.judges.anomalies.material import Material
from inbounds.judges.anomalies.repetition import History, Round
from inbounds.judges.anomalies.size import lines_changed
from inbounds.run.looking import BaseTree, changed
from inbounds.store.store import Store, object_format_of

COMMITS_MAX = 2_000
ROUNDS = 20  # earlier trees that a commit is compared with: as many as a long run has iterations


def main() -> int:
    """Print one table over all histories, and one line each."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--repo", action="append", default=[], type=Path)
    asked.add_argument("--fetch", type=Path)
    asked.add_argument("--python", default=sys.executable, help="has pip and the build back ends")
    asked.add_argument("--show", action="append", default=[], help="print each firing of this rule (or all)")
    asked.add_argument("project", nargs="*")
    said = asked.parse_args()
    places = [(path.resolve().name, path) for path in said.repo]
    for project in said.project:
        path, missing = history(project, said.fetch, said.python)
        places.append((project, path))
        for one in missing:
            print(f"could not be had: {one}", file=sys.stderr)
    fired: Counter[str] = Counter()
    times: list[float] = []
    print("history                      changes  note only  block  stop   median ms")
    for name, path in places:
        measured(name, path, fired, times, frozenset(said.show))
    total = len(times)
    worst = sorted(times)[total * 95 // 100] * 1000
    print(f"\n{total} changes, median {statistics.median(times) * 1000:.1f} ms, 95 % below {worst:.1f} ms\n")
    print("rule                     action  changes  percent")
    for rule in BY_NAME.values():
        print(f"{rule.name:<24} {rule.action:<6} {fired[rule.name]:>8}  {100 * fired[rule.name] / total:>6.1f}")
    return 0


def measured(name: str, path: Path, fired: Counter[str], times: list[float], show: frozenset[str]) -> None:
    """Judge one history."""
    with tempfile.TemporaryDirectory(prefix="inbounds-bench-") as scratch:
        store = Store.create(f"{scratch}/store.git", object_format=object_format_of(str(path)))
        head = store.fetch(str(path))
        commits = store.git("rev-list", "--first-parent", f"--max-count={COMMITS_MAX}", head).split()[::-1]
        trees = [store.tree_of(commit) for commit in commits]
        worst: Counter[str] = Counter()
        own: list[float] = []
        for at in range(1, len(trees)):
            began = time.perf_counter()
            old, new = trees[at - 1], trees[at]
            changes = changed(store, store.diff(old, new))
            rounds = tuple(Round(i + 1, tree) for i, tree in enumerate(trees[max(0, at - ROUNDS) : at]))
            iteration = Iteration(len(rounds) + 1, new, trees[max(0, at - ROUNDS - 1)], History(rounds))
            verdict = judge(Material(changes, BaseTree(store, old), step_lines=lines_changed(changes)), iteration)
            own.append(time.perf_counter() - began)
            rules = set(verdict.facts["rules"])
            fired.update(rules)
            actions = {verdict.facts["actions"][rule] for rule in rules}
            worst[next((a for a in ("stop", "block", "note") if a in actions), "")] += 1
            for finding in verdict.findings:
                if finding.rule.removeprefix("anomaly.") in show or "all" in show:
                    title = subject(path, commits[at])
                    print(f"    {title}: {finding.rule} {finding.path}:{finding.line} {finding.message[:240]}")
        times += own
        median = statistics.median(own) * 1000 if own else 0
        print(f"{name:<28} {len(own):>7} {worst['note']:>10} {worst['block']:>6} {worst['stop']:>5} {median:>11.1f}")


def subject(path: Path, commit: str) -> str:
    """The commit's first line."""
    done = subprocess.run(
        ["git", "-C", str(path), "log", "-1", "--format=%h %s", commit], capture_output=True, check=True
    )
    return done.stdout.decode("utf-8", "replace").strip()[:60]


if __name__ == "__main__":
    sys.exit(main())
