"""`inbounds export`: a bundle that verifies on another machine, refusals that say why, traces to file and server."""

import fcntl
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evidence
import pytest
from click.testing import CliRunner, Result

from inbounds.cli.export import command
from inbounds.cli.verify import command as verify
from inbounds.journal.signing import open_signer

TOKEN = "ghp_" + "aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3xY5"


@pytest.fixture
def kept(home: Path) -> Path:
    """A finished run, signed throughout, as its supervisor leaves it."""
    run_dir = evidence.write(home, evidence.good_run())
    (run_dir / "diff.patch").write_text(f"+++ b/x\n+token = '{TOKEN}'\n")
    (run_dir / "report.html").write_text("<p>fine</p>")
    return run_dir


def invoke(verb: Any, *args: str) -> Result:
    return CliRunner().invoke(verb, args, standalone_mode=False)


def facts(result: Result) -> Any:
    assert result.exception is None, result.exception
    return json.loads(result.stdout)


def unpacked(bundle: Path, place: Path) -> Path:
    place.mkdir()
    subprocess.run(["tar", "xzf", str(bundle), "-C", str(place)], check=True)
    (directory,) = place.iterdir()
    return directory


@pytest.mark.req("O5")
def test_a_bundle_verifies_on_another_machine(kept: Path, tmp_path: Path) -> None:
    made = facts(invoke(command, "-o", str(tmp_path / "b.tar.gz"), "--json"))["bundle"]
    assert made["state"] == "finished"
    assert made["redacted"] == {"diff.patch": {"github-pat": 1}}
    directory = unpacked(tmp_path / "b.tar.gz", tmp_path / "elsewhere")
    for name in ("journal.jsonl", "manifest.json", "contract.json", "blast_radius.json"):
        assert (directory / name).read_bytes() == (kept / name).read_bytes(), name
    assert b"Dana" in (directory / "keys/allowed_signers").read_bytes()
    os.rename(kept.parent.parent, tmp_path / "gone")  # nothing of the state directory is there to be asked
    nobody = tmp_path / "nobody"
    nobody.mkdir()
    env = {"HOME": str(nobody), "INBOUNDS_HOME": str(nobody / "none"), "PATH": "/usr/bin:/bin"}
    for argv in (
        ["verify", "--dir", str(directory), "--anchors", str(directory / "anchors.jsonl")],
        ["verify", "--dir", str(directory)],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "inbounds", *argv], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run(
        [sys.executable, "-I", "-m", "inbounds.export.check", "."],
        cwd=directory, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    script = directory / "verify_independent.py"
    if script.exists():
        done = subprocess.run(
            ["python3", "-I", str(script), str(directory)], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        assert "verify_independent.py" in made["missing"]


def test_a_changed_bundle_does_not_verify(kept: Path, tmp_path: Path) -> None:
    facts(invoke(command, "-o", str(tmp_path / "b.tar.gz"), "--json"))
    directory = unpacked(tmp_path / "b.tar.gz", tmp_path / "elsewhere")
    journal = directory / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"tool_calls":2', b'"tool_calls":1', 1))
    assert invoke(verify, "--dir", str(directory), "--anchors", str(directory / "anchors.jsonl")).return_value == 1


def test_the_default_name_and_nothing_is_overwritten(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = invoke(command)
    assert first.exception is None
    path = tmp_path / f"inbounds-{kept.name}.tar.gz"
    assert path.stat().st_mode & 0o777 == 0o600
    assert tarfile.is_tarfile(path)
    before = path.read_bytes()
    again = invoke(command)
    assert "there is a file of this name" in str(again.exception)
    assert path.read_bytes() == before
    assert TOKEN not in first.stdout


def test_the_same_run_gives_the_same_file(kept: Path, tmp_path: Path) -> None:
    one, two = (facts(invoke(command, "-o", str(tmp_path / name), "--json"))["bundle"] for name in ("1", "2"))
    assert one["sha256"] == two["sha256"]


def test_a_living_run_is_not_bundled_but_its_traces_can_be_had(home: Path, tmp_path: Path) -> None:
    run_dir = evidence.write(home, evidence.good_run()[:9])
    (run_dir / "journal.jsonl").open("ab").write(b'{"at_ms":1,"da')  # a line that is being written
    with (run_dir / "journal.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = invoke(command, "-o", str(tmp_path / "b.tar.gz"))
        assert "running" in str(refused.exception)
        assert "inbounds stop" in str(refused.exception)
        assert not (tmp_path / "b.tar.gz").exists()
        told = facts(invoke(command, "--otlp-file", str(tmp_path / "t.jsonl"), "--json"))
    assert told["spans"] > 3
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert "unfinished" in json.dumps(lines)


def test_a_run_whose_supervisor_died_is_bundled_and_labelled(home: Path, tmp_path: Path) -> None:
    evidence.write(home, evidence.good_run()[:9])
    for name in ("journal.key", "journal.pub"):
        (home / "keys" / name).unlink()
    made = facts(invoke(command, "-o", str(tmp_path / "b.tar.gz"), "--json"))["bundle"]
    assert made["state"].startswith("unfinished")
    assert made["missing"]["attestations/"] == "this state directory has no key that signs"


def test_broken_evidence_can_be_handed_on_and_says_so(kept: Path, tmp_path: Path) -> None:
    journal = kept / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"tool_calls":2', b'"tool_calls":1', 1))
    made = facts(invoke(command, "-o", str(tmp_path / "b.tar.gz"), "--json"))["bundle"]
    assert "does not hold" in made["missing"]["journal.jsonl"]
    assert [m["name"] for m in made["members"] if m["name"].startswith("attestations/")] == []


def test_a_key_that_is_not_the_journals_attests_nothing(kept: Path, tmp_path: Path) -> None:
    stated = str(open_signer(kept.parent.parent / "keys").key)
    for name in ("journal.key", "journal.pub"):
        (kept.parent.parent / "keys" / name).unlink()
    assert str(open_signer(kept.parent.parent / "keys").key) != stated
    made = facts(invoke(command, "-o", str(tmp_path / "b.tar.gz"), "--json"))["bundle"]
    assert "another key" in made["missing"]["attestations/"]
    assert (unpacked(tmp_path / "b.tar.gz", tmp_path / "e") / "keys/journal.pub").read_text() == f"{stated}\n"


def test_a_link_in_a_runs_directory_is_not_followed(kept: Path, tmp_path: Path) -> None:
    (kept / "diff.patch").unlink()
    (kept / "diff.patch").symlink_to("/etc/passwd")
    result = invoke(command, "-o", str(tmp_path / "b.tar.gz"))
    assert "diff.patch" in str(result.exception)
    assert not (tmp_path / "b.tar.gz").exists()


def test_secrets_do_not_leave_with_the_traces(home: Path, tmp_path: Path) -> None:
    steps: list[tuple[str, dict[str, Any]]] = evidence.good_run()
    steps.insert(8, ("denial", {"kind": "name", "detail": f"token = '{TOKEN}' . example", "sensitive": False}))
    evidence.write(home, steps)
    told = facts(invoke(command, "--otlp-file", str(tmp_path / "t.jsonl"), "--json"))
    text = (tmp_path / "t.jsonl").read_text()
    assert TOKEN not in text
    assert "[redacted github-pat" in text
    assert told["spans"] > 10
    assert "bundle" not in told


def test_an_address_that_is_none_is_refused_before_anything_is_read(kept: Path, tmp_path: Path) -> None:
    result = invoke(command, "--otlp", "file:///etc/passwd", "-o", str(tmp_path / "b"))
    assert "no address of a collector" in str(result.exception)
    assert not (tmp_path / "b").exists()


def test_as_a_person_types_it(
    kept: Path, inbounds: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path: Path
) -> None:
    done = inbounds("export", kept.name[:15], "-o", str(tmp_path / "b.tar.gz"))
    assert done.returncode == 0, done.stderr
    assert "redacted in diff.patch: 1 github-pat" in done.stdout
