"""`inbounds budget`: the ledger's own figures; what is reserved or in doubt counts as spent."""

import json
from pathlib import Path

import evidence
import pytest

from inbounds.gateway.ledger import Account, Ask, Grant, RunAccount, ScopeCap
from inbounds.gateway.schema import open_ledger, transaction
from inbounds.gateway.usage import Usage

MONTH = "2026-11"


@pytest.fixture
def ledger(home: Path) -> str:
    """A ledger with one run that settled $0.30, has $0.20 reserved and $0.25 in doubt, under a cap of $1."""
    run = evidence.write(home, evidence.good_run()[:6]).name
    path = str(home / "ledger.sqlite")
    scopes = (
        ScopeCap("run", run, False, 1_000_000, None),
        ScopeCap("thread", "shop:billing", True, None, None),
        ScopeCap("organisation", "default", True, 800_000, None),
    )
    connection = open_ledger(path)
    account = Account(connection, RunAccount(run, "shop:billing", (), "default", "UTC", scopes))

    def reserve(tokens: int) -> int:
        ask = Ask("coder", "openai-chat", "m", "openai", 0, 0, 1_000_000, tokens, tokens, patient=False)
        made = account.reserve(ask, MONTH, 0)
        assert isinstance(made, Grant)
        return made.reservation

    with transaction(connection):
        account.open(0)
        settled, doubted, _ = reserve(300_000), reserve(250_000), reserve(200_000)
        account.settle(settled, Usage(input_tokens=1, output_tokens=2), 300_000, 4, 1)
        account.doubt(doubted, "the stream broke", 0, 1)
    connection.close()
    return run


def test_nothing_spent_yet(home: Path, inbounds) -> None:
    done = inbounds("budget")
    assert (done.returncode, done.stdout) == (0, "nothing was spent yet\n")
    assert not (home / "ledger.sqlite").exists()


@pytest.mark.req("G6")
def test_the_figures_are_the_ledgers(ledger: str, inbounds) -> None:
    rows = {row["kind"]: row for row in json.loads(inbounds("budget", "--json").stdout)["rows"]}
    run = rows["run"]
    assert run["name"] == ledger
    assert (run["settled_micro_usd"], run["reserved_micro_usd"], run["in_doubt_micro_usd"]) == (
        300_000,
        200_000,
        250_000,
    )
    assert (run["spent_micro_usd"], run["left_micro_usd"], run["percent"], run["state"]) == (
        750_000,
        250_000,
        75,
        "warning",
    )
    assert (rows["organisation"]["percent"], rows["organisation"]["state"]) == (93, "escalation")
    assert (rows["thread"]["cap_micro_usd"], rows["thread"]["state"]) == (None, "no cap")
    text = inbounds("budget").stdout
    for expected in (ledger, "$0.75", "$1.00", "$0.20", "$0.25", "escalation", "shop:billing"):
        assert expected in text


def test_one_run_and_one_month(ledger: str, inbounds) -> None:
    assert [row["kind"] for row in json.loads(inbounds("budget", "a1b2c3", "--json").stdout)["rows"]] == ["run"]
    rows = json.loads(inbounds("budget", "--month", MONTH, "--json").stdout)["rows"]
    assert sorted(row["kind"] for row in rows) == ["organisation", "thread"]
    assert json.loads(inbounds("budget", "--month", "2026-10", "--json").stdout)["rows"] == []


@pytest.mark.parametrize("month", ["november", "2026-13", "2026-1", "2026-11 OR 1=1"])
def test_what_is_no_month_is_refused(ledger: str, inbounds, month: str) -> None:
    assert inbounds("budget", "--month", month).returncode == 100


def test_looking_does_not_wait_for_a_gateway_that_writes(ledger: str, home: Path, inbounds) -> None:
    connection = open_ledger(str(home / "ledger.sqlite"))
    try:
        connection.execute("BEGIN IMMEDIATE")
        assert inbounds("budget", timeout=8).returncode == 0
    finally:
        connection.close()


def test_a_file_that_is_no_ledger_is_the_hosts_fault(home: Path, inbounds) -> None:
    inbounds("status")
    (home / "ledger.sqlite").write_bytes(b"no database, but long enough to be read as one" * 100)
    done = inbounds("budget")
    assert done.returncode == 111
    assert "ledger" in done.stderr
