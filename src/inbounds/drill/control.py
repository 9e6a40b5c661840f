"""The positive control: a case's program outside any jail, by the same interpreter, as the operator.

Held by the keeper, so that it leaves no process whatever happens. Also runs host cases, both halves of them, and what a
case wants executed later. Knows nothing of outcomes.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inbounds.contracts.errors import HostError
from inbounds.drill import keeper, prelude
from inbounds.drill.arena import Arena
from inbounds.drill.case import Case
from inbounds.drill.ground import Field
from inbounds.sandbox.host import jail_python

TEXT_BYTES_MAX = 256 << 10  # of stdout and of stderr that a case gets to see
GRACE_S = 15  # for the keeper itself, beyond the deadline of what it holds
RESULT_BYTES_MAX = 4096
LOOK_S = 0.1  # how soon a stopping drill is noticed
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def control(case: Case, arena: Arena, field: Field) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run CONTROL, then what would execute its leavings later; before and after."""
    assert isinstance(case.control, str)
    root = field.copy(arena.directory / "control")
    work = Path(field.work(str(root)))
    arena.host |= {**field.places(str(root)), "limits": limits_of(case, field)}
    before = arena.look(work)
    program = prelude.program(case.control, arena.host, str(work))
    ended = hold([jail_python(), "-I", "-c", program], arena, cwd=work, deadline_s=case.deadline_s)
    after = seen(ended)
    if case.later:
        later(case, arena, work)
    return {"said": {}, "findings": [], "denials": [], **before}, finish(after, arena, work)


def hosted(case: Case, half: str, arena: Arena) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run `half` ("control" or "attack") of a host case in a process of its own; before and after."""
    before = arena.look(None)
    argv = [sys.executable, "-m", "inbounds.drill.hosted", str(case.path), half, json.dumps(arena.host)]
    argv += [str(arena.scratch), "external" if case.external else ""]
    after = seen(hold(argv, arena, cwd=arena.scratch, deadline_s=case.deadline_s))
    return {"said": {}, "findings": [], "denials": [], **before}, finish(after, arena, None)


def later(case: Case, arena: Arena, work: Path) -> None:
    """What a person's own tools would do in `work` some day: the case's LATER, outside any jail."""
    program = prelude.program(case.later, arena.host, str(work))
    hold([jail_python(), "-I", "-c", program], arena, cwd=work, deadline_s=case.deadline_s, name="later")


def limits_of(case: Case, field: Field) -> dict[str, int]:
    """The ceilings of the attack's jail, for sizes in a source."""
    limits = field.ground.limits
    return {name: getattr(limits, name) for name in limits.__dataclass_fields__} | dict(case.limits or {})


def hold(argv: Sequence[str], arena: Arena, *, cwd: Path, deadline_s: int, name: str = "control") -> Mapping[str, Any]:
    """Run `argv` below a keeper; its facts, with stdout and stderr as text."""
    out, err = arena.directory / f"{name}.out", arena.directory / f"{name}.err"
    live_reading, live_writing = os.pipe2(os.O_CLOEXEC)
    result_reading, result_writing = os.pipe2(os.O_CLOEXEC)
    held = [jail_python(), "-I", "-S", str(keeper.__file__), str(live_reading), str(result_writing)]
    held += [str(deadline_s * 1000), *argv]
    environment = {"PATH": PATH, "HOME": arena.host["home"], "LANG": "C.UTF-8", "TMPDIR": str(arena.scratch)}
    environment |= arena.environment
    process = None
    try:
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                held,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=cwd,
                env=environment,
                pass_fds=(live_reading, result_writing),
                start_new_session=True,  # Ctrl-C is for the drill, which then ends it by the pipe
            )
        _close(live_reading, result_writing)
        live_reading = result_writing = -1
        if not _ended(process, arena.stopping, deadline_s + GRACE_S):
            raise HostError(f"a control's keeper did not end in {deadline_s + GRACE_S} s")
        facts = json.loads(os.read(result_reading, RESULT_BYTES_MAX) or b"{}")
    finally:
        _close(live_reading, live_writing, result_writing)  # the end of the pipe is the keeper's sign to end it all
        if process is not None:
            _ended(process, threading.Event(), GRACE_S)
        _close(result_reading)
    return {**facts, "stdout": text_of(out), "stderr": text_of(err)}


def _ended(process: "subprocess.Popen[bytes]", stopping: threading.Event, seconds: float) -> bool:
    """Wait for a keeper's end; HostError as soon as the drill is stopping."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_S)
            return True
        if stopping.is_set():
            raise HostError("the drill was stopped")
    return False


def _close(*descriptors: int) -> None:
    for fd in descriptors:
        if fd != -1:
            os.close(fd)


def text_of(path: Path) -> str:
    """The beginning of an output file."""
    with path.open("rb") as file:
        return file.read(TEXT_BYTES_MAX).decode("utf-8", "replace")


def seen(ended: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of after that say how a program ended and what it printed."""
    return {
        "said": prelude.parse(ended["stdout"]),
        "exit": {name: ended.get(name, 0) for name in ("reason", "code", "signal")},
        "alive": ended.get("alive", 0),
        "ms": ended.get("ms", 0),
        "stdout": ended["stdout"],
        "stderr": ended["stderr"],
        "findings": [],
        "denials": [],
    }


def finish(after: dict[str, Any], arena: Arena, work: Path | None) -> dict[str, Any]:
    """Look at the arena once more; said facts that name findings or denials (host cases) stay in said."""
    after |= arena.look(work)
    after["leaked"] = arena.leaked(after["stdout"], after["stderr"], json.dumps(after["said"]))
    return after
