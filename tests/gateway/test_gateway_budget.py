"""No one overspends: under concurrency, faults on either side, kill -9, and a provider that bills oddly."""

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from gateway_rig import EVERY, TOKEN, altered, body_of, without

from inbounds.contracts.errors import HostError, OperatorError
from inbounds.gateway.config import Caps, Format
from inbounds.gateway.control import GatewayProcess
from inbounds.gateway.ledger import Account, spend
from inbounds.gateway.schema import open_ledger

COST = 70  # of the scripted reply: 20 tokens in, 5 out


def hang(call, release: threading.Event) -> None:
    release.wait(30)
    call.reply(call.whole())


@pytest.mark.req("G2", "G9", "E4")
@pytest.mark.without("reservation")
def test_sixty_concurrent_requests_never_overspend(launch, provider, monkeypatch):
    bill = []

    def play(call):
        tokens = min(100, call.body["max_tokens"])
        bill.append(20 + tokens * 10)
        time.sleep(0.02)
        call.reply(call.whole(20, tokens))

    provider.play = play
    cap = 10_000
    if without("reservation"):
        altered(
            monkeypatch,
            "from inbounds.gateway import ledger; fits = ledger._fits; "
            "ledger._fits = lambda ask, totals, in_flight: fits(ask, totals, in_flight=False)",
        )
    gateway = launch(Caps(run_micro_usd=cap))
    with ThreadPoolExecutor(60) as pool:
        statuses = list(pool.map(lambda _: gateway.ask().status, range(60)))
    assert set(statuses) <= {200, 402, 503}
    billed = sum(bill)
    assert billed <= cap
    assert statuses.count(200) == len(bill) >= 9
    run = spend(gateway.config.ledger, kind="run")[0]
    assert run.settled_micro_usd == billed
    assert run.reserved_micro_usd == run.unknown_micro_usd == 0


def test_two_gateways_share_the_months_cap(launch, provider):
    bill = []

    def play(call):
        tokens = min(100, call.body["max_tokens"])
        bill.append(20 + tokens * 10)
        call.reply(call.whole(20, tokens))

    provider.play = play
    caps = Caps(run_micro_usd=100_000, month_micro_usd=5_000, thread_month_micro_usd=5_000)
    first, second = launch(caps), launch(caps, run_id="20261122-100000-fedcba")
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda n: (first, second)[n % 2].ask().status, range(16)))
    assert sum(bill) <= 5_000
    assert statuses.count(200) == len(bill) >= 4
    month = spend(first.config.ledger, kind="organisation")
    assert [row.settled_micro_usd for row in month] == [sum(bill)]
    assert {event["cap"] for event in first.heard + second.heard if event["event"] == "spent"} <= {
        "month",
        "thread-month",
    }


@pytest.mark.req("G9")
@pytest.mark.parametrize("wire", EVERY)
def test_a_spent_budget_is_402_in_the_agents_own_shape(launch, provider, wire):
    gateway = launch(Caps(run_micro_usd=100))
    answer = gateway.ask(wire)
    assert answer.status == 402
    assert "retry-after" not in answer.headers
    message = answer.json["error"]["message"]
    assert "run budget" in message
    assert "retrying" in message
    assert answer.json.get("type") == ("error" if wire is Format.MESSAGES else None)
    assert gateway.wait("spent")[0]["cap"] == "run"
    assert gateway.ask(wire).status == 402
    assert len(gateway.wait("refused", 2)) == 2
    assert len(gateway.events("spent")) == 1  # an alert is sent once
    assert not provider.seen


def test_a_request_larger_than_the_per_request_cap_is_told_so(launch, provider):
    gateway = launch(Caps(run_micro_usd=1_000_000, request_micro_usd=2_000))
    assert gateway.ask().status == 200
    refused = gateway.ask(messages=[{"role": "user", "content": "x" * 3_000}])
    assert refused.status == 413
    assert not gateway.events("spent")  # the budget is not spent; this one request is too large


@pytest.mark.req("E4")
def test_tokens_are_capped_like_money(launch, provider):
    provider.play = lambda call: call.reply(call.whole(60, 40))
    gateway = launch(Caps(run_micro_usd=1_000_000, run_tokens=400))
    statuses = [gateway.ask().status for _ in range(6)]
    assert statuses[0] == 200
    assert statuses[-1] == 402
    assert len(provider.seen) * 100 <= 400


@pytest.mark.req("E2")
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("wire", EVERY)
def test_tool_calls_past_the_cap_never_reach_the_agent(launch, provider, wire, stream):
    provider.play = lambda call: call.stream(calls=2) if stream else call.reply(call.whole(calls=2))
    gateway = launch(Caps(run_micro_usd=1_000_000, tool_calls=3))
    first = gateway.ask(wire, stream=stream)
    second = gateway.ask(wire, stream=stream)
    third = gateway.ask(wire, stream=stream)
    assert first.status == 200
    assert third.status == 402
    assert b"tool calls" in second.raw
    if stream:
        assert second.raw.count(b'"name": "f"') <= 1  # the fourth call was cut before it was passed on
    else:
        assert second.status == 402
    assert gateway.wait("spent")[0]["cap"] == "tool_calls"
    assert len(provider.seen) == 2


@pytest.mark.req("E2")
def test_turns_are_counted_per_iteration(launch, provider):
    gateway = launch(Caps(run_micro_usd=1_000_000, turns=2))
    assert [gateway.ask().status for _ in range(3)] == [200, 200, 402]
    assert gateway.wait("spent")[0]["cap"] == "turns"
    gateway.process.begin_iteration(2)
    gateway.process.status()
    assert gateway.ask().status == 200


@pytest.mark.req("G9")
@pytest.mark.without("durable-reservation")
def test_kill_9_between_forward_and_settle_keeps_the_charge(launch, provider, monkeypatch):
    reached, release = threading.Event(), threading.Event()
    provider.play = lambda call: (reached.set(), hang(call, release))
    if without("durable-reservation"):  # the reservation is decided on, but not kept
        altered(
            monkeypatch,
            "from inbounds.gateway import ledger; reserve = ledger.Account.reserve; "
            "ledger.Account.reserve = lambda self, *a: (reserve(self, *a), self._db.execute('DELETE FROM reservation'), "
            "self._db.execute('UPDATE scope SET reserved_micro_usd = 0, reserved_tokens = 0'))[0]",
        )
    gateway = launch()
    asking = threading.Thread(target=lambda: _quiet(gateway.ask), daemon=True)
    asking.start()
    assert reached.wait(10)
    os.kill(gateway.process.pid, signal.SIGKILL)
    gone = gateway.wait("gone")[0]
    assert gone["expected"] is False
    asking.join(10)
    held = spend(gateway.config.ledger, kind="run")[0]
    assert held.reserved_micro_usd > COST
    again = launch()
    assert again.process.ready["left_unknown"] == 1
    after = spend(gateway.config.ledger, kind="run")[0]
    assert (after.reserved_micro_usd, after.unknown_micro_usd) == (0, held.reserved_micro_usd)
    assert after.spent_micro_usd == held.spent_micro_usd
    release.set()
    provider.play = lambda call: call.reply(call.whole())
    assert again.ask().status == 200
    assert again.wait("usage")[0]["spent_micro_usd"] == held.spent_micro_usd + COST


def _quiet(work) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):  # the gateway was killed under it
        work()


@pytest.mark.req("G9")
def test_an_upstream_that_is_not_there_costs_nothing(launch, configure):
    config = configure()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    upstream = replace(config.upstreams["acme"], base_url=f"http://127.0.0.1:{port}")
    gateway = launch(Caps(run_micro_usd=5_000), upstreams={"acme": upstream})
    assert [gateway.ask().status for _ in range(20)] == [502] * 20  # a leak would have spent the cap by now
    assert gateway.process.status()["spent_micro_usd"] == 0


@pytest.mark.req("G9")
@pytest.mark.parametrize(
    ("status", "state"),
    [(400, "released"), (429, "released"), (500, "released"), (529, "released"), (502, "unknown"), (504, "unknown")],
)
def test_errors_cost_what_a_provider_would_bill(launch, provider, status, state):
    provider.play = lambda call: call.reply({"error": {"message": "no"}}, status)
    gateway = launch()
    assert gateway.ask().status == status
    usage = gateway.wait("usage")[0]
    assert usage["state"] == state
    assert (usage["spent_micro_usd"] == 0) is (state == "released")


@pytest.mark.req("G9")
@pytest.mark.parametrize(
    "usage",
    [
        {"output_tokens": -5},
        {"output_tokens": True},
        {"output_tokens": 1.5},
        {"input_tokens": "20"},
        {"input_tokens": None},
    ],
)
def test_a_usage_that_makes_no_sense_is_charged_at_the_bound(launch, provider, usage):
    made = {"prompt_tokens" if "in" in k else "completion_tokens": v for k, v in usage.items()}
    provider.play = lambda call: call.reply(call.whole(**made))
    gateway = launch()
    assert gateway.ask(Format.CHAT).status == 200
    told = gateway.wait("usage")[0]
    assert told["state"] == "unknown"
    assert told["spent_micro_usd"] > COST


@pytest.mark.req("G9")
@pytest.mark.parametrize("usage", [{"total": 0}, {"input_tokens": 20}, {"output_tokens": 5}, {"prompt_tokens": 0}])
def test_a_figure_that_an_anthropic_reply_leaves_out_is_not_zero(launch, provider, usage):
    provider.play = lambda call: call.reply({"type": "message", "content": [], "usage": usage})
    gateway = launch()
    assert gateway.ask().status == 200
    told = gateway.wait("usage")[0]
    assert told["state"] == "unknown"
    assert told["spent_micro_usd"] > COST


@pytest.mark.req("G9")
@pytest.mark.parametrize(
    ("start", "delta", "state"),
    [
        ({"input_tokens": 20, "output_tokens": 1}, {"output_tokens": 5}, "settled"),
        ({"output_tokens": 1}, {"input_tokens": 20, "output_tokens": 5}, "settled"),  # as compatible services have it
        ({"output_tokens": 1}, {"output_tokens": 5}, "unknown"),
        ({"input_tokens": 20, "output_tokens": 1}, {"input_tokens": 20}, "unknown"),
        (None, {"output_tokens": 5}, "unknown"),
    ],
)
def test_a_figure_that_stands_nowhere_in_an_anthropic_stream_is_not_zero(launch, provider, start, delta, state):
    def play(call):
        call.start_stream()
        if start is not None:
            call.event({"type": "message_start", "message": {"usage": start}})
        call.event({"type": "message_delta", "delta": {}, "usage": delta})
        call.event({"type": "message_stop"})
        call.end_stream()

    provider.play = play
    gateway = launch()
    gateway.ask(stream=True)
    told = gateway.wait("usage")[0]
    assert told["state"] == state
    assert (told["spent_micro_usd"] == COST) is (state == "settled")


@pytest.mark.req("G9")
@pytest.mark.parametrize("wire", EVERY)
def test_a_stream_that_breaks_off_is_charged_at_the_bound(launch, provider, wire):
    def cut(call):
        call.opening()
        call.close_connection = True
        call.connection.shutdown(socket.SHUT_RDWR)

    provider.play = cut
    gateway = launch()
    answer = gateway.ask(wire, stream=True)
    assert b"error" in answer.raw
    assert gateway.wait("usage")[0]["state"] == "unknown"


@pytest.mark.req("G9")
@pytest.mark.parametrize("wire", EVERY)
def test_a_client_that_leaves_is_metered_to_the_end(launch, provider, wire):
    left, done = threading.Event(), threading.Event()

    def play(call):
        call.opening()
        assert left.wait(10)
        for _ in range(20):
            call.event({"type": "ping"} if wire is not Format.CHAT else {"choices": []})
            time.sleep(0.01)
        call.closing()
        done.set()

    provider.play = play
    gateway = launch()
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    body = {**body_of(wire), "stream": True}
    path = {Format.CHAT: "/v1/chat/completions", Format.RESPONSES: "/v1/responses"}.get(wire, "/v1/messages")
    connection.request("POST", path, json.dumps(body), {"Authorization": f"Bearer {TOKEN}"})
    connection.getresponse().read(5)
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    connection.close()
    left.set()
    assert done.wait(10)
    usage = gateway.wait("usage")[0]
    assert (usage["state"], usage["cost_micro_usd"]) == ("settled", COST)


@pytest.mark.req("G9")
@pytest.mark.parametrize("began", [False, True])
def test_a_closed_lease_admits_nothing_and_charges_what_was_in_flight(launch, provider, began):
    reached, release = threading.Event(), threading.Event()

    def play(call):
        if began:
            call.opening()
        reached.set()
        release.wait(20)
        for _ in range(200):  # what the gateway cut is heard when more is written
            call.event({"type": "ping"}) if began else call.reply(call.whole())
            time.sleep(0.01)

    provider.play = play
    gateway = launch()
    answers = []
    asking = threading.Thread(target=lambda: answers.append(gateway.ask(stream=began)))
    asking.start()
    assert reached.wait(10)
    assert gateway.process.close_lease("the operator said so")
    asking.join(10)
    assert not asking.is_alive()
    assert b"the operator said so" in answers[0].raw
    usage = gateway.wait("usage")[0]
    assert usage["state"] == "unknown"
    assert usage["spent_micro_usd"] == usage["cost_micro_usd"] > 0
    release.set()
    assert provider.closed.wait(10)
    assert gateway.process.close_lease("again")
    assert gateway.ask().status == 402
    assert len(provider.seen) == 1
    assert [event["why"] for event in gateway.events("lease_closed")] == ["the operator said so"]


def test_a_provider_that_bills_over_the_bound_closes_the_lease(launch, provider):
    provider.play = lambda call: call.reply(call.whole(20, 100_000))
    gateway = launch()
    gateway.ask()
    assert gateway.wait("overshoot")[0]["cost_micro_usd"] == 20 + 1_000_000
    assert gateway.ask().status == 402
    assert spend(gateway.config.ledger, kind="run")[0].settled_micro_usd == 1_000_020  # the bill is the truth


def test_a_waiting_request_is_served_once_money_comes_back(launch, provider):
    first, release = threading.Event(), threading.Event()

    def play(call):
        if not first.is_set():
            first.set()
            release.wait(10)
        call.reply(call.whole(20, 10))

    provider.play = play
    gateway = launch(Caps(run_micro_usd=2_000))
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(gateway.ask)
        assert first.wait(10)
        two = pool.submit(gateway.ask)
        time.sleep(0.3)
        assert len(provider.seen) == 1  # "busy" is not "spent": it waits
        release.set()
        assert [one.result().status, two.result().status] == [200, 200]
    assert provider.seen[1].body["max_tokens"] == 100


def test_a_newer_or_foreign_ledger_is_refused(configure, tmp_path):
    config = configure()
    connection = open_ledger(config.ledger)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(HostError, match="ledger version 99"):
        GatewayProcess.start(config)
    with pytest.raises(HostError, match="99"):
        spend(config.ledger)
    foreign = tmp_path / "other.sqlite"
    connection = open_ledger(str(foreign))
    connection.execute("PRAGMA application_id = 7")
    connection.close()
    with pytest.raises(HostError, match="no ledger"):
        open_ledger(str(foreign))
    assert spend(tmp_path / "absent") == []


def test_a_gateway_says_whose_fault_it_is(configure):
    with pytest.raises(OperatorError, match="time zone"):
        GatewayProcess.start(configure(zone="Mars/Olympus"))
    with pytest.raises(HostError, match="ledger"):
        GatewayProcess.start(configure(ledger="/nonexistent/ledger.sqlite"))


def test_the_gateway_ends_with_its_supervisor(launch):
    gateway = launch()
    gateway.process._child._sock.shutdown(socket.SHUT_RDWR)
    assert gateway.wait("gone")[0]["exit"] == 0


def test_months_begin_in_the_organisations_zone(launch, provider):
    import zoneinfo
    from datetime import UTC, datetime

    if "Pacific/Kiritimati" not in zoneinfo.available_timezones():
        pytest.skip("this machine has no time zone database")
    gateway = launch(zone="Pacific/Kiritimati")
    assert gateway.ask().status == 200
    now = datetime.now(UTC).astimezone(zoneinfo.ZoneInfo("Pacific/Kiritimati"))
    assert {row.month for row in spend(gateway.config.ledger) if row.month} == {now.strftime("%Y-%m")}


def test_settling_twice_changes_nothing(configure):
    from inbounds.gateway.ledger import Ask
    from inbounds.gateway.program import account_of
    from inbounds.gateway.usage import Usage

    config = configure()
    account = Account(open_ledger(config.ledger), account_of(config))
    account.open(0)
    grant = account.reserve(Ask("agent", "f", "m", "u", 10, 10**6, 10**7, 1, 10), "2026-11", 0)
    assert account.doubt(grant.reservation, "?", 0, 1)
    assert account.totals().unknown_micro_usd == 110
    assert account.settle(grant.reservation, Usage(5, 5), 55, 1, 2)  # the truth arrives late
    assert not account.settle(grant.reservation, Usage(5, 5), 55, 1, 3)
    assert not account.release(grant.reservation, "", 4)
    assert account.totals().spent_micro_usd == 55
    assert account.totals().tool_calls == 1
