"""`inbounds shell` where policy asks for the hardened mode: in a slot of a real host service as a run, or refused as one."""

import os
import subprocess
import sys
import time
from pathlib import Path

import hostrig
import pytest
from runrig import Rig

from inbounds.host import slots
from inbounds.run.scratch import PREFIX
from inbounds.sandbox import hardened

SECONDS = 120


def enforce(rig: Rig, text: str) -> None:
    """What policy asks of the host."""
    with (rig.stage.repository / ".inbounds/policy.yaml").open("a") as file:
        file.write(f"\nenforcement: {text}\n")


def begin(rig: Rig, *argv: str) -> "subprocess.Popen[str]":
    env = {**os.environ, "INBOUNDS_HOME": str(rig.home.path)}
    return subprocess.Popen(
        [sys.executable, "-m", "inbounds", "shell", str(rig.stage.thread), "--", *argv],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
    )  # fmt: skip


def shell(rig: Rig, *argv: str) -> "subprocess.CompletedProcess[str]":
    with begin(rig, *argv) as process:
        out, said = process.communicate(timeout=SECONDS)
    return subprocess.CompletedProcess(argv, process.returncode, out, said)


def left(rig: Rig) -> list[str]:
    """Directories of visits, by name."""
    return [name for name in os.listdir(rig.home.path) if "shell" in name]


# inside: the filesystem's type under the workspace, and the workspace's mount options
SEE = "stat -f -c %T . && touch new.txt && git status --short && cat new.txt && exit 7"


@pytest.mark.req("F10")
@pytest.mark.parametrize("asked", ["{mode: hardened}", "{mode: auto}"])
def test_a_visit_is_in_a_slot_where_a_run_would_be_and_leaves_none(
    rig: Rig, host: hostrig.Rig, asked: str, tmp_path: Path
) -> None:
    enforce(rig, asked)
    process = begin(rig, "sh", "-c", f"{SEE.removesuffix('exit 7')} sleep 5; exit 7")
    until = time.monotonic() + SECONDS
    seen: set[int] = set()
    while process.poll() is None and time.monotonic() < until:
        seen |= set(slots.records(host.paths))
        time.sleep(0.05)
    out, said = process.communicate(timeout=SECONDS)
    assert process.returncode == 7, said
    assert len(seen) == 1, "the visit had a slot while it was"
    assert "ext2/ext3" in out  # a volume of its own: how stat names ext4
    assert "new.txt" in out
    assert not slots.records(host.paths)
    assert left(rig) == []


@pytest.mark.req("F10")
def test_rootless_by_policy_takes_no_slot(rig: Rig, host: hostrig.Rig) -> None:
    enforce(rig, "{mode: rootless}")
    before = host.log.read_text()
    ended = shell(rig, "sh", "-c", "exit 7")
    assert ended.returncode == 7, ended.stderr
    assert host.log.read_text() == before


@pytest.mark.req("F10")
def test_without_the_service_it_is_refused_in_a_runs_words(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(hardened.PLACE, str(tmp_path / "none.sock"))
    assert shell(rig, "true").returncode == 0  # the control: as policy stands it is let in
    enforce(rig, "{mode: hardened}")
    refused = shell(rig, "true")
    assert refused.returncode == 1
    assert "policy asks for more than this host enforces: the hardened mode is absent" in refused.stderr
    assert "sudo inbounds host install" in refused.stderr
    assert left(rig) == []


def test_the_next_visit_gives_back_the_slot_of_one_that_was_killed(rig: Rig, host: hostrig.Rig) -> None:
    enforce(rig, "{mode: hardened}")
    process = begin(rig, "sh", "-c", "echo begun; sleep 60")
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.kill()
    process.communicate(timeout=SECONDS)
    [lost] = [name for name in left(rig) if name.startswith(PREFIX)]
    [number] = slots.records(host.paths)
    assert shell(rig, "true").returncode == 0
    assert lost not in left(rig)
    until = time.monotonic() + SECONDS
    while number in slots.records(host.paths) and time.monotonic() < until:
        assert shell(rig, "true").returncode == 0
    assert not slots.records(host.paths)
