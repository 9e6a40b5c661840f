"""The set-up says what to type where a host lacks something, and the documents name what exists."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SETUP = ROOT / "tools" / "setup_venv.sh"


def program(place: Path, name: str, text: str) -> None:
    place.mkdir(exist_ok=True)
    (place / name).write_text(f"#!/bin/sh\n{text}\n")
    (place / name).chmod(0o755)


def set_up(tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the set-up with the programs of tmp_path/bin first; what it makes goes below tmp_path."""
    path = f"{tmp_path}/bin:/usr/bin:/bin"
    return subprocess.run(
        ["sh", str(SETUP), str(tmp_path / "venv")],
        env={"PATH": path, "HOME": str(tmp_path), **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def old_pythons(tmp_path: Path) -> None:
    for name in ("python3", *(f"python3.{minor}" for minor in range(11, 15))):
        program(tmp_path / "bin", name, 'case "$1" in --version) echo "Python 3.9.2";; *) exit 1;; esac')


def test_an_old_python_is_named_with_what_to_type(tmp_path: Path) -> None:
    old_pythons(tmp_path)
    done = set_up(tmp_path)
    assert done.returncode == 1
    assert "needs Python 3.11 or newer, found Python 3.9.2" in done.stderr
    assert "apt-get install python3 python3-venv" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_a_python_without_venv_is_one_line_to_type(tmp_path: Path) -> None:
    # Debian's python3 without python3-venv: everything works but `import ensurepip`.
    program(tmp_path / "bin", "python3", 'case "$2" in *ensurepip*) exit 1;; *print*) echo 3.11;; esac')
    done = set_up(tmp_path)
    assert done.returncode == 1
    assert (
        done.stderr == "this Python 3.11 cannot make virtual environments; type: sudo apt-get install python3.11-venv\n"
    )


def test_the_python_that_is_asked_for_must_do(tmp_path: Path) -> None:
    old_pythons(tmp_path)
    done = set_up(tmp_path, PYTHON="python3")
    assert done.returncode == 1
    assert "PYTHON=python3 is not Python 3.11 or newer" in done.stderr


def test_packages_that_cannot_be_fetched_are_an_error(tmp_path: Path) -> None:
    # An index on a closed port of this host stands for a broken network.
    env = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    done = set_up(tmp_path, **env)
    if "cannot make virtual environments" in done.stderr or "needs Python" in done.stderr:
        pytest.skip("the system's own Python cannot make virtual environments")
    assert done.returncode == 1
    assert "could not be installed" in done.stderr
    assert not (tmp_path / "venv" / ".inbounds-ready").exists()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_what_the_documents_have_made_can_be_made(page: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", (ROOT / page).read_text(), re.MULTILINE))
    assert named
    assert named <= targets, named - targets


@pytest.mark.parametrize("page", ["README.md", "SECURITY.md", "docs/ARCHITECTURE.md", "docs/stop-codes.md"])
def test_verbs_and_flags_in_the_documents_exist(page: str) -> None:
    import click

    from inbounds.cli.main import VERBS, group

    text = (ROOT / page).read_text()
    # A command stands on a line of its own or in backquotes; prose about inbounds does not count.
    for line in re.findall(r"(?:^|`)inbounds ((?!--)[^`\n]+)", text, re.MULTILINE):
        verb, *words = line.split()
        assert verb in VERBS, f"{page}: inbounds {line}"
        flags = {word.partition("=")[0] for word in words if word.startswith("--")}
        if flags:
            command = group.get_command(click.Context(group), verb)
            assert command is not None
            known = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
            assert flags <= known, f"{page}: inbounds {line}: {flags - known}"


def test_no_test_finds_the_host_service_that_this_machine_may_have() -> None:
    from inbounds.sandbox import hardened

    assert hardened.place() != hardened.SOCKET  # conftest.py names the variable by itself
    assert not hardened.reach().usable
