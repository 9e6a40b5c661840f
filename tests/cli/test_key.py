"""`inbounds key`: keys come by stdin or a hidden prompt, never by argv, and are never printed."""

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

SECRET = "sk-test-0123456789abcdefghijklmnop-LAST"


def test_a_key_from_stdin_is_kept_private_and_never_shown(home: Path, inbounds) -> None:
    outputs = [inbounds("key", "add", "anthropic", stdin=SECRET + "\n"), inbounds("key", "list")]
    outputs += [inbounds("key", "list", "--json"), inbounds("doctor", "--json"), inbounds("doctor")]
    for done in outputs:
        assert done.returncode == 0, done.stderr
        assert SECRET not in done.stdout + done.stderr
        assert SECRET[-6:] not in done.stdout + done.stderr
    (fact,) = json.loads(outputs[2].stdout)["keys"]
    assert fact["provider"] == "anthropic"
    path = home / "keys" / "anthropic"
    if fact["where"] == str(path):  # no keyring on this host
        assert path.read_text().strip() == SECRET
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700


def test_remove(home: Path, inbounds) -> None:
    inbounds("key", "add", "openai", stdin=SECRET)
    assert json.loads(inbounds("key", "remove", "openai", "--json").stdout) == {"removed": "openai"}
    assert json.loads(inbounds("key", "list", "--json").stdout) == {"keys": []}
    again = inbounds("key", "remove", "openai")
    assert again.returncode == 100
    assert "inbounds key list" in again.stderr


@pytest.mark.parametrize("args", [("openai", SECRET), (SECRET,), ("openai", SECRET, "--json")])
def test_a_key_among_the_arguments_is_refused_and_not_repeated(home: Path, inbounds, args: tuple[str, ...]) -> None:
    done = inbounds("key", "add", *args, stdin="")
    assert done.returncode == 100
    assert SECRET not in done.stdout + done.stderr
    assert not list((home / "keys").glob("*"))


@pytest.mark.parametrize("held", ["", "two words", "sk-ant-oat01-subscription-token-of-a-login", "x" * 5_000, "käse"])
def test_what_can_be_no_key_is_refused_without_repeating_it(home: Path, inbounds, held: str) -> None:
    done = inbounds("key", "add", "anthropic", stdin=held)
    assert done.returncode == 100
    assert not held or held not in done.stdout + done.stderr
    assert json.loads(inbounds("key", "list", "--json").stdout) == {"keys": []}


def test_the_prompt_shows_nothing_of_what_is_typed(home: Path) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", sys.executable, "-m", "inbounds", "key", "add", "anthropic"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "INBOUNDS_HOME": str(home)},
    )
    os.close(slave)
    shown, deadline = b"", time.monotonic() + 20
    try:
        while b"not shown" not in shown and time.monotonic() < deadline:
            shown += os.read(master, 1_024)
        os.write(master, SECRET.encode() + b"\n")
        while process.poll() is None and time.monotonic() < deadline:
            try:
                shown += os.read(master, 1_024)
            except OSError:  # the terminal's other end is closed
                break
        assert process.wait(10) == 0, shown
    finally:
        process.kill()
        process.wait()
        os.close(master)
    assert b"is kept in" in shown
    assert SECRET.encode() not in shown


def test_a_key_of_the_environment_is_listed_by_its_variable(home: Path, inbounds, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    done = inbounds("key", "list")
    assert "$OPENAI_API_KEY" in done.stdout
    assert SECRET not in done.stdout
