"""`inbounds plan`: the work plan that a run's flags stand for: drafted, shown, signed. Starts nothing.

The same flags always give the same plan, so that a signature given here is found by `run --yes`.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inbounds.cli.flags import work_flags
from inbounds.cli.output import can_ask, emit, say

if TYPE_CHECKING:
    from inbounds.run.order import Ordered

EPILOG = """\b
  inbounds plan draft . --goal "…" --accept tests/test_x.py::test_y
  inbounds plan show . --goal "…" --accept tests/test_x.py::test_y
  inbounds plan sign . --goal "…" --accept tests/test_x.py::test_y

Without --goal the plan of the thread's own files is meant. A signature holds for exactly this plan: the
goal, the tests with their content, targets, limits, agent, and the policy and thread files; any change voids it."""
SIGN_EPILOG = """\b
Sign today what shall run tonight:
  inbounds plan sign . --goal "Charge a surcharge" --accept tests/test_x.py::test_y --budget 5
  inbounds run . --goal "Charge a surcharge" --accept tests/test_x.py::test_y --budget 5 --yes --detach"""
DRAFT_EPILOG = """\b
  inbounds plan draft . --goal "Charge a surcharge" --accept tests/test_x.py::test_y          (prints it)
  inbounds plan draft . --goal "Charge a surcharge" --accept tests/test_x.py::test_y --write  (to edit and commit)"""


@click.group(epilog=EPILOG)
def command() -> None:
    """Draft, show or sign a work plan."""


@command.command("show", epilog=EPILOG)
@work_flags
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def show(directory: Path, as_json: bool, **flags: Any) -> None:
    """Contract and blast radius of the plan, and whether it is signed."""
    from inbounds.cli.run import show as show_screen

    made, signer = _ordered(directory, flags, aside=as_json)
    if as_json:
        emit(_facts(made, signer))
        return
    show_screen(made, aside=False)
    say(f"signed by {signer}" if signer else "not signed; type: inbounds plan sign … with the same flags")


@command.command("draft", epilog=DRAFT_EPILOG)
@work_flags
@click.option("--write", is_flag=True, help="Keep it as the thread's requirements.yaml and WORK_PLAN.json.")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def draft(directory: Path, write: bool, as_json: bool, **flags: Any) -> None:
    """Requirement and plan as the flags draft them: no model is asked, the same flags give the same bytes."""
    from inbounds.run.drafting import draft_files, write_files
    from inbounds.run.home import open_home
    from inbounds.run.order import Order

    files = draft_files(open_home(), Order.from_flags(directory, **flags))
    written = write_files(directory, files) if write else []
    if as_json:
        emit({"files": files, "written": written})
        return
    for name, text in files.items():
        say(f"wrote {name}" if write else f"# {name}\n{text}")


@command.command("sign", epilog=SIGN_EPILOG)
@work_flags
@click.option("--yes", is_flag=True, help="Sign without asking; you have read it with inbounds plan show.")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def sign(directory: Path, yes: bool, as_json: bool, **flags: Any) -> int:
    """Sign the plan with your SSH key; `inbounds run --yes` with the same flags then starts it."""
    from inbounds.cli.run import show as show_screen
    from inbounds.contracts.errors import EXIT_REFUSED, OperatorError
    from inbounds.run import authorize
    from inbounds.run.home import open_home

    if not yes and not can_ask(aside=as_json):
        raise OperatorError(
            "nobody is here to sign", expected="a terminal or --yes", fix="inbounds plan show …, then plan sign … --yes"
        )
    made, signer = _ordered(directory, flags, aside=as_json)
    if not yes:
        show_screen(made, aside=as_json)
        if not click.confirm("Sign this plan with your SSH key?", default=False, err=as_json):
            return EXIT_REFUSED
    contract = made.contract
    armored = authorize.sign(open_home(), dict(contract.statement), contract.operator_keys, made.signature_file)
    signer = authorize.signed_by(dict(contract.statement), armored, contract.operator_keys, authorize.START_NAMESPACE)
    if as_json:
        emit(_facts(made, signer))
    else:
        say(f"{contract.plan.plan_id} is signed by {signer}; type: inbounds run … --yes with the same flags")
    return 0


def _ordered(directory: Path, flags: dict[str, Any], *, aside: bool) -> "tuple[Ordered, str]":
    """The bound contract, and by whom it is signed already ("" for nobody)."""
    from inbounds.run import authorize
    from inbounds.run.home import open_home
    from inbounds.run.order import Order, order

    home = open_home()
    made = order(home, Order.from_flags(directory, **flags), say=lambda line: say(line, aside=aside))
    statement, keys = dict(made.contract.statement), made.contract.operator_keys
    armored = authorize.signature_for(home, statement, keys, made.signature_file)
    return made, authorize.signed_by(statement, armored, keys, authorize.START_NAMESPACE) if armored else ""


def _facts(made: "Ordered", signer: str) -> dict[str, Any]:
    import msgspec

    contract = made.contract
    return {
        "plan_id": contract.plan.plan_id,
        "thread": contract.thread,
        "signed_by": signer,
        "statement": dict(contract.statement),
        "requirements": msgspec.to_builtins(contract.requirements),
        "plan": msgspec.to_builtins(contract.plan),
        "blast_radius": made.blast,
        "uncommitted": list(made.uncommitted),
        "remarks": list(made.remarks),
        "limits": json.loads(json.dumps(contract.limits)),
    }
