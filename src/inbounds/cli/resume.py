"""`inbounds resume`: show why a run stopped, take the signature without which nothing goes on (E14), and go on."""

from typing import Any

import click

from inbounds.cli.consent import consent
from inbounds.cli.flags import limit_flags, limits_text
from inbounds.cli.output import emit, say

EPILOG = """\b
  inbounds resume RUN --note "the task needs more money" --budget 10
  inbounds resume RUN --sign-only      add your signature, where policy wants several

A stopped run never goes on by itself. Your signature is bound to this very stop; limits that are used up are raised
in the same breath, by an amendment of their own. Work goes on from the last checkpoint to which no judge objected."""


@click.command(epilog=EPILOG)
@click.argument("run", required=False)
@limit_flags
@click.option("--note", default="", help="Why it may go on.")
@click.option("--yes", is_flag=True, help="Sign without asking again.")
@click.option("--sign-only", is_flag=True, help="Record the signature; start nothing.")
@click.option("--detach", is_flag=True, help="Return once the supervisor runs.")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def command(run: str | None, note: str, yes: bool, sign_only: bool, detach: bool, as_json: bool, **flags: Any) -> int:
    """Re-authorize RUN (the latest by default) after its stop, with your SSH key, and go on.

    Exit code: as `inbounds run`; 1 where it was not signed or more signatures are needed.
    """
    from inbounds.contracts.errors import RefusedError
    from inbounds.run import decision, onward
    from inbounds.run.home import open_home

    home = open_home()
    run_id = home.find(run)
    asked = decision.reauthorization(home, run_id, note)
    said = limits_text(flags)
    amendment = onward.amend(home, run_id, said, note) if said else None
    used_up = onward.still_exhausted(home, run_id, amendment)
    if not as_json:
        say(f"{run_id} stopped with {asked['stop_code']}: {asked['why']}")
        say(f"  what stands: {asked['commit'][:12] or 'no commit'} on {asked['branch']}")
        if amendment:
            say(f"  amended:     {', '.join(sorted(key for key, value in flags.items() if value))}")
    if used_up and not sign_only:
        raise RefusedError(
            f"{', '.join(used_up)} would end the run again at once",
            where=run_id,
            expected="higher limits, signed with the re-authorization",
            fix=f"inbounds resume {run_id} " + " ".join(f"--limit {name}=…" for name in used_up),
        )
    if not consent("Re-authorize this run with your SSH key?", yes=yes, instead=f"inbounds resume {run_id}"):
        return 1
    if amendment:
        onward.sign_amendment(home, run_id, amendment)
    kept = decision.sign(home, run_id, asked)
    have, want = onward.missing_approvals(home, run_id)
    if as_json and (sign_only or have < want):
        emit({**kept, "approvals": have, "wanted": want})
    elif not as_json:
        say(f"re-authorized by {kept['operator']} ({have} of {want} signatures).")
    if have < want:
        return 1
    if sign_only:
        return 0
    return _go_on(home, run_id, detach=detach, as_json=as_json)


def _go_on(home: Any, run_id: str, *, detach: bool, as_json: bool) -> int:
    from inbounds.cli.run import follow
    from inbounds.run import onward
    from inbounds.run.launch import JOURNAL

    since = (home.run(run_id) / JOURNAL).stat().st_size
    started = onward.start(home, run_id, "resume")
    if detach:
        facts = {"run_id": run_id, "run_dir": str(started.run_dir), "pid": started.process.pid}
        emit(facts) if as_json else say(f"{run_id} goes on; type: inbounds logs {run_id} --follow")
        return 0
    return follow(home, started, as_json=as_json, since=since)
