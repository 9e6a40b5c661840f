"""Prints which requirements of the catalogue have a test that proves them and passed on these sources.

Where no whole test session of these sources is on record, it runs the marked tests first. Ends with "proven: N of M";
exit 1 if a mark names no requirement or a marked test failed.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import record

ROOT = Path(__file__).resolve().parents[1]


def proofs(tests: Mapping[str, Mapping[str, Any]], outcome: str) -> dict[str, list[str]]:
    """The tests with that outcome by requirement id."""
    found: dict[str, list[str]] = {}
    for name, entry in sorted(tests.items()):
        for req in entry["req"]:
            if entry["outcome"] == outcome:
                found.setdefault(req, []).append(name)
    return found


def listed(names: list[str], before: str = "") -> list[str]:
    """One line per test function, with the number of its cases where there are several."""
    cases: dict[str, int] = {}
    for name in names:
        function = name.partition("[")[0]
        cases[function] = cases.get(function, 0) + 1
    return [f"               {before}{name}" + (f" ({n} cases)" if n > 1 else "") for name, n in cases.items()]


def report(tests: Mapping[str, Mapping[str, Any]], catalogue: Mapping[str, Mapping[str, str]]) -> tuple[list[str], int]:
    """The lines to print and the exit code."""
    lines: list[str] = []
    passed, failed, skipped = (proofs(tests, outcome) for outcome in ("passed", "failed", "skipped"))
    section = ""
    for req, entry in catalogue.items():
        if entry["section"] != section:
            section = entry["section"]
            lines += ["", section]
        by = passed.get(req, [])
        lines.append(f"  {'proven' if by else '   -  '}  {req:4} {entry['text']}")
        lines += listed(by)
        if not by:
            lines += listed(failed.get(req, []), "failed: ") + listed(skipped.get(req, []), "skipped here: ")
    unknown = sorted({req for entry in tests.values() for req in entry["req"]} - set(catalogue))
    lines.append("")
    lines += [f"unknown requirement in a mark: {req}" for req in unknown]
    lines.append(f"proven: {len(set(passed) & set(catalogue))} of {len(catalogue)}")
    return lines, int(bool(unknown or failed))


def main() -> int:
    """Run what must be run, then print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", action="store_true", help="requirement ids with their passed tests, as JSON")
    options.add_argument("--recorded", action="store_true", help="never run tests, take the record as it is")
    chosen = options.parse_args()
    now = record.read(ROOT)
    if not chosen.recorded and not (now["fingerprint"] == record.fingerprint(ROOT) and now["whole"]):
        print("no whole test session of these sources is on record: running the marked tests", file=sys.stderr)
        argv = [sys.executable, "-m", "pytest", "-q", "-m", "req", "--color=no"]
        env = {k: v for k, v in os.environ.items() if k != "INBOUNDS_TEST_WITHOUT"}
        done = subprocess.run(argv, cwd=ROOT, env=env, stdout=sys.stderr, check=False)
        if done.returncode not in (0, 1, 5):
            return done.returncode
        now = record.read(ROOT)
    catalogue = record.catalogue(ROOT)
    lines, code = report(now["tests"], catalogue)
    if chosen.json:
        passed = proofs(now["tests"], "passed")
        print(json.dumps({"proven": {req: passed[req] for req in catalogue if req in passed}, "of": len(catalogue)}))
    else:
        print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
