"""`inbounds init`: look at host and repository, build the dependency layer, pin what fails today, write few files."""

import shlex
from pathlib import Path

import click

from inbounds.cli.output import emit, say
from inbounds.console.plain import visible

EPILOG = """\b
  inbounds init             this repository (or the directory you are in, as a thread of its own)
  inbounds init billing     one directory of a larger repository

It looks for agents, test commands, manifests, owners (CODEOWNERS, git) and your SSH signing key (one is made where you
have none), builds the dependency layer, runs the tests once in a jail, and pins what fails today. It writes
.inbounds/policy.yaml and .inbounds/config.yaml, leaves files alone that are there, and asks nothing."""


@click.command(epilog=EPILOG)
@click.argument("directory", default=".", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def command(directory: Path, as_json: bool) -> int:
    """Set this repository up; asks nothing that can be found."""
    from inbounds.run.beginning import begin
    from inbounds.run.home import open_home

    facts = begin(open_home(), directory, say=(lambda _: None) if as_json else say)
    if as_json:
        emit(facts)
        return 0
    say("")
    for path in facts["written"]:
        say(f"wrote {path}")
    for path in facts["kept"]:
        say(f"kept {path} (it was there)")
    say(f"operator   {facts['operator']} ({facts['operator_key_from']})")
    # names and owners are the repository's words: one line each, whatever is in them
    say(f"owner      {visible(facts['owner'])} (from {visible(facts['owner_from'])})")
    say(f"tests      {visible(' '.join(facts['command']))} (from {visible(facts['tests_from'])})")
    say(f"layer      {facts['layer'][:12]} from {visible(', '.join(facts['manifests'])) or 'the test runner alone'}")
    say(f"agents     {', '.join(facts['agents']) or 'none found but the reference agent'}")
    say(
        f"host       level {facts['level']}"
        + (f": {facts['problem']}; type: {facts['fix']}" if facts["problem"] else "")
    )
    failing = facts["failing"]
    if facts["tests_problem"]:
        say(f"failing    not known: {visible(facts['tests_problem'])}")
    elif failing:
        say(f"failing    {len(failing)} test(s) today, pinned as known:")
        for test in failing[:20]:
            say(f"             {visible(test)}")
    else:
        say("failing    no test fails today")
    say("")
    say(f'next: inbounds run . --goal "…" --accept {shlex.quote(failing[0]) if failing else "tests/x.py::test_y"}')
    return 0
