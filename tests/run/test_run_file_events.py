"""What the kernel tells of files in whole hardened runs: what was executed, and what an overflow of its queue leads to."""

import contextlib
import html
import os
import signal
from pathlib import Path

import faultrig
import hostrig
import pytest
from aftermath import eventually, limits, rogue
from runrig import Living, Ran, Rig, script
from test_run_hardened import enforce

from inbounds.host import protocol
from inbounds.journal.verify import verify_run
from inbounds.run import slotfile
from inbounds.sandbox.fileevents import OVERFLOW

IDLE = script({"text": "Nothing to do."})
# Copies a program into the workspace, and tries that and the approved one.
EXECUTES = """
import shutil, subprocess
ask()
shutil.copy("/usr/bin/uname", "copied")
os.chmod("copied", 0o755)
for program in ("/usr/bin/uname", "./copied"):
    try:
        say(program=program, code=subprocess.run([program], stdout=subprocess.DEVNULL).returncode)
    except OSError as error:
        say(program=program, code=error.errno)
os.unlink("copied")
say(type="result", ok=True, said="done")
"""
# More names than the kernel's queue holds events (fs.fanotify.max_queued_events: 16,384), and no file is left.
NAMES = 20_000
FLOODS = f"""
ask()
open("ready", "w").close()
while not os.path.exists("go"):
    time.sleep(0.02)
for n in range({NAMES}):
    os.close(os.open(f"made-{{n}}", os.O_CREAT | os.O_WRONLY))
    os.unlink(f"made-{{n}}")
os.unlink("ready")
open("done", "w").close()
while os.path.exists("go"):
    time.sleep(0.02)
os.unlink("done")
say(type="result", ok=True, said="done")
"""


@pytest.mark.req("H5")
def test_executed_files_are_journalled_and_what_could_not_be_executed_is_not_among_them(
    rig: Rig, host: hostrig.Rig, tmp_path: Path
) -> None:
    ran = rig.run(IDLE, install=rogue(tmp_path, EXECUTES), **limits(iterations=1))
    assert ran.contract.mode == "hardened"
    told = {item["during"]: item for item in ran.data("files.executed")}
    assert set(told) == {"agent", "tests"}
    assert all(item["complete"] for item in told.values()), told
    by_agent = {item["path"] for item in told["agent"]["files"]}
    assert os.path.realpath("/usr/bin/uname") in by_agent, told
    assert not [path for path in by_agent if path.endswith("copied")]  # the volume is noexec
    assert "billing/copied" in [item["path"] for item in ran.data("files.written")[0]["files"]]  # the control
    assert os.path.realpath("/usr/bin/uname") not in {item["path"] for item in told["tests"]["files"]}
    assert by_agent <= set(ran.manifest["files_executed"])
    assert "files executed, as the OS says" in (ran.run_dir / "report.html").read_text()
    shown = faultrig.inbounds(rig, "logs", ran.run_id).stdout
    assert "the agent's iteration executed, as the OS says: /" in shown, shown
    assert verify_run(ran.run_dir).ok


def flooded(rig: Rig, host: hostrig.Rig, place: Path, *, lets_go: bool) -> Ran:
    """A run whose agent does more than the queue holds while the service's session does not get to read it.

    The agent works on until it is told to end, if it is (`lets_go`).
    """
    living = rig.start(IDLE, install=rogue(place, FLOODS), **limits(iterations=1))
    thread = eventually(lambda: workspace(living, host))
    eventually((thread / "ready").exists)
    session = watching(host)
    (thread / "go").touch()
    os.kill(session, signal.SIGSTOP)
    try:
        eventually((thread / "done").exists)
    finally:
        os.kill(session, signal.SIGCONT)
    if lets_go:
        (thread / "go").unlink()
    return living.end()


def workspace(living: Living, host: hostrig.Rig) -> Path | None:
    """The thread's directory on the slot's view, once the agent is in it."""
    if not living.ran.run_dir.joinpath("journal.jsonl").exists() or not living.ran.data("iteration.started"):
        return None
    number = slotfile.number_of(living.ran.run_dir)
    assert number is not None
    return Path(protocol.view_of(number, host.paths.run)) / "workspace" / "rw" / "billing"


def watching(host: hostrig.Rig) -> int:
    """The one process of the service that has the run's file events."""
    assert host.process
    below = Path(f"/proc/{host.process.pid}/task/{host.process.pid}/children").read_text().split()
    (found,) = (int(pid) for pid in below if any("[fanotify]" in link for link in descriptors(pid)))
    return found


def descriptors(pid: str) -> list[str]:
    """What its descriptors are."""
    place = f"/proc/{pid}/fd"
    found = []
    for name in os.listdir(place):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.append(os.readlink(f"{place}/{name}"))
    return found


@pytest.mark.req("H5", "H6", "P3")
def test_an_overflow_stops_a_run_of_level_3(rig: Rig, host: hostrig.Rig, tmp_path: Path) -> None:
    enforce(rig, "{level: 3}")
    ran = flooded(rig, host, tmp_path, lets_go=False)
    assert ran.contract.level == 3
    assert ran.code == "STOP_HOST_FAILED", ran.data("stop.decided")
    assert OVERFLOW in ran.data("stop.decided")[0]["why"]
    marked(ran)
    assert OVERFLOW in html.unescape((ran.run_dir / "report.html").read_text())
    steps = {item["step"]: item for item in ran.data("stop.step")}
    assert all(item["ok"] for item in steps.values()), steps
    assert "cgroup.freeze" in steps["frozen"]["detail"], "the agent was at work"


@pytest.mark.req("H5", "H6")
def test_a_hardened_run_of_a_lower_level_goes_on_with_the_mark(rig: Rig, host: hostrig.Rig, tmp_path: Path) -> None:
    enforce(rig, "{mode: hardened, level: 2}")
    ran = flooded(rig, host, tmp_path, lets_go=True)
    assert ran.code == "STOP_ITERATIONS_EXCEEDED", ran.data("stop.decided")
    assert ran.data("verdict"), "it was judged"
    marked(ran)


def marked(ran: Ran) -> None:
    for kind in ("files.read", "files.written", "files.executed"):
        item = next(item for item in ran.data(kind) if item.get("during") != "tests")
        assert (item["complete"], item["why"]) == (False, OVERFLOW), item
    assert ran.manifest["files_read_gaps"] == [OVERFLOW]
    assert ran.alive() == []
    assert verify_run(ran.run_dir).ok
