"""Runs bandit inside the reviewer's jail; copied into /job, never imported by the supervisor.

Started as `python -I bandit_scan.py SPEC.json`: isolated, so that no module of the checkout stands in for bandit's.
"""

import json
import sys


def main(spec_path: str) -> int:
    """Run bandit as the specification says; its exit code is ours (0 nothing found, 1 findings, 2 error)."""
    with open(spec_path, encoding="utf-8") as stream:
        spec = json.load(stream)
    sys.path[:0] = spec["sys_path"]
    sys.argv[:] = ["bandit", *spec["args"]]
    from bandit import __version__
    from bandit.cli.main import main as bandit

    with open(spec["version_out"], "x", encoding="utf-8") as stream:
        stream.write(__version__)
    return int(bandit() or 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
