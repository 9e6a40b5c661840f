"""Hardened runs: whole ones in a slot of a real host service; refused without it, and never weakened silently."""

import contextlib
import json
import os
import shutil
import site
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import hostrig
import msgspec
import ordinary_operator
import pytest
from aftermath import eventually
from runrig import Living, Rig, script, write
from test_run_acts import played
from test_run_goes_on import again, ended, reauthorized, works

import inbounds
from inbounds.contracts.errors import RefusedError
from inbounds.demo import acts
from inbounds.host import protocol, slots
from inbounds.host.protocol import Phase
from inbounds.journal.verify import verify_run
from inbounds.run import decision, recovery, requests, slotfile
from inbounds.sandbox import hardened
from inbounds.sandbox.host import jail_python
from inbounds.sandbox.spec import ENFORCED
from inbounds.store.store import Store

INSTALL = "sudo inbounds host install --operator $USER"


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever this machine has installed: no service answers."""
    monkeypatch.setenv(hardened.PLACE, str(tmp_path / "none.sock"))


def enforce(rig: Rig, text: str) -> None:
    """What policy asks of the host."""
    with (rig.stage.repository / ".inbounds/policy.yaml").open("a") as file:
        file.write(f"\nenforcement: {textwrap.dedent(text)}\n")


@pytest.mark.req("F10", "P3", "P4")
@pytest.mark.parametrize(
    "asked", ["{mode: hardened}", "{level: 3}", "{mode: hardened, level: 3}", "{require: [packet_filter]}"]
)
def test_what_only_hardened_mode_gives_is_refused_with_the_command_that_brings_it(
    rig: Rig, nowhere: None, asked: str
) -> None:
    rig.plays(script(write("/work/billing/tax.py", "")))
    assert rig.order().contract.mode == "rootless"  # the control: as it stands, policy lets it run
    enforce(rig, asked)
    with pytest.raises(RefusedError) as refused:
        rig.order()
    assert refused.value.fix == INSTALL
    assert "policy asks for more" in refused.value.found


@pytest.mark.req("F10")
def test_rootless_by_policy_is_told_that_policy_holds_it(rig: Rig, nowhere: None) -> None:
    rig.plays(script(write("/work/billing/tax.py", "")))
    enforce(rig, "{mode: rootless, level: 3}")
    with pytest.raises(RefusedError) as refused:
        rig.order()
    assert "mode: auto" in refused.value.fix


@pytest.mark.req("F10")
def test_a_hardened_contract_is_not_weakened_where_the_service_is_gone(rig: Rig, nowhere: None) -> None:
    ran = rig.run(
        script(write("/work/billing/tax.py", "")),
        change=lambda contract: msgspec.structs.replace(contract, mode="hardened"),
    )
    assert ran.code == "STOP_PREFLIGHT_FAILED"
    assert ran.data("run.accepted")[0]["mode"] == "hardened"
    assert "the host service is not installed" in ran.data("stop.decided")[0]["why"]
    assert ran.data("jail.started") == []
    assert verify_run(ran.run_dir).ok


# -- whole runs, in a slot


def kept(host: hostrig.Rig) -> list[int]:
    """The slots that are not free."""
    return list(slots.records(host.paths))


@pytest.mark.req("F1", "F2", "F4", "F10", "H5", "H6", "I1")
def test_an_honest_run_in_a_slot_comes_to_done_and_leaves_no_slot(rig: Rig, host: hostrig.Rig) -> None:
    ran = rig.run(played("honest"))
    assert ran.code == "DONE", (ran.data("stop.decided"), host.log.read_text())
    assert ran.contract.mode == ran.data("run.accepted")[0]["mode"] == ran.manifest["run"]["mode"] == "hardened"
    found = ran.data("preflight.finished")[0]["enforcement"]
    for name in ("dedicated_user", "volume_image", "bytes_limit", "inodes_limit", "acl", "cgroup_memory", "watchdog"):
        assert found[name] == ENFORCED, name
    jails = ran.data("jail.started")
    assert {jail["role"] for jail in jails} >= {"coder", "tester"}
    assert all(jail["enforcement"]["volume_image"] == ENFORCED for jail in jails)
    steps = [(item["step"], item["ok"]) for item in ran.data("stop.step")]
    assert steps == [(name, True) for name in ("lease_closed", "frozen", "persisted", "killed", "kept")]
    assert kept(host) == []
    assert slotfile.number_of(ran.run_dir) is None
    assert ran.alive() == []
    assert verify_run(ran.run_dir).ok
    read, written = ran.data("files.read"), ran.data("files.written")
    assert all(record["complete"] for record in (*read, *written)), (read, written)
    assert "billing/invoice.py" in [file["path"] for file in read[0]["files"]]
    assert "billing/invoice.py" in [file["path"] for file in written[0]["files"]]
    store = Store.open(ran.contract.store)
    assert [change.path for change in store.diff(ran.contract.base_tree, ran.data("commit.made")[-1]["tree"])] == [
        "billing/invoice.py"
    ]


@pytest.mark.req("E10", "E13", "F3", "F6")
def test_a_hostile_run_is_frozen_before_the_evidence_and_quarantined_out_of_its_volume(
    rig: Rig, host: hostrig.Rig
) -> None:
    ran = rig.run(played("hostile"), install=acts._install(acts.ACTS[1]))
    assert ran.code == "STOP_UNAUTHORIZED_ACCESS", ran.data("stop.decided")
    steps = {item["step"]: item for item in ran.data("stop.step")}
    assert list(steps) == ["lease_closed", "frozen", "persisted", "killed", "quarantined"]
    assert all(item["ok"] for item in steps.values()), steps
    assert "the volume is destroyed" in steps["quarantined"]["detail"]
    assert (ran.run_dir / "quarantine").is_dir()
    left = [path for path in (ran.run_dir / "quarantine").rglob("*") if path.is_file() and not path.is_symlink()]
    assert left
    assert not [path for path in left if path.stat().st_mode & 0o7111]
    assert not (ran.run_dir / "quarantine" / "billing" / ".git").exists()
    assert kept(host) == []
    assert ran.alive() == []
    assert verify_run(ran.run_dir).ok


@pytest.mark.req("F1", "F4", "F10", "P3")
def test_an_ordinary_operator_of_the_group_has_hardened_runs_without_sudo(host: hostrig.Rig) -> None:
    place = Path(tempfile.mkdtemp(prefix="inbounds-operator-", dir="/var/tmp"))
    uid = str(hostrig.OPERATOR)
    try:
        python = an_interpreter_for(place, uid)
        env = {"PATH": "/usr/bin:/bin", "HOME": str(place), hardened.PLACE: host.paths.socket,
               "INBOUNDS_HOME": str(place / "state")}  # fmt: skip
        done = subprocess.run(
            [*become(uid, "1"), python, ordinary_operator.__file__, str(place / "state")],
            env=env, cwd="/", capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        said = json.loads(done.stdout)
    finally:
        shutil.rmtree(place)
    assert (said["code"], said["mode"], said["verified"], said["alive"]) == ("DONE", "hardened", True, []), said
    assert all(ok for _, ok, _ in said["steps"]), said["steps"]
    assert said["enforcement"]["dedicated_user"] == said["enforcement"]["volume_image"] == ENFORCED
    assert kept(host) == []


def become(uid: str, group: str) -> list[str]:
    """In front of a command: another user, in one group more."""
    return ["setpriv", "--reuid", uid, "--regid", uid, "--groups", group]


def an_interpreter_for(place: Path, uid: str) -> str:
    """A virtual environment with this installation's packages that the user can start and read, or a skip."""
    # it starts itself once more: the first start may still have had a right of root's
    start = (
        "import subprocess, sys; sys.exit(sys.version_info[:2] != {} or subprocess.call([sys.executable, '-c', '']))"
    )
    code = start.format(sys.version_info[:2])
    for base in (jail_python(), "/usr/bin/python3"):
        if subprocess.run([*become(uid, uid), base, "-c", code], capture_output=True, check=False).returncode == 0:
            break
    else:
        pytest.skip("no interpreter of this version that an ordinary user can start")
    subprocess.run([base, "-m", "venv", "--without-pip", str(place / "venv")], check=True)
    (packages,) = (place / "venv" / "lib").glob("python*/site-packages")
    roots = [str(Path(inbounds.__file__).parents[1]), *site.getsitepackages()]
    (packages / "all.pth").write_text("\n".join(roots))
    subprocess.run(["chown", "-R", f"{uid}:{uid}", str(place)], check=True)
    python = str(place / "venv" / "bin" / "python")
    tried = subprocess.run(
        [*become(uid, uid), python, "-I", "-c", "import inbounds, msgspec"], capture_output=True, check=False
    )
    if tried.returncode:
        pytest.skip("an ordinary user cannot read this installation")
    return python


HANGS = {"fault": {"kind": "hang"}}


def working(rig: Rig) -> tuple[Living, int]:
    """A run whose agent has written a file and waits for its provider; and its slot's user."""
    living = rig.start({"conversations": [{"turns": [write("notes.py", '"""Notes."""\n'), HANGS]}]})
    assert rig.server is not None
    server = rig.server
    eventually(lambda: len(server.seen) == 2)
    number = slotfile.number_of(living.ran.run_dir)
    assert number is not None
    return living, protocol.uid_of(number)


def alive(uid: int) -> list[str]:
    """The processes of a slot's user, as the kernel describes them."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{name}/status").read_text(errors="replace")
            if f"Uid:\t{uid}\t" in status and "State:\tZ" not in status:
                found.append(status)
    return found


@pytest.mark.req("E13", "E16")
def test_a_dead_supervisor_ends_its_slots_processes_and_the_run_goes_on_in_the_same_slot(
    rig: Rig, host: hostrig.Rig
) -> None:
    living, uid = working(rig)
    (number,) = kept(host)
    assert alive(uid)  # the control
    living.kill_supervisor()
    eventually(lambda: not alive(uid))
    eventually(lambda: [r.phase for r in slots.records(host.paths).values()] == [Phase.KEPT])
    assert slotfile.number_of(living.ran.run_dir) == number
    ran = ended(rig, again(rig, living, "recover", works()))
    assert ran.code == "DONE", ran.data("stop.decided")
    assert "billing/notes.py" in [change["path"] for change in ran.data("snapshot.taken")[0]["changes"]]
    assert kept(host) == []
    assert verify_run(ran.run_dir).ok


@pytest.mark.req("E13")
def test_a_dead_supervisor_whose_run_is_not_taken_up_is_ended_in_order(rig: Rig, host: hostrig.Rig) -> None:
    living, uid = working(rig)
    living.kill_supervisor()
    assert recovery.recover(rig.home, living.ran.run_id)["code"] == "STOP_HOST_FAILED"
    ran = living.ran
    assert all(item["ok"] for item in ran.data("stop.step")), ran.data("stop.step")
    assert "billing/notes.py" in [change["path"] for change in ran.data("snapshot.taken")[-1]["changes"]]
    assert verify_run(ran.run_dir).ok
    assert alive(uid) == []


@pytest.mark.req("E10", "E13", "F3")
def test_a_dead_service_ends_the_run_with_nothing_alive(rig: Rig, host: hostrig.Rig) -> None:
    living, uid = working(rig)
    assert alive(uid)  # the control
    host.kill()
    ran = living.end()
    assert ran.code == "STOP_HOST_FAILED", ran.data("stop.decided")
    assert "host service" in ran.data("stop.decided")[0]["why"]
    assert alive(uid) == []
    assert "billing/notes.py" in [change["path"] for change in ran.data("snapshot.taken")[-1]["changes"]]
    found = verify_run(ran.run_dir)
    assert found.ok, [check for check in found.checks if not check.ok]
    host.start()
    decision.discard(rig.home, ran.run_id, evidence=False)
    assert kept(host) == []


@pytest.mark.req("E13", "E14", "I2")
def test_a_stop_keeps_its_volume_in_roots_custody_and_discard_destroys_it(rig: Rig, host: hostrig.Rig) -> None:
    living, uid = working(rig)
    requests.ask_stop(living.ran.run_dir, who="a test", why="to look at it")
    ran = living.end()
    assert ran.code == "STOP_OPERATOR", ran.data("stop.decided")
    steps = {item["step"]: item for item in ran.data("stop.step")}
    assert "cgroup.freeze" in steps["frozen"]["detail"], steps
    assert "billing/notes.py" in [change["path"] for change in ran.data("snapshot.taken")[-1]["changes"]]
    (record,) = slots.records(host.paths).values()
    assert record.phase == Phase.KEPT
    assert alive(uid) == []
    decision.discard(rig.home, ran.run_id, evidence=False)
    assert kept(host) == []
    assert slotfile.number_of(ran.run_dir) is None


@pytest.mark.req("E14")
def test_a_stopped_run_goes_on_in_its_own_slot_once_it_is_signed_for(rig: Rig, host: hostrig.Rig) -> None:
    living, _ = working(rig)
    (number,) = kept(host)
    requests.ask_stop(living.ran.run_dir, who="a test", why="to look at it")
    ran = living.end()
    assert kept(host) == [number]
    reauthorized(rig, ran)
    ran = ended(rig, again(rig, living, "resume", works()))
    assert ran.code == "DONE", ran.data("stop.decided")
    assert ran.data("run.reopened")[-1]["ok"] is True
    assert kept(host) == []
    assert verify_run(ran.run_dir).ok
