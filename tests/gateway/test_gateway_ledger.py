"""The ledger under random schedules: two runs, one month, crashes in between; the sums always hold."""

import random

import pytest

from inbounds.gateway.ledger import Account, Ask, Grant, RunAccount, ScopeCap
from inbounds.gateway.schema import open_ledger, transaction
from inbounds.gateway.usage import Usage

MONTH_CAP, RUN_CAP = 10_000, 7_000
SUMS = """SELECT COALESCE(SUM(CASE state WHEN 'settled' THEN cost_micro_usd WHEN 'released' THEN 0
    ELSE bound_micro_usd END), 0) FROM reservation WHERE run_id LIKE ? AND month LIKE ?"""


def account(path, run) -> Account:
    scopes = (
        ScopeCap("run", run, False, RUN_CAP, None),
        ScopeCap("organisation", "default", True, MONTH_CAP, None),
        ScopeCap("requirement", "FR-1", False, None, None),
    )
    return Account(open_ledger(path), RunAccount(run, "t", ("FR-1",), "default", "UTC", scopes))


@pytest.mark.req("G3", "G9")
@pytest.mark.parametrize("seed", range(12))
def test_no_schedule_overspends_or_loses_a_reservation(tmp_path, seed):
    chance = random.Random(seed)
    path = str(tmp_path / "ledger.sqlite")
    accounts = {run: account(path, run) for run in ("a", "b")}
    for one in accounts.values():
        one._db.execute("PRAGMA synchronous = OFF")  # this test is about sums, not about the disk
        one.open(0)
    held: dict[str, list[Grant]] = {"a": [], "b": []}
    for step in range(400):
        run = chance.choice("ab")
        month = "2026-11" if step < 200 else "2026-12"
        one, open_grants = accounts[run], held[run]
        with transaction(one._db):
            match chance.choice(["reserve", "reserve", "settle", "release", "doubt", "crash"]):
                case "reserve":
                    wanted = chance.randrange(1, 400)
                    patient = chance.random() < 0.5
                    ask = Ask("r", "f", "m", "u", chance.randrange(500), 10**6, 2 * 10**6, 1, wanted, patient=patient)
                    made = one.reserve(ask, month, step)
                    if isinstance(made, Grant):
                        open_grants.append(made)
                case "crash" if chance.random() < 0.1:
                    one.open(step)  # a new gateway of the same run: what was reserved is in doubt
                    open_grants.clear()
                case kind if open_grants:
                    grant = open_grants.pop(chance.randrange(len(open_grants)))
                    if kind == "settle":
                        assert one.settle(
                            grant.reservation, Usage(1, 1), chance.randrange(grant.bound_micro_usd + 1), 1, step
                        )
                    elif kind == "release":
                        assert one.release(grant.reservation, "", step)
                    else:
                        assert one.doubt(grant.reservation, "", 0, step)
        rows = one._db.execute(
            "SELECT kind, name, month, settled_micro_usd + reserved_micro_usd + unknown_micro_usd FROM scope"
        ).fetchall()
        for kind, name, of_month, spent in rows:
            run_like = name if kind == "run" else "%"
            assert one._db.execute(SUMS, (run_like, of_month or "%")).fetchone()[0] == spent, f"seed {seed} step {step}"
            assert spent <= {"run": RUN_CAP, "organisation": MONTH_CAP}.get(kind, 10**9), f"seed {seed} step {step}"


@pytest.mark.req("G3")
def test_a_new_month_begins_at_zero_and_the_old_one_is_kept(tmp_path):
    one = account(str(tmp_path / "ledger.sqlite"), "a")
    one.open(0)
    ask = Ask("r", "f", "m", "u", 6_000, 10**6, 0, 1, 1)
    assert isinstance(one.reserve(ask, "2026-11", 1), Grant)
    other = account(str(tmp_path / "ledger.sqlite"), "b")
    other.open(0)
    assert not isinstance(other.reserve(ask, "2026-11", 1), Grant)
    assert isinstance(other.reserve(ask, "2026-12", 1), Grant)


def test_a_request_costs_the_same_statements_whatever_the_history(tmp_path):
    one = account(str(tmp_path / "ledger.sqlite"), "a")
    one.open(0)
    ask = Ask("r", "f", "m", "u", 1, 0, 0, 1, 1)

    def steps() -> int:
        count = 0

        def tick() -> int:
            nonlocal count
            count += 1
            return 0

        one._db.set_progress_handler(tick, 10)
        grant = one.reserve(ask, "2026-11", 1)
        one.settle(grant.reservation, Usage(1, 1), 0, 0, 2)
        one._db.set_progress_handler(None, 0)
        return count

    first = steps()
    with transaction(one._db):
        for _ in range(5_000):
            grant = one.reserve(ask, "2026-11", 1)
            one.settle(grant.reservation, Usage(1, 1), 0, 0, 2)
    assert steps() <= first * 2
