"""Runs cases: control, then attack, each in an arena of its own, and says what came of it; several at a time.

Whatever ends a drill (a person, a signal, SIGKILL) leaves no process, file or listener: keepers and the warden see its
death, and a sweeper deletes the scratch directory. Knows nothing of surfaces.
"""

import builtins
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from inbounds.contracts.errors import HostError, OperatorError
from inbounds.drill import control
from inbounds.drill.arena import Arena
from inbounds.drill.attack import attack
from inbounds.drill.case import Case, verdict
from inbounds.drill.ground import Field, Ground
from inbounds.drill.mode import Mode
from inbounds.store.descent import delete_tree

JOBS_MAX = 16
JOBS_DEFAULT = 4  # more than the processors: half of a case is waiting
WORDS_MAX = 400
PATH_BYTES_MAX = 107 - len("/1000/outside/s")  # sun_path (unix(7))
PROVEN, NO_CONTROL, INCONCLUSIVE, ESCAPED = "proven", "NO CONTROL", "INCONCLUSIVE", "ESCAPED"


@dataclass(frozen=True, slots=True)
class Result:
    """`outcome`: BLOCKED, CONTAINED, DETECTED, ESCAPED, INCONCLUSIVE or NO CONTROL; `observed` in words."""

    case: Case
    outcome: str
    control: str
    observed: str
    ms: int

    @property
    def counted(self) -> bool:
        """Whether its outcome says something: the attack works where nothing holds it, and was seen to be tried."""
        return self.outcome not in (NO_CONTROL, INCONCLUSIVE)

    def as_record(self) -> dict[str, Any]:
        """As --json and the journal have it."""
        return {
            "id": self.case.id,
            "class": self.case.class_,
            "requirement": self.case.requirement,
            "outcome": self.outcome,
            "control": self.control,
            "observed": self.observed,
            "ms": self.ms,
        }


class Drill:
    """A scratch directory with the drill's repository, and what runs cases in it. Use as a context."""

    def __init__(self, ground: Ground, mode: Mode) -> None:
        """Nothing is made before the context is entered."""
        self._ground, self._mode = ground, mode
        self._count = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        """Make the scratch directory, its sweeper, and the drill's repository."""
        self.directory = Path(os.path.realpath(tempfile.mkdtemp(prefix="inbounds-drill-")))
        if len(os.fsencode(self.directory)) > PATH_BYTES_MAX:
            self.directory.rmdir()
            raise HostError(
                f"{self.directory} is too long a place for sockets",
                expected=f"at most {PATH_BYTES_MAX} bytes",
                fix="export TMPDIR=/tmp",
            )
        self.directory.chmod(0o711)  # jails of another user number pass through it, and nobody lists it
        self._sweeper = subprocess.Popen(
            [sys.executable, "-m", "inbounds.drill.sweeper", str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # Ctrl-C is not for it
        )
        try:
            self.field = Field.make(self._ground, self.directory)
        except BaseException:
            self._sweep()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        """Leave nothing."""
        self._sweep()

    def _sweep(self) -> None:
        delete_tree(str(self.directory))
        assert self._sweeper.stdin
        self._sweeper.stdin.close()
        self._sweeper.wait()

    def run(self, cases: Sequence[Case], *, jobs: int, tell: Callable[[Result], None]) -> list[Result]:
        """Every case, `jobs` at a time and those that stand alone one by one; results in the cases' order."""
        chosen = [case for case in cases if self._mode.name in case.modes]
        results: dict[str, Result] = {}

        def one(case: Case) -> None:
            if not self._stopping.is_set():
                result = self.case(case)
                with self._lock:
                    if not self._stopping.is_set():  # what a stop broke off is nobody's outcome
                        results[case.id] = result
                        tell(result)

        self._stopping.clear()
        together = [case for case in chosen if not case.alone]
        pool = ThreadPoolExecutor(max(1, min(jobs, JOBS_MAX)), thread_name_prefix="inbounds-drill")
        try:
            _collect([pool.submit(one, case) for case in together])
            for case in chosen:
                if case.alone:
                    one(case)
        finally:
            self._stopping.set()
            pool.shutdown(wait=True, cancel_futures=True)
        return [results[case.id] for case in chosen]

    def case(self, case: Case) -> Result:
        """Control, then attack. A fault of the case or of the host is an outcome of a case of ours, and raised else."""
        started = time.monotonic()
        outcome, state, words = self._halves(case)
        ms = int((time.monotonic() - started) * 1000)
        return Result(case, outcome, state, " ".join(words.split())[:WORDS_MAX], ms)

    def _halves(self, case: Case) -> tuple[str, str, str]:
        try:
            with self._arena(case) as arena:
                before, after = (
                    control.hosted(case, "control", arena)
                    if case.kind == "host"
                    else control.control(case, arena, self.field)
                )
                outcome, words = _read(case, before, after)
        except (OperatorError, HostError) as error:
            if case.external:
                raise
            return NO_CONTROL, NO_CONTROL, error.found
        trouble = _trouble(case, after)
        if outcome != ESCAPED or (trouble and not case.external):
            return NO_CONTROL, NO_CONTROL, f"outside, it is {outcome}: {trouble or words or 'nothing was said'}"
        try:
            with self._arena(case) as arena:
                before, after = (
                    control.hosted(case, "attack", arena)
                    if case.kind == "host"
                    else attack(case, arena, self.field, self._mode)
                )
                outcome, words = _read(case, before, after)
        except (OperatorError, HostError) as error:
            if case.external:
                raise
            return INCONCLUSIVE, PROVEN, error.found
        if outcome != ESCAPED and (trouble := _trouble(case, after)):
            return INCONCLUSIVE, PROVEN, trouble
        return outcome, PROVEN, words

    def _arena(self, case: Case) -> Arena:
        with self._lock:
            self._count += 1
            number = self._count
        directory = self.directory / str(number)
        return Arena(directory, case.needs, stopping=self._stopping)


def _read(case: Case, before: dict[str, Any], after: dict[str, Any]) -> tuple[str, str]:
    """The case's own answer; INCONCLUSIVE where it has none because its program said nothing."""
    try:
        return verdict(case, before, after)
    except OperatorError:
        if trouble := _trouble(case, after):
            return INCONCLUSIVE, trouble
        raise


def _trouble(case: Case, after: dict[str, Any]) -> str:
    """Why an attack was not seen to be tried, or "".

    A case of ours says what it tried, line by line. One from outside may say nothing: then its program has to have run
    to its end, or been refused something (an OSError), and its observe has the word.
    """
    failed = bool(after["exit"]["code"]) and "Traceback" in after["stderr"]
    if case.external and not after["said"]:
        if after["exit"]["reason"] == "failed" or (failed and not _refused(after["stderr"])):
            return f"the program failed: {_last(after['stderr'])}"
        return ""
    if not after["said"]:
        return f"the program said nothing ({after['exit']['reason']}): {_last(after['stderr'])}"
    return f"the program failed: {_last(after['stderr'])}" if failed else ""


def _refused(stderr: str) -> bool:
    """Whether an uncaught exception is one of OSError's family: what a refusal by the system looks like."""
    name = _last(stderr).partition(":")[0].rpartition(".")[2]
    kind = getattr(builtins, name, None) or getattr(socket, name, None)
    return isinstance(kind, type) and issubclass(kind, OSError)


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no output"


def _collect(futures: Sequence[Future[None]]) -> None:
    """Wait for all; the first exception is raised at once, and what has not begun does not begin."""
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    for future in done:
        future.result()
