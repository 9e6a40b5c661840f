"""`python -I -m inbounds.run RUN_DIR --keys-fd N`: the supervisor of one run."""

import argparse
import sys
from pathlib import Path

from inbounds.contracts.errors import InboundsError
from inbounds.run.home import open_home


def main() -> int:
    """Run to the end; the exit code is the run's (0 kept, 1 stopped, 100 or 111 for faults before the journal)."""
    parser = argparse.ArgumentParser(prog="inbounds.run")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--keys-fd", type=int, required=True)
    asked = parser.parse_args()
    from inbounds.run.supervisor import Supervisor

    try:
        return Supervisor.starting(open_home(), asked.run_dir, asked.keys_fd).run()
    except InboundsError as fault:
        sys.stderr.write(fault.one_line() + "\n")
        return fault.exit_code


if __name__ == "__main__":
    sys.exit(main())
