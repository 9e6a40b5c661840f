"""The flags that say what a run shall do and may use: the same for `run` and `plan`, so that a signed plan is found.

Only words; what they mean is `run.order`'s.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_FLAGS = (
    click.argument("directory", default=".", type=click.Path(path_type=Path)),
    click.option("--goal", default="", help="What the agent shall reach; drafts a requirement and a plan."),
    click.option("--accept", multiple=True, metavar="TEST", help="A test that must pass, e.g. tests/x.py::test_y."),
    click.option("--target", "targets", multiple=True, metavar="GLOB",
                 help="Where it may write (default: the thread)."),
    click.option("--agent", default="", help="reference, claude, codex (default: the first that is installed)."),
    click.option("--model", default="", help="The model, as the provider names it."),
    click.option("--budget", default="", metavar="USD", help="Dollars at most; narrows the policy's."),
    click.option("--for", "duration", default="", metavar="TIME", help="Wall-clock time at most, e.g. 30m."),
    click.option("--iterations", type=click.IntRange(min=1), help="Iterations at most."),
)  # fmt: skip


def work_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """DIRECTORY and the flags of a run, in the order in which they are read."""
    for flag in reversed(_FLAGS):
        function = flag(function)
    return function
