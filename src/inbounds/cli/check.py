"""`inbounds check`: do the contracts hold, what is vague in them, and where does each value come from?"""

from pathlib import Path

import click

from inbounds.cli.output import emit, say

EPILOG = """\b
  inbounds check .           every limit, its value, and the file and line (or flag) it comes from
  inbounds check . --json"""


@click.command(epilog=EPILOG)
@click.argument("directory", default=".", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def command(directory: Path, as_json: bool) -> None:
    """Check the contracts of the thread in DIRECTORY."""
    from inbounds.contracts.limits import RULES
    from inbounds.contracts.units import show_duration, show_usd
    from inbounds.run import bind, documents
    from inbounds.run.base import find_base, place

    top, thread = place(directory)
    found = documents.read(top, thread)
    facts: dict[str, object] = {"repository": str(top), "thread": thread, "owner": found.config.owner}
    remarks: list[dict[str, str]] = []
    if found.plan is not None:
        base = find_base(top, found)
        work = bind.choose_work(found, bind.Wish(), base, found.config.owner)
        bind.check_work(found, work)
        bind.pin(base, tuple(a.test for r in work.requirements for a in r.acceptance))
        remarks = [{"requirement": r.requirement, "field": r.field, "why": r.why} for r in bind.all_remarks(work)]
        facts["plan"] = work.plan.plan_id
    else:
        work = bind.no_work(found)
        facts["plan"] = None
    limits, sources = bind.narrow(found, work, bind.Wish())
    values = limits.as_json()
    facts["limits"] = {r.key: {"value": values[r.field], "from": sources[r.key], "why": r.why} for r in RULES}
    facts["remarks"] = remarks
    if as_json:
        emit(facts)
        return
    say(f"{thread} of {top}: the contracts hold (owner {found.config.owner}, plan {facts['plan'] or 'none'})")
    for rule in RULES:
        shown = str(values[rule.field])
        if rule.field.endswith("_ms"):
            shown = show_duration(values[rule.field])
        elif rule.field.endswith("_usd"):
            shown = f"${show_usd(values[rule.field])}"
        say(f"  {rule.key:13} {shown:>14}  from {sources[rule.key]}")
    for remark in remarks:
        say(f"  {remark['requirement']} {remark['field']}: {remark['why']}")
