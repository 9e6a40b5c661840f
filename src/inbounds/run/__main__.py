"""`python -I -m inbounds.run RUN_DIR --keys-fd N`: the supervisor of one run."""

import argparse
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from inbounds.contracts.errors import HostError, InboundsError
from inbounds.run.home import open_home
from inbounds.run.requests import WAKE

if TYPE_CHECKING:
    from inbounds.run.assemble import Assembled

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
    parser.add_argument("--mode", choices=("start", "recover", "resume"), default="start")
    parser.add_argument("--keys-fd", type=int, required=True)
    parser.add_argument("--signing-fd", type=int, required=True)
    asked = parser.parse_args()
    seal()
    from inbounds.journal.signing import Signer
    from inbounds.run import recovery
    from inbounds.run.assemble import assemble

    try:
        home = open_home()
        contract, tampered = recovery.trusted(home, asked.run_dir.name)
        if tampered:
            raise HostError(tampered, where=str(asked.run_dir), fix=f"inbounds stop {asked.run_dir.name}")
        signer, leg = Signer.from_fd(asked.signing_fd), asked.mode == "resume"
        made = assemble(home, asked.run_dir, contract, asked.keys_fd, signer, leg=leg)
        _listen(made)
        return {"start": made.start, "recover": made.recover, "resume": made.resume}[asked.mode]()
    except InboundsError as fault:
        sys.stderr.write(fault.one_line() + "\n")
        return fault.exit_code


def _listen(made: "Assembled") -> None:
    """Signals only leave a word and wake the watch: they may take no lock."""

    def ended(number: int, _: FrameType | None) -> None:
        made.parts.observer.signalled = signal.Signals(number).name
        made.watch.wake()

    for number in ENDING:
        signal.signal(number, ended)
    signal.signal(WAKE, lambda *_: made.watch.wake())


if __name__ == "__main__":
    sys.exit(main())
