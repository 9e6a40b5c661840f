"""`python -I -m inbounds.run RUN_DIR --keys-fd N`: the supervisor of one run."""

import argparse
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path
from types import FrameType

from inbounds.contracts.errors import InboundsError
from inbounds.run.home import open_home

PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 38
# What ends a service or a machine; a supervisor then stops its run in order while there is time.
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def seal() -> None:
    """No core, no look into this process by others of the user, no new privileges; OSError where that is refused.

    Landlock and a filter would be inherited by the warden, which mounts: they are for the programs that make no jails.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((PR_SET_DUMPABLE, 0), (PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(option, value, 0, 0, 0):
            number = ctypes.get_errno()
            raise OSError(number, f"prctl {option}: {os.strerror(number)}")


def main() -> int:
    """Run to the end; the exit code is the run's (0 kept, 1 stopped, 100 or 111 for faults before the journal)."""
    parser = argparse.ArgumentParser(prog="inbounds.run")
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--keys-fd", type=int, required=True)
    asked = parser.parse_args()
    seal()
    from inbounds.run.supervisor import Supervisor

    try:
        supervisor = Supervisor.starting(open_home(), asked.run_dir, asked.keys_fd)

        def ended(number: int, _: FrameType | None) -> None:
            supervisor.signalled = signal.Signals(number).name

        for number in ENDING:
            signal.signal(number, ended)
        return supervisor.run()
    except InboundsError as fault:
        sys.stderr.write(fault.one_line() + "\n")
        return fault.exit_code


if __name__ == "__main__":
    sys.exit(main())
