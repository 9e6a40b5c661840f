"""How verbs print: JSON for machines, one plain line each for people; control characters are shown, never obeyed."""

import json
import sys
from typing import Any

from inbounds.console.plain import visible


def emit(facts: Any) -> None:
    """Facts for --json: one document on stdout."""
    print(json.dumps(facts, indent=2, sort_keys=False, ensure_ascii=True))


def say(text: str, *, aside: bool = False) -> None:
    """A line for a person; `aside` puts it on stderr, where stdout is for a machine."""
    print("\n".join(visible(line) for line in text.split("\n")), file=sys.stderr if aside else sys.stdout, flush=True)


def is_terminal() -> bool:
    """Whether a person sees this and can answer."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def can_ask(*, aside: bool = False) -> bool:
    """Whether a person can see a question (on stderr if `aside`) and answer it."""
    return sys.stdin.isatty() and (sys.stderr if aside else sys.stdout).isatty()
