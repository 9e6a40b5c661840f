"""`inbounds demo`: three real runs in the bundled example repository, and one rolled back."""

import os
import time

import click

from inbounds.cli.output import emit, say

EPILOG = """\b
  inbounds demo                              no key, no provider, no question
  inbounds demo --json
  ANTHROPIC_API_KEY=… inbounds demo --live   acts 1 and 3 with a real provider and agent, for some cents

(1) an honest run lands, (2) an agent that goes out of its bounds is stopped, (3) a model that loops expensively ends
below its cap; then act 1 is rolled back. Exit code 0 if all of it came out as it must."""


@click.command(epilog=EPILOG)
@click.option("--live", is_flag=True, default=lambda: os.environ.get("LIVE") == "1", help="Use the real provider.")
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
def command(live: bool, as_json: bool) -> int:
    """Play an honest, a hostile and an expensive run with the full containment that this host allows."""
    from inbounds.demo import acts, stage
    from inbounds.demo import live as real
    from inbounds.run import decision
    from inbounds.run.home import open_home

    home = open_home()
    tell = (lambda _: None) if as_json else say
    chosen = real.choose(home) if live else None
    if chosen:
        tell(f"Acts 1 and 3 use {chosen.agent} with {chosen.model} of your provider, for some cents.")
    started = time.monotonic()
    on = stage.build(home.path)
    tell(f"The example repository is at {on.repository}")
    controls = acts.control()
    tell(f"Positive control: without a jail the hostile agent succeeds at {', '.join(controls)}.")
    played = []
    for number, act in enumerate(acts.ACTS, 1):
        tell(f"\nAct {number}: {act.title}")
        played.append(acts.play(home, act, on, tell, chosen))
    if played[0]["stop_code"] == "DONE":
        tell(f"\nRolling act 1 back: inbounds rollback {played[0]['run_id']}")
        undone = decision.roll_back(home, played[0]["run_id"])
        tell(f"  {undone['outcome']}: development is at {undone['commit'][:12]}")
        played[0]["verified"] = acts.verified(home, played[0]["run_id"])
    as_expected = all(
        fact["stop_code"] == act.expected
        and not fact["escaped"]
        and fact["verified"]
        and fact["cost_usd"] <= fact["budget_usd"]
        for act, fact in zip(acts.ACTS, played, strict=True)
    )
    if as_json:
        emit({"acts": played})
    else:
        _table(played)
        say(f"{'As expected' if as_expected else 'NOT as expected'}, {time.monotonic() - started:.0f} s.")
    return 0 if as_expected else 1


def _table(played: list[dict[str, object]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title="What the three acts came to", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("act", "stopped with", "it.", "failing", "spent of", "escaped", "verified"):
        table.add_column(name, no_wrap=True)  # 78 columns: a terminal has 80
    for number, act in enumerate(played, 1):
        table.add_row(
            str(number),
            str(act["stop_code"]),
            str(act["iterations"]),
            f"{act['tests_failing_before']}→{act['tests_failing_after']}",
            f"${act['cost_usd']:.4f}/{act['budget_usd']:.2f}",
            str(len(act["escaped"]) if isinstance(act["escaped"], list) else "?"),
            "yes" if act["verified"] else "NO",
        )
    Console().print(table)
    for number, act in enumerate(played, 1):
        say(f"report {number}: {act['report']}")
