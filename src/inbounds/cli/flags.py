"""The flags that say what a run shall do and may use: the same for `run` and `plan`, so that a signed plan is found.

And those that amend limits, the same for `amend` and `resume`. Only words; what they mean is `run/`'s.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from inbounds.contracts.documents import LimitsText

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


_LIMITS = (
    click.option("--budget", default="", metavar="USD", help="Dollars at most, those already spent included."),
    click.option("--for", "duration", default="", metavar="TIME", help="Wall-clock time since the run began, e.g. 8h."),
    click.option("--iterations", type=click.IntRange(min=1), help="Iterations at most, those already made included."),
    click.option("--limit", "limits", multiple=True, metavar="KEY=VALUE", help="Any limit, e.g. tool_calls=5000."),
)


def limit_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """The flags of an amendment."""
    for flag in reversed(_LIMITS):
        function = flag(function)
    return function


def limits_text(flags: dict[str, Any]) -> "LimitsText | None":
    """What `limit_flags` took, as a limits section; None where nothing was said. OperatorError for an unknown key."""
    import msgspec

    from inbounds.contracts.documents import LimitsText
    from inbounds.contracts.errors import OperatorError
    from inbounds.contracts.limits import BY_KEY

    said: dict[str, Any] = {}
    for pair in flags["limits"]:
        key, _, value = pair.partition("=")
        if key not in BY_KEY or not value:
            raise OperatorError(f"--limit {pair}", expected="KEY=VALUE with one of: " + ", ".join(BY_KEY))
        said[key] = int(value) if value.isascii() and value.isdigit() else value
    named = {"budget_usd": flags["budget"], "wall_clock": flags["duration"], "iterations": flags["iterations"]}
    said.update({key: value for key, value in named.items() if value})
    if not said:
        return None
    try:
        return msgspec.convert(said, LimitsText)
    except msgspec.ValidationError as error:
        raise OperatorError(f"--limit: {error}", expected="KEY=VALUE, such as tool_calls=5000") from None
