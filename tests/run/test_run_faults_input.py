"""Bad input, as people give it on the command line: each refused with what was found, what was expected and what to
type, before anything starts; and odd repositories that are no fault at all."""

import json
import os
import shutil
import sqlite3
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from faultrig import HANGS, error, facts, git, inbounds, provided, signed
from runrig import Rig
from test_run_acts import played

from inbounds.agents import npm
from inbounds.contracts.bound import Contract
from inbounds.contracts.canonical import canonical
from inbounds.contracts.errors import HostError
from inbounds.demo import acts, outside
from inbounds.journal import sshsig
from inbounds.journal.verify import verify_run
from inbounds.run import authorize
from inbounds.run.home import STATE_VERSION, open_home
from inbounds.store.store import Store

POLICY = ".inbounds/policy.yaml"
PLAN = "billing/.inbounds/WORK_PLAN.json"
RUN = ("run", "billing", "--yes", "--json", "--model", acts.MODEL)
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="giving a file to another user takes root")


def change(rig: Rig, path: str, old: str, new: str) -> None:
    file = rig.stage.repository / path
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


@pytest.fixture
def person(rig: Rig) -> Rig:
    """A stage whose person has a provider and a signed plan: `inbounds run` would start."""
    provided(rig, HANGS)
    signed(rig)
    return rig


def refused(rig: Rig, code: int, *args: str, **kwargs: Any) -> dict[str, str]:
    """Refused, and no run was made of it."""
    before = sorted(rig.home.runs())
    found = error(inbounds(rig, *(args or RUN), **kwargs), code)
    assert sorted(rig.home.runs()) == before
    assert not list((rig.home.path / "runs").glob(".new-*"))
    return found


@pytest.mark.req("J13")
def test_missing_contracts_are_named_with_what_makes_them(person: Rig) -> None:
    (person.stage.repository / "billing/.inbounds/config.yaml").unlink()
    found = refused(person, 100)
    assert found["where"] == "billing/.inbounds/config.yaml"
    assert found["fix"] == "inbounds thread add billing"
    shutil.rmtree(person.stage.repository / ".inbounds")
    found = refused(person, 100)
    assert (found["where"], found["fix"]) == (POLICY, "inbounds init")


@pytest.mark.req("B14")
@pytest.mark.parametrize(("path", "old", "new", "line", "says"), [
    (POLICY, "limits:", "limitz:", 8, "limitz"),
    (POLICY, 'budget_usd: "1.00"', 'budget_usd: "a lot"', 9, "a lot"),
    (PLAN, '"risk": "low"', '"risk": "none"', 7, "none"),
    (PLAN, '"version": 1,', '"version": 1', 3, ""),
    ("billing/.inbounds/requirements.yaml", "    owner:", "   owner:", 4, ""),
])  # fmt: skip
def test_a_malformed_contract_is_named_with_its_line(
    person: Rig, path: str, old: str, new: str, line: int, says: str
) -> None:
    change(person, path, old, new)
    found = refused(person, 100)
    assert found["where"] == f"{path}:{line}", found
    assert says in found["found"]
    assert found["expected"] or found["fix"]
    plain = inbounds(person, "check", "billing")
    assert plain.returncode == 100
    assert f"{path}:{line}" in plain.stderr
    assert "type:" in plain.stderr or "expected:" in plain.stderr


@pytest.mark.req("B13")
def test_nobody_widens_what_stands_above(person: Rig) -> None:
    change(person, PLAN, '"iterations": 4', '"budget_usd": "5", "iterations": 4')
    found = refused(person, 100)
    assert found["where"] == f"{PLAN}:8"
    assert ".inbounds/policy.yaml:9" in found["found"]
    change(person, PLAN, '"budget_usd": "5", ', "")
    for flag in (("--budget", "3"), ("--for", "1h"), ("--iterations", "5")):
        found = refused(person, 100, *RUN, *flag)
        assert "flags" in found["where"], found
        assert "widens" in found["found"]
    assert "1.01" in refused(person, 100, *RUN, "--budget", "1.01")["found"]


@pytest.mark.req("B6")
def test_a_plan_that_leaves_its_thread_is_refused(person: Rig) -> None:
    change(person, PLAN, '"billing/*.py"', '"shipping/*.py"')
    found = refused(person, 1)
    assert "shipping" in found["found"]
    assert "handoff" in found["fix"]


@pytest.mark.req("A8")
def test_a_goal_without_a_test_is_refused_and_todays_failing_tests_are_listed(person: Rig) -> None:
    found = refused(person, 1, *RUN, "--goal", "Make the invoice nicer")
    assert "billing/tests/test_invoice.py::test_a_discount_is_printed" in found["expected"]
    assert "--accept billing/tests/" in found["fix"]
    found = refused(person, 1, *RUN, "--goal", "x", "--accept", "billing/tests/test_none.py::test_x")
    assert "not in HEAD" in found["found"]


@pytest.mark.req("J13", "E8")
def test_yes_signs_nothing(rig: Rig) -> None:
    provided(rig, HANGS)
    change(rig, PLAN, '"iterations": 4', '"iterations": 3')  # no signature of this session is about this plan
    found = refused(rig, 1)
    assert "not signed" in found["found"]
    assert "plan sign" in found["fix"]
    found = refused(rig, 100, *[arg for arg in RUN if arg != "--yes"])
    assert "nobody is here to sign" in found["found"]


@pytest.mark.req("O7", "J13")
def test_a_strangers_key_starts_nothing(person: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = sshsig.operator_key(tmp_path, {"HOME": str(tmp_path), "PATH": os.environ["PATH"]})
    assert stranger.public != person.stage.key.public
    shutil.copy(person.stage.repository.parent / ".config/inbounds/gateway.yaml", tmp_path / ".config/inbounds")
    found = refused(person, 1, env={"HOME": str(tmp_path)})
    assert "your signing key belongs to no operator" in found["found"]

    def signed_by_a_stranger(contract: Contract) -> Contract:
        import msgspec

        armored = sshsig.sign(stranger, canonical(dict(contract.statement)), authorize.START_NAMESPACE)
        return msgspec.structs.replace(contract, signature=armored)

    # and past the command line, at the supervisor: what it is handed claims the operator's name
    monkeypatch.setattr(authorize, "authorize", lambda _home, contract, **_: signed_by_a_stranger(contract))
    ran = person.run(HANGS)
    assert ran.code == "STOP_PREFLIGHT_FAILED"
    assert "no operator signed" in ran.data("stop.decided")[0]["why"]
    assert ran.data("gateway.started") == []
    # and whoever verifies it hears so
    assert {check.name for check in verify_run(ran.run_dir).checks if not check.ok} == {"signatures"}


def test_an_agent_that_is_not_installed_is_named_with_how_to_install_it(person: Rig) -> None:
    places = [place for place in os.environ["PATH"].split(":") if not os.path.exists(os.path.join(place, "codex"))]
    if any(Path(place).expanduser().joinpath("codex").exists() for place in npm.GLOBAL_PLACES):
        pytest.skip("codex is installed where every run looks")
    found = refused(person, 111, *RUN, "--agent", "codex", env={"PATH": ":".join(places)})
    assert "codex is not installed" in found["found"]
    assert found["fix"] == "npm install -g @openai/codex"


@pytest.mark.req("H1")
def test_an_agent_that_changed_since_it_was_signed_for_does_not_start(rig: Rig) -> None:
    install = acts._install(acts.ACTS[1])
    assert install is not None
    from dataclasses import replace

    program = rig.stage.repository.parent / "agent.py"
    shutil.copy(install.path, program)

    def meddle(contract: Contract) -> Contract:
        program.write_text(program.read_text() + "\n# a helpful addition\n")
        return contract

    ran = rig.run(HANGS, install=replace(install, path=str(program), sha256=npm.sha256(program)), change=meddle)
    assert ran.code == "STOP_PREFLIGHT_FAILED"
    assert "not the one that was signed for" in ran.data("stop.decided")[0]["why"]
    assert ran.data("jail.started") == []
    assert verify_run(ran.run_dir).ok


@pytest.mark.req("G1")
def test_a_subscription_login_is_no_key(person: Rig) -> None:
    home = person.stage.repository.parent
    (home / ".claude").mkdir()
    (home / ".claude" / ".credentials.json").write_text(json.dumps({"claudeAiOauth": {"accessToken": "x"}}))
    (home / "bin").mkdir()
    shutil.copy("/bin/true", home / "bin" / "claude")  # found by its being a native program
    found = refused(person, 100, *RUN[:4], "--agent", "claude", env={"PATH": f"{home}/bin:{os.environ['PATH']}"})
    assert "subscription" in found["found"]
    assert found["fix"] == "inbounds key add anthropic"
    token = {"ANTHROPIC_API_KEY": "sk-ant-oat01-a-login-and-no-key", "PATH": f"{home}/bin:{os.environ['PATH']}"}
    assert "subscription" in refused(person, 100, *RUN[:4], "--agent", "claude", env=token)["found"]


@pytest.mark.req("I1")
def test_submodules_and_lfs_are_refused_by_name(person: Rig, tmp_path: Path) -> None:
    repository, other = person.stage.repository, tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    git(other, "commit", "-q", "--allow-empty", "-m", "start")
    git(repository, "submodule", "--quiet", "add", str(other), "billing/vendored")
    git(repository, "commit", "-q", "-m", "a submodule")
    found = refused(person, 100)
    assert "submodules" in found["found"]
    assert "billing/vendored" in found["found"]
    git(repository, "reset", "-q", "--hard", "HEAD~1")
    (repository / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12345\n"
    (repository / "billing" / "rates.bin").write_text(pointer)
    git(repository, "add", ".gitattributes", "billing/rates.bin")
    git(repository, "commit", "-q", "-m", "a large file")
    found = refused(person, 100)
    assert "LFS" in found["found"]
    assert "billing/rates.bin" in found["found"]
    assert found["fix"]


def test_a_repository_without_a_commit_is_refused(person: Rig, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    found = refused(person, 100, "check", "--json", cwd=empty)
    assert "no git repository" in found["found"]
    git(empty, "init", "-q")
    for verb in (("init", "--json"), ("run", ".", "--yes", "--json")):
        found = refused(person, 100, *verb, cwd=empty)
        assert "git" in found["fix"] or "inbounds init" in found["fix"], found
    shutil.copytree(person.stage.repository / ".inbounds", empty / ".inbounds")
    shutil.copytree(person.stage.repository / "billing" / ".inbounds", empty / ".inbounds", dirs_exist_ok=True)
    found = refused(person, 100, "run", ".", "--yes", "--json", "--model", acts.MODEL, cwd=empty)
    assert "no commit" in found["found"]


@pytest.mark.req("I1", "B11")
def test_an_odd_repository_is_no_fault(rig: Rig) -> None:
    """Names that are no UTF-8, a detached HEAD, uncommitted files, and another owner where root can make one."""
    repository = rig.stage.repository
    odd = [b"caf\xe9.txt", b"new\nline.txt", b"esc\x1b[31m.txt", b'quo"te\\.txt', " ünïcode.txt".encode(), b"-rf"]
    for place in (b"billing", b"shipping"):
        for name in odd:
            Path(os.fsdecode(os.fsencode(repository) + b"/" + place + b"/" + name)).write_bytes(name)
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "-m", "names")
    git(repository, "checkout", "-q", "--detach")
    (repository / "billing" / "draft.py").write_text("SECRET_PLAN = 1\n")
    change(rig, "billing/tax.py", "from", "# mine\nfrom")
    if os.geteuid() == 0:
        for place, directories, files in os.walk(repository):
            for name in (*directories, *files, ""):
                os.chown(os.path.join(place, name), 4243, 4243, follow_symlinks=False)
    before = outside.fingerprint(repository)
    provided(rig, played("honest"))
    assert set(rig.order().uncommitted) == {"billing/draft.py", "billing/tax.py"}
    signed(rig)
    done = inbounds(rig, *RUN)
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr)
    assert "billing/draft.py" in done.stderr, "what stays out is named"
    records = [json.loads(line) for line in done.stdout.splitlines()]
    accepted = next(r["data"] for r in records if r["kind"] == "run.accepted")
    made = [r["data"] for r in records if r["kind"] == "commit.made"]
    store = Store.open(accepted["store"])
    assert [change.path for change in store.diff(accepted["base_tree"], made[-1]["tree"])] == ["billing/invoice.py"]
    assert accepted["base_commit"] == git(repository, "rev-parse", "HEAD")
    assert verify_run(rig.home.run(accepted["run_id"])).ok
    assert outside.fingerprint(repository) == before
    if os.geteuid() == 0:
        assert {path.stat().st_uid for path in (repository / ".git").iterdir()} == {4243}


@pytest.mark.req("B11")
def test_two_runs_at_once_on_one_repository_both_end_well(rig: Rig) -> None:
    first = rig.start(played("honest"))
    server, rig.server = rig.server, None  # both play, each with its own provider
    second = rig.start(played("honest"))
    assert server is not None
    try:
        ended = [first.end(), second.end()]
    finally:
        server.stop()
    assert [ran.code for ran in ended] == ["DONE", "DONE"]
    assert ended[0].contract.branch != ended[1].contract.branch
    store = Store.open(ended[0].contract.store)
    for ran in ended:
        assert verify_run(ran.run_dir).ok
        assert store.ref(f"refs/heads/{ran.contract.branch}") == ran.data("commit.made")[-1]["commit"]
        assert ran.alive() == []
    landed = [ran.data("promotion.decided")[0]["outcome"] for ran in ended]
    assert "promoted" in landed
    assert store.tree_of(str(store.ref("refs/heads/development"))) == ended[0].data("commit.made")[-1]["tree"]


@pytest.mark.req("G2", "G9")
@pytest.mark.parametrize("how", ["garbage", "locked"])
def test_without_a_ledger_nothing_starts(rig: Rig, how: str) -> None:
    ledger = rig.home.ledger
    rig.plays(HANGS)
    rig.order()
    kept = {path: path.with_name("kept-" + path.name) for path in rig.home.path.glob("ledger.sqlite*")}
    for path, aside in kept.items():  # its log, too: it alone would make the ledger whole again
        path.rename(aside)
    done = threading.Event()
    holder = threading.Thread(target=_hold, args=(ledger, done))
    try:
        if how == "garbage":
            ledger.write_bytes(b"this is no ledger" * 100)
            ledger.chmod(0o600)
        else:
            ready = threading.Event()
            holder = threading.Thread(target=_hold, args=(ledger, done, ready))
            holder.start()
            ready.wait(10)
        ran = rig.run(HANGS)
        assert ran.code == "STOP_PREFLIGHT_FAILED", ran.data("stop.decided")
        assert "ledger" in ran.data("stop.decided")[0]["why"]
        assert ran.data("iteration.started") == []
        assert rig.server is not None
        assert len(rig.server.seen) == 0
        assert verify_run(ran.run_dir).ok
        assert ran.alive() == []
    finally:
        done.set()
        if holder.is_alive():
            holder.join()
        for left in rig.home.path.glob("ledger.sqlite*"):
            left.unlink()
        for path, aside in kept.items():
            aside.rename(path)


def _hold(path: Path, done: threading.Event, ready: threading.Event | None = None) -> None:
    connection = sqlite3.connect(path)
    connection.execute("BEGIN EXCLUSIVE")
    if ready:
        ready.set()
    done.wait(120)
    connection.close()


def test_state_of_a_newer_version_is_refused_and_of_an_older_one_migrated(rig: Rig, tmp_path: Path) -> None:
    home = {"INBOUNDS_HOME": str(tmp_path / "state")}
    open_home(tmp_path / "state")
    version = tmp_path / "state" / "VERSION"
    version.write_text(f"{STATE_VERSION + 1}\n")
    found = error(inbounds(rig, "status", "--json", env=home), 111)
    assert found["where"] == str(version)
    assert "upgrade" in found["fix"]
    assert version.read_text() == f"{STATE_VERSION + 1}\n", "what is newer is left alone"
    version.write_text("0\n")
    (tmp_path / "state" / "signed").rmdir()
    assert facts(inbounds(rig, "status", "--json", env=home))["runs"] == []
    assert version.read_text() == f"{STATE_VERSION}\n"
    assert (tmp_path / "state" / "signed").stat().st_mode & 0o777 == 0o700
    version.write_bytes(b"\xff\xfe")
    assert error(inbounds(rig, "status", "--json", env=home), 111)["where"] == str(version)


@ROOT
def test_a_state_directory_of_another_user_is_refused(rig: Rig, tmp_path: Path) -> None:
    place = tmp_path / "state"
    open_home(place)
    os.chown(place, 4243, 4243)
    found = error(inbounds(rig, "run", "billing", "--yes", "--json", env={"INBOUNDS_HOME": str(place)}), 111)
    assert "4243" in found["found"]
    assert "INBOUNDS_HOME" in found["fix"]
    with pytest.raises(HostError):
        open_home(place)


def test_a_state_directory_that_is_a_file_is_refused(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    found = error(inbounds(rig, "status", "--json", env={"INBOUNDS_HOME": str(tmp_path / "state")}), 111)
    assert found["where"] == str(tmp_path / "state")


def test_ctrl_c_stops_a_run_in_the_foreground_in_order(person: Rig) -> None:
    import signal
    import sys
    import time

    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(person.stage.repository.parent),
        "INBOUNDS_HOME": str(person.home.path),
    }
    command = subprocess.Popen(
        [sys.executable, "-m", "inbounds", *RUN], cwd=person.stage.repository, env=env, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert command.stdout is not None
    seen: list[dict[str, Any]] = []
    try:
        for line in command.stdout:
            seen.append(json.loads(line))
            if seen[-1]["kind"] == "iteration.started":
                break
        deadline = time.monotonic() + 30
        assert person.server is not None
        while not person.server.seen:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        command.send_signal(signal.SIGINT)
        seen += [json.loads(line) for line in command.stdout]
        said = command.communicate(timeout=60)[1]
    finally:
        if command.poll() is None:
            command.kill()
            command.wait()
    assert command.returncode == 1, said
    assert "Traceback" not in said
    assert [record["seq"] for record in seen] == list(range(len(seen))), "every record once"
    ended = [record for record in seen if record["kind"] != "journal.checkpoint"][-1]
    assert ended["kind"] == "run.finished"
    assert ended["data"]["code"] == "STOP_OPERATOR"
    run_id = next(r["data"]["run_id"] for r in seen if r["kind"] == "run.accepted")
    assert verify_run(person.home.run(run_id)).ok
    assert outside.processes_of(run_id) == []
