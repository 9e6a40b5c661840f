"""The command itself: --help imports nothing heavy, exit codes are as published, errors are facts for --json."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from inbounds.cli.main import VERBS

HEAVY = {
    "rich", "msgspec", "aiohttp", "jinja2", "yaml", "uvloop", "sqlite3", "genai_prices", "bandit", "asyncio",
    "keyring", "defusedxml", "cryptography", "inotify_simple",
}  # fmt: skip


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["-h"]])
def test_help_imports_nothing_heavy(args: list[str], home: Path) -> None:
    program = f"""
import sys
from inbounds.cli.main import main
try:
    main({args!r})
except SystemExit as done:
    assert not done.code, done.code
loaded = {{name.partition('.')[0] for name in sys.modules}}
ours = [name for name in sys.modules if name.startswith('inbounds.') and name.split('.')[1] not in ('cli', 'contracts')]
print('LOADED', sorted(loaded & {HEAVY!r}), ours)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines()[-1] == "LOADED [] []", done.stdout + done.stderr
    assert not home.exists()


@pytest.mark.parametrize("verb", ["status", "logs", "review", "verify", "budget", "key", "doctor"])
def test_a_verbs_help_is_as_light_and_touches_nothing(verb: str, home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "inbounds", verb, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "INBOUNDS_HOME": str(home)},
    )
    assert done.returncode == 0
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "click" in loaded
    assert not loaded & HEAVY
    assert "Usage: inbounds" in done.stdout
    assert not home.exists()


def test_every_verb_is_listed_with_one_line(inbounds) -> None:
    shown = inbounds("--help").stdout
    for verb, (_, line) in VERBS.items():
        assert f"  {verb} " in shown
        assert line.split()[0] in shown


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "shell"])
def test_every_verb_that_prints_facts_takes_json(verb: str) -> None:
    command = importlib.import_module(VERBS[verb][0]).command
    for one in command.commands.values() if isinstance(command, click.Group) else [command]:
        options = {name for parameter in one.params for name in parameter.opts}
        assert "--json" in options, f"{verb} {one.name}"


@pytest.mark.parametrize(
    ("args", "code"),
    [(["nonsense"], 100), (["status", "--nonsense"], 100), (["verify", "a", "b"], 100), (["logs"], 100)],
)
def test_mistakes_exit_100(inbounds, args: list[str], code: int) -> None:
    done = inbounds(*args)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert done.stderr


def test_a_fault_is_facts_for_json(inbounds, home: Path) -> None:
    done = inbounds("verify", "--json")
    told = json.loads(done.stdout)
    assert told["exit"] == done.returncode == 100
    assert told["error"]["found"] == "there is no run yet"
    assert told["error"]["fix"].startswith("inbounds run")


@pytest.mark.skipif(os.geteuid() != 0, reason="making a directory of another user's takes root")
def test_a_state_directory_of_somebody_else_is_the_hosts_fault(inbounds, home: Path) -> None:
    home.mkdir()
    os.chown(home, 4242, 4242)
    done = inbounds("status")
    assert done.returncode == 111
    assert "INBOUNDS_HOME" in done.stderr
