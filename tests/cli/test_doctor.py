"""`inbounds doctor`: what it says agrees with what a jail measures here; lacks are said with what to type."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import evidence
import hostrig
import pytest
from click.testing import CliRunner

from inbounds.cli import doctor
from inbounds.host import slots
from inbounds.journal.writer import Journal
from inbounds.run import levels
from inbounds.sandbox import hardened
from inbounds.sandbox import probe as probing
from inbounds.sandbox.maturity import LEVEL_3
from inbounds.sandbox.spec import ENFORCED, HARDENED, MECHANISMS, REQUIRED


@pytest.mark.req("P3", "P4", "F10")
def test_a_prepared_host_is_level_3_as_a_real_slot_showed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostrig.root_or_skip()
    host = hostrig.Rig()
    try:
        host.start()
        monkeypatch.setenv(hardened.PLACE, host.paths.socket)
        before = slots.records(host.paths)
        told = facts()
        assert slots.records(host.paths) == before == {}  # given back
    finally:
        host.close()
    states = {item["name"]: item["state"] for item in told["mechanisms"] if item["mode"] == "hardened"}
    wanting = {name: state for name, state in states.items() if state != ENFORCED and name in LEVEL_3}
    if set(wanting) <= {"packet_filter", "file_events"} and wanting:
        pytest.skip(f"this kernel lacks {wanting}")
    assert wanting == {}
    assert (told["level"], told["host_level"], told["level_max"], told["raise_it"]) == (3, 3, 3, "")
    assert told["modes"]["hardened"]["how"].startswith("a slot was opened and filled beyond its limits")
    assert told["modes"]["rootless"]["level"] <= 2


@pytest.fixture(autouse=True)
def no_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever this machine has installed: the service is where a test puts it."""
    monkeypatch.setenv(hardened.PLACE, str(tmp_path / "none.sock"))


def facts() -> dict:
    done = CliRunner().invoke(doctor.command, ["--json"], standalone_mode=False)
    assert done.exception is None, done.exception
    return {**json.loads(done.stdout), "exit": done.return_value}


def pretend(monkeypatch: pytest.MonkeyPatch, *, absent: tuple[str, ...] = (), **changes: object) -> None:
    found = {name: "absent: not here" if name in absent else ENFORCED for name in MECHANISMS}
    values = {"machine": "x86_64", "kernel": "6.1", "bubblewrap": "0.11", "landlock_abi": 4, "level": 2, **changes}
    monkeypatch.setattr(levels, "probe", lambda: probing.HostFacts(enforcement=found, lacking=absent, **values))


@pytest.mark.req("F10")
def test_it_says_what_a_jail_measures_on_this_host(home: Path, inbounds) -> None:
    done = inbounds("doctor", "--json", timeout=120)
    told = json.loads(done.stdout)
    measured = probing.probe()
    states = {item["name"]: item["state"] for item in told["mechanisms"]}
    assert {name: states[name] for name in MECHANISMS} == {
        name: measured.enforcement.get(name, "not observed") for name in MECHANISMS
    }
    assert set(states) == {*MECHANISMS, *HARDENED}
    assert all(item["how"] for item in told["mechanisms"])
    assert told["level"] == told["host_level"] == told["modes"]["rootless"]["level"] == measured.level <= 2
    assert told["missing_for_next"]
    assert done.returncode == (0 if measured.level else 111)
    if measured.problem:
        assert told["raise_it"] == measured.fix


def test_every_mechanism_is_on_the_screen(home: Path, monkeypatch) -> None:
    pretend(monkeypatch, absent=("landlock_scopes",))
    done = CliRunner().invoke(doctor.command, standalone_mode=False)
    assert done.exception is None
    for name in MECHANISMS:
        assert name in done.stdout
    assert "absent: not here" in done.stdout
    assert "level 2 of 3" in done.stdout


def test_a_host_that_can_make_no_jail_is_level_0_and_says_what_to_type(home: Path, monkeypatch) -> None:
    fix = "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    pretend(monkeypatch, absent=REQUIRED, level=0, problem="user namespaces are forbidden", fix=fix)
    told = facts()
    assert (told["level"], told["exit"], told["raise_it"]) == (0, 111, fix)
    assert "prompt-only" in told["level_means"]
    assert "refused" in told["level_means"]
    shown = CliRunner().invoke(doctor.command, standalone_mode=False).stdout
    assert fix in shown


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_rootless_never_claims_level_3(home: Path, monkeypatch, level: int) -> None:
    pretend(monkeypatch, level=level)
    told = facts()
    assert told["level"] == min(level, 2)
    assert told["level_max"] == 2


def test_keys_are_listed_and_agents_say_why_they_cannot_run(home: Path, monkeypatch, tmp_path: Path) -> None:
    pretend(monkeypatch)
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))
    monkeypatch.setenv("HOME", str(empty))
    told = facts()
    agents = {agent["name"]: agent for agent in told["agents"]}
    assert set(agents) >= {"reference", "claude", "codex"}
    assert agents["claude"]["problem"] == "not installed"
    assert agents["claude"]["fix"].startswith("npm install")
    assert agents["reference"]["path"]
    assert told["programs"] == {"git": "", "ssh-keygen": ""}
    assert told["exit"] == 111  # without git no run can start


def test_the_state_directory_is_examined(home: Path, monkeypatch) -> None:
    pretend(monkeypatch)
    evidence.write(home, evidence.good_run())
    with Journal.open(home / "runs" / "20261120-231501-a1b2c4" / "journal.jsonl"):
        pass
    broken = home / "runs" / "20261120-231502-a1b2c5" / "journal.jsonl"
    broken.parent.mkdir()
    broken.write_bytes(b"not a journal\n")
    state = facts()["state"]
    assert state["path"] == str(home)
    assert state["runs"] == {"starting": 0, "running": 0, "orphaned": 1, "finished": 1, "damaged": 1}
    assert any("inbounds status" in problem for problem in state["problems"])
    assert any("inbounds verify" in problem for problem in state["problems"])
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_key_that_others_can_read_is_a_problem_and_no_crash(home: Path, monkeypatch) -> None:
    pretend(monkeypatch)
    (home / "keys").mkdir(parents=True)
    (home / "keys" / "openai").write_text("sk-test-0123456789")
    (home / "keys" / "openai").chmod(0o644)
    (fact,) = facts()["keys"]
    assert "others can reach" in fact["problem"]
    assert "sk-test" not in str(fact)


def test_a_newer_state_directory_is_refused(home: Path, inbounds) -> None:
    home.mkdir(mode=0o700)
    (home / "VERSION").write_text("99\n")
    done = inbounds("doctor")
    assert done.returncode == 111
    assert "upgrade" in done.stderr


def test_a_full_disk_is_said(home: Path, monkeypatch) -> None:
    pretend(monkeypatch)
    monkeypatch.setattr(doctor, "FREE_BYTES_MIN", sys.maxsize)
    assert any("MiB free" in problem for problem in facts()["state"]["problems"])


INSTALL = "sudo inbounds host install --operator $USER"


@pytest.mark.req("P4", "F10")
def test_rootless_says_in_these_words_what_holds_it_and_what_raises_it(home: Path, monkeypatch) -> None:
    pretend(monkeypatch)
    told = facts()
    assert (told["level"], told["host_level"], told["level_max"]) == (2, 2, 2)
    assert "dedicated user, quota image, ACLs, files read" in told["missing_for_next"]
    assert told["raise_it"] == INSTALL
    assert told["modes"]["hardened"] | {"usable": False, "level": 0, "fix": INSTALL} == told["modes"]["hardened"]
    assert "not installed" in told["modes"]["hardened"]["problem"]
    shown = CliRunner().invoke(doctor.command, standalone_mode=False).stdout
    assert "dedicated user, quota image, ACLs, files read" in shown
    assert INSTALL in shown


@pytest.mark.req("P4")
def test_each_thread_has_its_level_and_what_holds_it(home: Path, monkeypatch, tmp_path: Path) -> None:
    pretend(monkeypatch)
    top = tmp_path / "repository"
    subprocess.run(["git", "init", "-q", str(top)], check=True)
    for thread in ("good", "bad"):
        (top / thread / ".inbounds").mkdir(parents=True)
    (top / ".inbounds").mkdir()
    policy = top / ".inbounds" / "policy.yaml"
    policy.write_text("version: 1\noperators: []\n")
    (top / "good" / ".inbounds" / "config.yaml").write_text("version: 1\nowner: ana\n")
    (top / "bad" / ".inbounds" / "config.yaml").write_text("version: 1\nowner: ana\nroot: yes\n")
    monkeypatch.chdir(top)
    bad, good = facts()["threads"]
    assert (good["thread"], good["level"], good["mode"], good["raise_it"]) == ("good", 2, "auto", INSTALL)
    assert (bad["thread"], bad["level"]) == ("bad", 0)
    assert "root" in bad["missing"]
    policy.write_text("version: 1\noperators: []\nenforcement: {mode: hardened, level: 3}\n")
    _, good = facts()["threads"]
    assert (good["level"], good["asked"], good["raise_it"]) == (0, 3, INSTALL)
    assert "refused" in good["missing"]
    assert "thread good: level 0" in CliRunner().invoke(doctor.command, standalone_mode=False).stdout
    monkeypatch.chdir(tmp_path)
    assert facts()["threads"] == []


@pytest.mark.req("P4")
def test_recent_runs_have_the_level_that_was_measured_then(home: Path, monkeypatch) -> None:
    pretend(monkeypatch)
    run_dir = evidence.write(home, evidence.good_run())
    (told,) = facts()["runs_levels"]
    assert (told["run_id"], told["mode"]) == (run_dir.name, "rootless")
    assert told["level"] == 1  # the journal's word, whatever this host gives now
    (home / "runs" / run_dir.name / "journal.jsonl").write_bytes(b"no journal\n")
    (told,) = facts()["runs_levels"]
    assert (told["level"], told["raise_it"]) == (0, f"inbounds verify {run_dir.name}")
