"""Asking the person at the keyboard before something is signed or thrown away; nobody there means no.

Knows the question and what to type instead, not what is agreed to.
"""

import click

from inbounds.cli.output import is_terminal
from inbounds.contracts.errors import OperatorError


def consent(question: str, *, yes: bool, instead: str, purpose: str = "to sign") -> bool:
    """Whether the person agrees; `yes` is --yes, `instead` the command to type where there is no terminal."""
    if yes:
        return True
    if not is_terminal():
        raise OperatorError(f"nobody is here {purpose}", expected="a terminal or --yes", fix=f"{instead} --yes")
    return click.confirm(question, default=False)
