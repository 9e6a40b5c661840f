"""`inbounds key`: provider keys, in the system's keyring or a 0600 file; read from stdin or a hidden prompt only.

A key is never an argument (every user of a host can read argv) and never printed.
"""

import re
import sys
from typing import TYPE_CHECKING

import click

from inbounds.cli.output import emit, say

if TYPE_CHECKING:
    from inbounds.gateway.keys import KeyStore

NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")  # as KeyStore takes them; keys are longer, or have capitals
STDIN_BYTES_MAX = 8_192  # twice the longest key taken


EPILOG = """\b
  inbounds key add anthropic                 typed at a hidden prompt
  pass show anthropic | inbounds key add anthropic
  inbounds key list"""


@click.group(epilog=EPILOG)
def command() -> None:
    """Provider keys: add, list, remove; never printed."""


@command.command("add")
@click.argument("provider")
@click.argument("rest", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def add(provider: str, rest: tuple[str, ...], as_json: bool) -> None:
    """Keep a key of PROVIDER (anthropic, openai, …), typed at a hidden prompt or piped in."""
    from inbounds.contracts.errors import OperatorError

    if rest or not _named(provider):
        raise OperatorError(
            "a key among the arguments: every user of this host could read it, and it is in the shell's history now"
            if rest
            else "a provider that is no name (a key, perhaps: it is not repeated here)",
            expected="a name such as anthropic or openai, and the key on standard input or at the prompt",
            fix="inbounds key add anthropic   (and replace a key that was typed here at its provider)",
        )
    store = _store()
    if sys.stdin.isatty():
        held = str(click.prompt(f"Key of {provider} (not shown)", hide_input=True))
    else:
        held = sys.stdin.read(STDIN_BYTES_MAX)
    fact = store.add(provider, held)
    if as_json:
        emit({"provider": fact.provider, "where": fact.where})
    else:
        say(f"the key of {fact.provider} is kept in {fact.where}")


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def show(as_json: bool) -> None:
    """Which providers have a key, and where it lies."""
    facts = [{"provider": fact.provider, "where": fact.where} for fact in _store().list()]
    if as_json:
        emit({"keys": facts})
        return
    for fact in facts:
        say(f"{fact['provider']:12} {fact['where']}")
    if not facts:
        say("no key; type: inbounds key add anthropic")


@command.command("remove")
@click.argument("provider")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def remove(provider: str, as_json: bool) -> None:
    """Forget the stored key of PROVIDER."""
    from inbounds.contracts.errors import OperatorError

    if not _named(provider):
        raise OperatorError("a provider that is no name", fix="inbounds key list")
    if not _store().remove(provider):
        raise OperatorError(f"no key of {provider} is stored", fix="inbounds key list")
    if as_json:
        emit({"removed": provider})
    else:
        say(f"the key of {provider} is gone from this host; at the provider it still works until it is revoked")


def _store() -> "KeyStore":
    from inbounds.gateway.keys import KeyStore
    from inbounds.run.home import open_home

    return KeyStore(open_home().keys)


def _named(provider: str) -> bool:
    """Whether it can be shown: whoever swapped or forgot an argument has put the key here."""
    from inbounds.gateway.settings import BUILT_IN

    return provider in BUILT_IN or (NAME.fullmatch(provider) is not None and not provider.startswith("sk-"))
