"""What the supervisor does to a running lease: slow it down, pause it, amend it, anchor a journal; and a crash between."""

import contextlib
import http.client
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gateway_rig import Call, Provider, Running

from inbounds.contracts.errors import HostError, OperatorError
from inbounds.gateway import control, pace, schema
from inbounds.gateway.config import Caps, GatewayConfig
from inbounds.gateway.control import GatewayProcess
from inbounds.gateway.ledger import Account, Ask, Grant, anchors, spend, standing
from inbounds.gateway.program import account_of
from inbounds.gateway.schema import SCHEMA, open_ledger, transaction

Launch = Callable[..., Running]
Configure = Callable[..., GatewayConfig]
COST = 70  # of the scripted reply: 20 tokens in, 5 out
ROOM = Caps(run_micro_usd=1_000_000)


def starts_of(provider: Provider) -> list[float]:
    """When each request reached the provider."""
    seen: list[float] = []

    def play(call: Call) -> None:
        seen.append(time.monotonic())
        call.reply(call.whole())

    provider.play = play
    return seen


def span(seen: list[float]) -> float:
    """Seconds between the first and the last: what a busy machine adds to one gap, it takes from the next."""
    return max(seen) - min(seen)


# -- slow-down


def test_a_slowed_run_starts_its_requests_apart(launch: Launch, provider: Provider) -> None:
    seen = starts_of(provider)
    gateway = launch(ROOM)
    with ThreadPoolExecutor(5) as pool:
        assert [a.status for a in pool.map(lambda _: gateway.ask(), range(5))] == [200] * 5
        assert span(seen) < 1.2, "the control: without a pace they go at once"
        seen.clear()
        gateway.process.pace(400)
        assert [a.status for a in pool.map(lambda _: gateway.ask(), range(5))] == [200] * 5
        assert len(seen) == 5
        assert span(seen) > 4 * 0.4 - 0.1  # less what the way to the provider takes
        gateway.process.pace(0)
        seen.clear()
        assert [a.status for a in pool.map(lambda _: gateway.ask(), range(5))] == [200] * 5
        assert span(seen) < 1.2


def test_the_pace_counts_from_the_request_before_it_was_set(launch: Launch, provider: Provider) -> None:
    seen = starts_of(provider)
    gateway = launch(ROOM)
    gateway.ask()
    gateway.process.pace(1_000)
    gateway.ask()
    assert span(seen) > 0.8


def test_a_line_that_is_too_long_is_told_to_come_back(launch: Launch, provider: Provider) -> None:
    gateway = launch(ROOM)
    gateway.ask()
    gateway.process.pace(5_000)
    with ThreadPoolExecutor(pace.WAITING_MAX + 4) as pool:
        waiting = [pool.submit(gateway.ask) for _ in range(pace.WAITING_MAX + 4)]
        turned_away = gateway.wait("refused", 4)
        assert {(r["reason"], r["status"]) for r in turned_away} == {("paced", 429)}
        assert gateway.process.status()["waiting"] == pace.WAITING_MAX
        gateway.process.close_lease("enough")
        answers = [one.result() for one in waiting]
    late = [answer for answer in answers if answer.status == 429]
    assert len(late) == 4
    assert all(int(answer.headers["retry-after"]) >= 5 for answer in late)
    assert all("error" in answer.json for answer in late)


def test_who_would_wait_longer_than_its_client_is_not_kept(launch: Launch, provider: Provider) -> None:
    gateway = launch(ROOM)
    gateway.ask()
    gateway.process.pace(pace.WAIT_MS_MAX + 60_000)
    answer = gateway.ask()
    assert answer.status == 429
    assert int(answer.headers["retry-after"]) > pace.WAIT_MS_MAX / 1000


def test_a_close_ends_the_waiting_at_once(launch: Launch, provider: Provider) -> None:
    gateway = launch(ROOM)
    gateway.ask()
    gateway.process.pace(60_000)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(gateway.ask) for _ in range(3)]
        while gateway.process.status()["waiting"] < 3:
            time.sleep(0.01)
        began = time.monotonic()
        assert gateway.process.close_lease("the run was stopped")
        answers = [one.result() for one in waiting]
        assert time.monotonic() - began < 2
    assert [answer.status for answer in answers] == [402] * 3
    assert len(provider.seen) == 1


def test_a_client_that_left_the_line_is_not_paid_for(launch: Launch, provider: Provider) -> None:
    gateway = launch(ROOM)
    gateway.ask()
    gateway.process.pace(60_000)
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    body = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100}'
    connection.request("POST", "/v1/messages", body, {"Authorization": f"Bearer {gateway.config.token}"})
    while gateway.process.status()["waiting"] < 1:
        time.sleep(0.01)
    connection.close()
    time.sleep(0.2)
    gateway.process.pace(1)
    while gateway.process.status()["waiting"]:
        time.sleep(0.01)
    assert gateway.ask().status == 200
    assert len(provider.seen) == 2  # the first and the last: what left was never forwarded


def test_a_pace_is_bounded_and_the_same_at_both_ends(launch: Launch) -> None:
    assert control.PACE_MS_MAX == pace.INTERVAL_MS_MAX
    gateway = launch(ROOM)
    for impossible in (-1, control.PACE_MS_MAX + 1):
        with pytest.raises(OperatorError, match="a pace of"):
            gateway.process.pace(impossible)
    gateway.process.pace(control.PACE_MS_MAX)
    assert gateway.process.status()["interval_ms"] == control.PACE_MS_MAX


# -- pause


def test_a_pause_admits_nothing_and_says_that_it_passes(launch: Launch, provider: Provider) -> None:
    gateway = launch(ROOM)
    gateway.process.pause("a person is asked")
    for path in ("/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions", "/v1/responses"):
        body = {"model": "m", "messages": [], "input": []}
        answer = gateway.ask(path, body)
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
        assert b"a person is asked" in answer.raw
    assert not provider.seen
    assert {event["reason"] for event in gateway.wait("refused", 4)} == {"paused"}
    gateway.process.unpause()
    assert gateway.ask().status == 200
    assert not gateway.events("lease_closed")


def test_a_pause_leaves_alone_what_is_in_flight_and_sends_away_what_waits(launch: Launch, provider: Provider) -> None:
    reached, release = threading.Event(), threading.Event()

    def play(call: Call) -> None:
        reached.set()
        release.wait(20)
        call.reply(call.whole())

    provider.play = play
    gateway = launch(ROOM)
    with ThreadPoolExecutor(2) as pool:
        flying = pool.submit(gateway.ask)
        assert reached.wait(10)
        gateway.process.pace(60_000)
        waiting = pool.submit(gateway.ask)
        while gateway.process.status()["waiting"] < 1:
            time.sleep(0.01)
        gateway.process.pause("why")
        assert waiting.result().status == 503
        release.set()
        assert flying.result().status == 200


# -- amendments


def test_an_amendment_raises_and_lowers_the_running_lease(launch: Launch, provider: Provider) -> None:
    gateway = launch(Caps(run_micro_usd=800, tool_calls=5))
    assert [gateway.ask().status for _ in range(3)] == [200, 200, 402]  # one may cost 720 at least, and has cost 70
    assert gateway.process.amend(run_micro_usd=5_000)["caps"]["run_micro_usd"] == 5_000
    assert gateway.ask().status == 200
    told = gateway.process.amend(run_micro_usd=700, turns=9)
    assert told["caps"] == {
        "run_micro_usd": 700,
        "request_micro_usd": None,
        "request_tokens": None,
        "run_tokens": None,
        "tool_calls": 5,
        "turns": 9,
    }
    assert gateway.ask().status == 402
    gateway.wait("spent", 2)  # exhausted again, said again
    assert gateway.process.status()["cap_micro_usd"] == 700


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("request_micro_usd", 800, 5_000),
        ("request_tokens", 160, 5_000),
        ("run_tokens", 70, 5_000),
        ("tool_calls", 0, 50),
        ("turns", 0, 50),
    ],
)
def test_each_ceiling_can_be_amended(launch: Launch, provider: Provider, name: str, low: int, high: int) -> None:
    provider.play = lambda call: call.reply(call.whole(60, 40, calls=1 if name == "tool_calls" else 0))
    gateway = launch(ROOM)
    assert gateway.ask().status == 200
    before = len(provider.seen)
    gateway.process.amend(**{name: low})
    answers = [gateway.ask() for _ in range(2)]
    if name.startswith("request_"):  # a smaller request is granted within it
        assert provider.seen[-1].body["max_tokens"] < 100
    else:
        assert answers[-1].status == 402
        assert len(provider.seen) <= before + 1
    if name != "tool_calls":  # one past that ceiling closes the lease, as before
        gateway.process.amend(**{name: high})
        assert gateway.ask().status == 200
        assert provider.seen[-1].body["max_tokens"] == 100


@pytest.mark.req("G9")
def test_a_ceiling_below_what_is_spent_takes_nothing_back(launch: Launch, provider: Provider) -> None:
    reached, release = threading.Event(), threading.Event()

    def play(call: Call) -> None:
        reached.set()
        release.wait(20)
        call.reply(call.whole())

    provider.play = play
    gateway = launch(ROOM)
    with ThreadPoolExecutor(1) as pool:
        flying = pool.submit(gateway.ask)
        assert reached.wait(10)
        held = gateway.process.status()
        told = gateway.process.amend(run_micro_usd=10)
        assert told["spent_micro_usd"] == held["spent_micro_usd"] > 10
        assert gateway.ask().status == 402
        release.set()
        assert flying.result().status == 200  # what was reserved is carried through
    assert gateway.process.status()["spent_micro_usd"] == COST
    assert gateway.ask().status == 402
    assert len(provider.seen) == 1


def test_what_is_no_amendment_is_refused_and_changes_nothing(launch: Launch, provider: Provider) -> None:
    gateway = launch(ROOM)
    impossible: list[dict[str, object]] = [
        {},
        {"month_micro_usd": 5},
        {"run_micro_usd": -1},
        {"run_micro_usd": 1 << 70},
        {"turns": None},
        {"turns": True},
        {"turns": "9"},
        {"turns); DROP TABLE run; --": 1},
    ]
    for wrong in impossible:
        with pytest.raises(OperatorError):
            gateway.process.amend(**wrong)  # type: ignore[arg-type]  # which is the point
    assert gateway.ask().status == 200
    assert not gateway.events("ledger_failed")
    found = standing(gateway.config.ledger, gateway.config.run_id)
    assert found is not None
    assert found.amended == {}


def test_a_new_gateway_of_the_run_has_the_amended_ceilings(launch: Launch, provider: Provider) -> None:
    gateway = launch(Caps(run_micro_usd=1_100, turns=4))
    gateway.process.amend(run_micro_usd=9_000, tool_calls=7)
    gateway.process.amend(run_micro_usd=8_000)
    os.kill(gateway.process.pid, signal.SIGKILL)
    gateway.wait("gone")
    again = launch(Caps(run_micro_usd=1_100, turns=4))
    caps = again.process.ready["caps"]
    assert (caps["run_micro_usd"], caps["tool_calls"], caps["turns"]) == (8_000, 7, 4)
    assert again.ask().status == 200
    assert again.process.status()["cap_micro_usd"] == 8_000
    other = launch(Caps(run_micro_usd=1_100), run_id="20261122-100000-fedcba")
    assert other.process.ready["caps"]["run_micro_usd"] == 1_100  # somebody else's run is not meant


# -- anchors


def head(seq: int, digit: str = "a", note: str = "") -> dict[str, object]:
    return {"seq": seq, "hash": digit * 64, "size": seq, "root": digit * 44, "note": note, "at_ms": 1_000 + seq}


def keep(process: GatewayProcess, seq: int, digit: str = "a", note: str = "") -> bool:
    return process.anchor(**head(seq, digit, note))  # type: ignore[arg-type]  # one dictionary of both kinds


@pytest.mark.req("H14")
def test_a_journals_heads_are_kept_where_nobody_changes_them(launch: Launch) -> None:
    gateway = launch(ROOM)
    ledger, run_id = gateway.config.ledger, gateway.config.run_id
    assert keep(gateway.process, 7, note="a note\n")
    assert keep(gateway.process, 3)
    assert keep(gateway.process, 3), "carried out twice is kept once"
    assert keep(gateway.process, 3, "b"), "another journal's record of that number is evidence, too"
    found = anchors(ledger, run_id)
    assert [(a.seq, a.hash[0], a.note) for a in found] == [(3, "a", ""), (3, "b", ""), (7, "a", "a note\n")]
    assert (found[2].size, found[2].root, found[2].at_ms) == (7, "a" * 44, 1_007)
    assert anchors(ledger, "20261122-100000-fedcba") == []
    direct = open_ledger(ledger)
    columns = "INSERT OR REPLACE INTO anchors (run_id, seq, hash, size, root, note, at_ms) "
    direct.execute(columns + "SELECT run_id, seq, hash, 99, root, note, at_ms FROM anchors")
    for statement in ("UPDATE anchors SET hash = 'c'", "DELETE FROM anchors", "DELETE FROM anchors WHERE seq = 3"):
        with pytest.raises(sqlite3.IntegrityError, match="only ever added"):
            direct.execute(statement)
    direct.close()
    assert anchors(ledger, run_id) == found


def test_what_is_no_head_is_refused_alone(launch: Launch, provider: Provider) -> None:
    gateway = launch(ROOM)
    for wrong in ({"seq": -1}, {"seq": 1 << 70}, {"hash": 5}, {"size": None}):
        assert not gateway.process.anchor(**{**head(1), **wrong})  # type: ignore[arg-type]  # which is the point
    with pytest.raises(OperatorError, match="a note of"):
        keep(gateway.process, 1, note="x" * 10_000)
    assert gateway.ask().status == 200
    assert not gateway.events("ledger_failed")


def test_without_a_gateway_there_is_one_witness_less(launch: Launch) -> None:
    gateway = launch(ROOM)
    os.kill(gateway.process.pid, signal.SIGKILL)
    gateway.wait("gone")
    assert keep(gateway.process, 1) is False
    with pytest.raises(HostError, match="gone"):
        gateway.process.pause("x")


def old_ledger(path: Path) -> None:
    """A ledger as version 1 made it."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    for statement in SCHEMA.split(";\n"):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    run = "INSERT INTO run (run_id, thread, requirements, organisation, zone, opened_at_ms) VALUES (?, 't', '', 'o', 'UTC', 5)"
    connection.execute(run, ("old",))
    connection.execute("INSERT INTO scope (kind, name, month, settled_micro_usd) VALUES ('run', 'old', '', 42)")
    connection.close()


def test_an_old_ledger_is_read_as_it_is_and_brought_up_to_date_by_a_gateway(launch: Launch, tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    old_ledger(path)
    assert anchors(path, "old") == []
    before = standing(path, "old")
    assert before is not None
    assert (before.totals.settled_micro_usd, before.turns, before.amended) == (42, 0, {})
    gateway = launch(ROOM)
    assert gateway.ask().status == 200
    assert keep(gateway.process, 1)
    assert len(anchors(path, gateway.config.run_id)) == 1
    assert standing(path, "old") == before


# -- after a crash


def test_standing_of_what_is_not_there(tmp_path: Path) -> None:
    assert standing(tmp_path / "absent", "r") is None
    assert anchors(tmp_path / "absent", "r") == []
    open_ledger(str(tmp_path / "empty")).close()
    assert standing(tmp_path / "empty", "r") is None
    (tmp_path / "none").write_bytes(b"no database at all, whatever its name says")
    with pytest.raises(HostError):
        standing(tmp_path / "none", "r")


def test_standing_says_what_a_run_holds(configure: Configure) -> None:
    config = configure(Caps(run_micro_usd=1_000_000))
    account = Account(connection := open_ledger(config.ledger), account_of(config))
    grants = []
    with transaction(connection):
        account.open(5)
        for iteration in (1, 1, 2):
            grant = account.reserve(Ask("a", "f", "m", "u", 10, 10**6, 10**7, 1, 9, iteration=iteration), "2026-11", 6)
            assert isinstance(grant, Grant)
            grants.append(grant)
        account.doubt(grants[0].reservation, "?", 2, 7)
        account.amend({"turns": 3}, 8)
    found = standing(config.ledger, config.run_id)
    assert found is not None
    assert (found.open, found.in_doubt, found.iteration, found.turns) == (2, 1, 2, 1)
    assert (found.totals.reserved_micro_usd, found.totals.unknown_micro_usd) == (200, 100)
    assert (found.totals.requests, found.totals.tool_calls, found.amended) == (3, 2, {"turns": 3})
    assert (found.opened_at_ms, found.closed_at_ms, found.closed_why) == (5, None, "")
    with transaction(connection):
        account.close(9, "done")
    closed = standing(config.ledger, config.run_id)
    assert closed is not None
    assert (closed.open, closed.in_doubt, closed.closed_at_ms, closed.closed_why) == (0, 3, 9, "done")


@pytest.mark.req("E5", "E2", "E4", "G9")
def test_a_killed_gateway_costs_no_money_twice_and_gives_no_count_back(launch: Launch, provider: Provider) -> None:
    """SIGKILL with a request at the provider, thrice: spent never falls, never passes the cap, counts go on."""
    caps = Caps(run_micro_usd=4_300, run_tokens=1_200, tool_calls=9, turns=7)
    reached = threading.Event()
    release = threading.Event()
    spent: list[int] = []

    def answer(call: Call) -> None:
        call.reply(call.whole(calls=1))

    def hang(call: Call) -> None:
        reached.set()
        release.wait(30)

    for round_ in range(3):
        gateway = launch(caps)
        ready = gateway.process.ready
        assert ready["spent_micro_usd"] >= max(spent, default=0)
        assert (ready["left_unknown"], ready["turns"], ready["tool_calls"]) == (min(round_, 1), 2 * round_, round_)
        gateway.process.begin_iteration(1)  # as a supervisor does that takes the iteration up again
        provider.play = answer
        assert gateway.ask().status == 200
        assert gateway.wait("usage")[-1]["spent_micro_usd"] >= ready["spent_micro_usd"]
        provider.play = hang
        reached.clear()
        asking = threading.Thread(target=_quiet, args=(gateway,), daemon=True)
        asking.start()
        assert reached.wait(10)
        before = standing(gateway.config.ledger, gateway.config.run_id)
        assert before is not None
        assert before.open == 1
        os.kill(gateway.process.pid, signal.SIGKILL)
        gateway.wait("gone")
        asking.join(10)
        after = standing(gateway.config.ledger, gateway.config.run_id)
        assert after == before
        assert max(spent, default=0) <= after.totals.spent_micro_usd <= caps.run_micro_usd
        spent.append(after.totals.spent_micro_usd)
    release.set()
    provider.play = answer
    last = launch(caps)
    last.process.begin_iteration(1)
    statuses = [last.ask().status for _ in range(3)]
    assert statuses == [200, 402, 402]  # the seventh turn of seven was left
    assert last.process.status()["turns"] == 7
    total = spend(last.config.ledger, kind="run")[0]
    assert max(spent) < total.spent_micro_usd <= caps.run_micro_usd
    assert total.unknown_micro_usd == total.spent_micro_usd - 4 * COST
    assert spent == sorted(spent)
    last.process.begin_iteration(2)
    assert last.process.status()["turns"] == 0


def _quiet(gateway: Running) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):  # the gateway was killed under it
        gateway.ask()
