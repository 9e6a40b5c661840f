"""Names that a repository's author (or an agent, earlier) chose: in files that we write, on the terminal, in advice."""

import os
import subprocess
from pathlib import Path

import pytest
from made_repository import repository

from inbounds.cli import main as command
from inbounds.contracts.documents import Config
from inbounds.contracts.errors import OperatorError
from inbounds.contracts.load import load
from inbounds.discover import tests as suites
from inbounds.journal import sshsig
from inbounds.run import authorize, baseline, order, setup
from inbounds.run.home import open_home

EVIL = "tests/test_0\nagents: [claude]\n#.py"


def test_a_files_name_cannot_write_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    top = repository(tmp_path / "top", {EVIL: "def test_a(): assert 0\n", "CODEOWNERS": "* @ana\n"})
    found = setup.survey(top)
    # the control: the name is what names the source of the tests, line breaks and all
    assert "\nagents:" in suites.find(top)[0].source
    setup.write_config(found, [EVIL + "::test_a"], "not known: no\nagents: [codex]")
    config = load(top / ".inbounds" / "config.yaml", Config)
    assert config.agents == Config(version=1, owner="x").agents
    assert config.tests.known_failing == (EVIL + "::test_a",)


def test_a_signature_is_written_through_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    key = sshsig.operator_key()
    home = open_home(tmp_path / "state")
    victim, beside = tmp_path / "victim", tmp_path / "WORK_PLAN.json.sig"
    victim.write_text("mine\n")
    beside.symlink_to(victim)
    operators = {key.principal: key.public}
    with pytest.raises(OperatorError, match="cannot be written"):
        authorize.sign(home, {"what": "start"}, operators, beside, key)
    assert victim.read_text() == "mine\n"
    beside.unlink()
    armored = authorize.sign(home, {"what": "start"}, operators, beside, key)
    assert beside.read_text() == armored


def test_an_error_shows_a_name_and_does_not_obey_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    top = repository(tmp_path / "top", {"a": "1\n", ".inbounds/policy.yaml": '"\\e]0;owned\\a\\e[2J": 1\n'})
    monkeypatch.setenv("INBOUNDS_HOME", str(tmp_path / "state"))
    with pytest.raises(SystemExit):
        command.main(["check", str(top)])
    said = capsys.readouterr().err
    assert "owned" in said
    assert "\x1b" not in said
    assert "\x07" not in said


def test_advice_to_type_is_safe_to_paste(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell that a person pastes the advised command into passes the test's name on, and does nothing else."""
    name = "tests/t.py::test_a[$(touch pasted)]"
    monkeypatch.setattr(baseline, "failing_today", lambda *_: [name])
    fault = order._nothing_to_accept(None, tmp_path, None)  # type: ignore[arg-type]  # it asks only what stands above
    for advised in (fault.fix, "inbounds " + fault.expected.rpartition("    ")[2]):
        shell = f'inbounds() {{ printf "%s\\n" "$@"; }}\n{advised}'
        done = subprocess.run(["sh", "-c", shell], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == name
    assert not os.listdir(tmp_path)
    subprocess.run(["sh", "-c", f"echo --accept {name}"], cwd=tmp_path, capture_output=True, check=True)
    assert os.listdir(tmp_path) == ["pasted"]  # the control: unquoted, it is a command


def test_a_contract_file_is_a_file_of_the_repository_itself(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2: 1\n")
    link, pipe, plain = (tmp_path / name for name in ("link.yaml", "pipe.yaml", "plain.yaml"))
    link.symlink_to(secret)
    os.mkfifo(pipe)
    for path in (link, pipe):
        with pytest.raises(OperatorError) as refused:
            load(path, Config)
        assert "hunter2" not in refused.value.one_line()
    plain.write_bytes(secret.read_bytes())
    with pytest.raises(OperatorError, match="hunter2"):
        load(plain, Config)  # the control: an error quotes the file
