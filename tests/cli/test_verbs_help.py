"""Help that teaches, completion that works, a start that is not felt; for every verb."""

import importlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from inbounds.cli.main import VERBS


def commands() -> Iterator[tuple[str, click.Command]]:
    for verb, (module, _) in VERBS.items():
        command = importlib.import_module(module).command
        yield verb, command
        if isinstance(command, click.Group):
            yield from ((f"{verb} {name}", one) for name, one in command.commands.items())


def complete(*words: str) -> set[str]:
    """What bash would offer for the last word."""
    env = {**os.environ, "_INBOUNDS_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["inbounds", *words]),
           "COMP_CWORD": str(len(words))}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "inbounds"], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return {line.partition(",")[2] for line in done.stdout.splitlines()}


def cpu_seconds(*argv: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *argv], capture_output=True, timeout=60, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_shows_how_it_is_typed(inbounds, verb: str) -> None:
    done = inbounds(verb, "--help")
    assert done.returncode == 0
    examples = [line for line in done.stdout.splitlines()[1:] if line.startswith("  ") and f"inbounds {verb}" in line]
    assert examples, done.stdout
    assert "Traceback" not in done.stderr


def test_every_option_and_every_command_says_what_it_is_for() -> None:
    for name, command in commands():
        assert command.help, name
        for option in command.params:
            assert not isinstance(option, click.Option) or option.help, f"{name} {option.name}"


def test_every_line_of_an_example_is_one_that_the_parser_takes() -> None:
    """Options named in an epilog exist: an example that is wrong teaches nothing."""
    for name, command in commands():
        known = {word for _, one in commands() for parameter in one.params for word in parameter.opts}
        known |= {word for _, one in commands() for parameter in one.params for word in parameter.secondary_opts}
        epilog = (command.epilog or "").replace("python -m pytest -q", "")
        examples = [line for line in epilog.splitlines() if line.startswith("  ") and "inbounds " in line]
        used = {word for line in examples for word in line.split() if word.startswith("--") and word != "--"}
        assert used <= known, f"{name}: {used - known}"


def test_bash_completes_verbs_and_options() -> None:
    assert complete("re") == {"review", "resume", "recover"}
    assert complete("plan", "") == {"draft", "show", "sign"}
    assert "--accept" in complete("run", "--acc")
    assert {"coder", "tester"} == complete("shell", "--role", "")


def test_bash_is_given_a_completion_script() -> None:
    env = {**os.environ, "_INBOUNDS_COMPLETE": "bash_source"}
    done = subprocess.run(
        [sys.executable, "-m", "inbounds"], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert "complete -o nosort -F _inbounds_completion inbounds" in done.stdout
    checked = subprocess.run(["bash", "-n"], input=done.stdout, text=True, capture_output=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stderr


def test_help_costs_little_more_than_the_parser_itself() -> None:
    """About 70 ms here, of which click's own import is most; a machine's load does not count, processor time does."""
    own = min(cpu_seconds("-m", "inbounds", "--help") for _ in range(5))
    parser = min(cpu_seconds("-c", "import click") for _ in range(5))
    assert own < 2 * parser + 0.05, f"{own:.3f} s against {parser:.3f} s"
