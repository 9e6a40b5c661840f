"""`inbounds amend`: sign new limits for one run, while it works or after it stopped (E8, M8)."""

from typing import Any

import click

from inbounds.cli.consent import consent
from inbounds.cli.flags import limit_flags, limits_text
from inbounds.cli.output import emit, say

EPILOG = """\b
  inbounds amend RUN --budget 10 --note "worth it"
  inbounds amend RUN --for 8h --limit tool_calls=5000

The new version of the limits is signed with your SSH key and stands in the run's journal; it answers an escalation."""


@click.command(epilog=EPILOG)
@click.argument("run", required=False)
@limit_flags
@click.option("--note", default="", help="Why.")
@click.option("--yes", is_flag=True, help="Sign without asking again.")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def command(run: str | None, note: str, yes: bool, as_json: bool, **flags: Any) -> int:
    """Change limits of RUN (the latest by default); signed, bound to this run and to the version before.

    Exit code: 0 signed and handed over, 1 not signed.
    """
    from inbounds.contracts.errors import OperatorError
    from inbounds.contracts.limits import RULES, from_json
    from inbounds.run import onward
    from inbounds.run.home import open_home

    home = open_home()
    run_id = home.find(run)
    said = limits_text(flags)
    if said is None:
        raise OperatorError("no limit is named", expected="--budget, --for, --iterations or --limit KEY=VALUE",
                            fix="inbounds amend --help")  # fmt: skip
    before = onward.state_of(home, run_id).limits
    statement = onward.amend(home, run_id, said, note)
    after = from_json(statement["limits"])
    if not as_json:
        for rule in RULES:
            old, new = getattr(before, rule.field), getattr(after, rule.field)
            if old != new:
                say(f"  {rule.key}: {rule.written(old)} → {rule.written(new)}")
    if not consent("Sign these limits with your SSH key?", yes=yes, instead=f"inbounds amend {run_id} …"):
        return 1
    name = onward.sign_amendment(home, run_id, statement)
    if as_json:
        emit({"run_id": run_id, "version": statement["version"], "operator": name, "limits": statement["limits"]})
    else:
        say(f"version {statement['version']} of the limits is signed by {name}.")
    return 0
