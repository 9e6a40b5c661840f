"""The way of one request through a real gateway process, in every format, and what it costs."""

import json
import os
from pathlib import Path

import pytest
from gateway_rig import EVERY, KEY, TOKEN, body_of

from inbounds.gateway.config import Caps, Format
from inbounds.gateway.ledger import spend

COST = 20 * 1 + 5 * 10


@pytest.mark.parametrize("wire", EVERY)
@pytest.mark.req("G1", "H9")
def test_a_whole_reply_is_settled_exactly(launch, provider, wire):
    gateway = launch()
    answer = gateway.ask(wire)
    assert answer.status == 200, answer.raw
    assert answer.json["id"] == "1"
    usage = gateway.wait("usage")[0]
    assert usage["state"] == "settled"
    assert (usage["input_tokens"], usage["output_tokens"]) == (20, 5)
    assert usage["cost_micro_usd"] == usage["spent_micro_usd"] == COST
    assert usage["reserved_micro_usd"] == 0
    assert usage["role"] == "agent"
    assert provider.seen[0].body["model"] == "acme-large"
    run = spend(gateway.config.ledger, kind="run")[0]
    assert (run.settled_micro_usd, run.reserved_micro_usd, run.unknown_micro_usd) == (COST, 0, 0)
    assert run.settled_tokens == 25
    assert {row.kind for row in spend(gateway.config.ledger)} == {"run", "thread", "organisation", "requirement"}
    assert {row.spent_micro_usd for row in spend(gateway.config.ledger)} == {COST}


@pytest.mark.parametrize("wire", EVERY)
@pytest.mark.req("G1", "H9")
def test_a_streamed_reply_is_settled_exactly(launch, provider, wire):
    provider.play = lambda call: call.stream(calls=2)
    gateway = launch()
    answer = gateway.ask(wire, stream=True)
    assert answer.status == 200, answer.raw
    assert answer.raw.count(b"hel") == 1
    usage = gateway.wait("usage")[0]
    assert usage["state"] == "settled"
    assert usage["cost_micro_usd"] == COST
    assert usage["tool_calls"] == 2
    assert gateway.wait("tool_calls")[-1]["total"] == 2


def test_chat_usage_is_asked_for_and_kept_from_an_agent_that_did_not_ask(launch, provider):
    provider.play = lambda call: call.stream()
    gateway = launch()
    plain = gateway.ask(Format.CHAT, stream=True)
    asked = gateway.ask(Format.CHAT, stream=True, stream_options={"include_usage": True})
    assert b"prompt_tokens" not in plain.raw
    assert b"[DONE]" in plain.raw
    assert b"prompt_tokens" in asked.raw
    assert [seen.body["stream_options"]["include_usage"] for seen in provider.seen] == [True, True]


@pytest.mark.req("G2")
def test_caches_are_priced_by_kind(launch, provider):
    split = {"ephemeral_5m_input_tokens": 40, "ephemeral_1h_input_tokens": 60}
    used = {"cache_read_input_tokens": 1000, "cache_creation_input_tokens": 100, "cache_creation": split}
    provider.play = lambda call: call.reply(call.whole(**used))
    gateway = launch()
    long = [{"role": "user", "content": [{"type": "text", "text": "x" * 2000, "cache_control": {"ttl": "1h"}}]}]
    assert gateway.ask(messages=long).status == 200
    usage = gateway.wait("usage")[0]
    assert usage["cost_micro_usd"] == 20 + 50 + 100 + 40 * 5 // 4 + 60 * 2
    assert (usage["cache_read_tokens"], usage["cache_write_tokens"]) == (1000, 100)


def test_openai_cached_tokens_are_not_counted_twice(launch, provider):
    used = {"prompt_tokens_details": {"cached_tokens": 10}}
    provider.play = lambda call: call.reply(call.whole(**used))
    gateway = launch()
    gateway.ask(Format.CHAT)
    assert gateway.wait("usage")[0]["cost_micro_usd"] == 10 + 1 + 50


@pytest.mark.req("G1")
def test_the_key_goes_to_the_provider_only(launch, provider):
    gateway = launch()
    provider.play = lambda call: call.reply({"error": {"message": f"bad: {KEY}"}}, 400, **{"Set-Cookie": "a=b"})
    refused = gateway.ask(headers={"Cookie": "x=y", "X-Stainless-OS": "plan9", "anthropic-beta": "b-1"})
    assert refused.status == 400
    assert KEY.encode() not in refused.raw
    assert "set-cookie" not in refused.headers
    provider.play = lambda call: call.reply({"error": f"wrong key {KEY}"}, 401)
    assert KEY.encode() not in gateway.ask().raw
    sent = provider.seen[0].headers
    assert sent["x-api-key"] == KEY
    assert sent["anthropic-beta"] == "b-1"
    assert TOKEN not in json.dumps(provider.seen[0].headers)
    assert not {"cookie", "x-stainless-os", "authorization"} & set(sent)
    for name in ("environ", "cmdline"):
        try:
            held = Path(f"/proc/{gateway.process.pid}/{name}").read_bytes()
        except PermissionError:
            continue  # non-dumpable: only root may look at all
        assert KEY.encode() not in held
        assert TOKEN.encode() not in held
    assert KEY not in json.dumps(gateway.heard)


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x"])
def test_a_wrong_token_is_401(launch, provider, token):
    gateway = launch()
    assert gateway.ask(token=token).status == 401
    assert gateway.ask(headers={"x-api-key": "other"}).status == 401  # beside the right one
    assert gateway.ask(token=None, headers={"x-api-key": TOKEN}).status == 200
    assert len(provider.seen) == 1


@pytest.mark.req("G1")
@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/files", "/v1/responses/compact", "/", "/v1/messages/batches"])
def test_every_other_route_is_refused(launch, provider, path):
    gateway = launch()
    assert gateway.ask(path).status == 404
    assert gateway.ask(path, method="GET").status == 404
    assert gateway.ask("http://127.0.0.1:1/v1/files", method="GET").status == 404
    assert gateway.ask("/", method="HEAD", token=None).status == 404
    assert not provider.seen


@pytest.mark.req("G1")
def test_an_unknown_model_or_price_is_refused(launch, provider, configure):
    model = configure().models["m"]
    unpriced = type(model)("u", "acme", "nobody-prices-this", 1_000, None)
    gateway = launch(models={"m": model, "u": unpriced})
    assert gateway.ask(model="gpt-nothing").status == 403
    refused = gateway.ask(model="u")
    assert refused.status == 403
    assert "no price" in refused.json["error"]["message"]
    assert {event["reason"] for event in gateway.wait("refused", 2)} == {"unknown_model", "unknown_price"}
    assert not provider.seen


def test_models_are_listed_for_both_kinds_of_client(launch):
    listed = launch().ask("/v1/models", method="GET").json
    assert [model["id"] for model in listed["data"]] == ["m"]
    assert listed["object"] == "list"


def test_count_tokens_is_forwarded_and_free(launch, provider):
    provider.play = lambda call: call.reply({"input_tokens": 7})
    gateway = launch()
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    assert gateway.ask("/v1/messages/count_tokens?beta=true", body).json == {"input_tokens": 7}
    assert provider.seen[0].path == "/v1/messages/count_tokens?beta=true"
    assert "max_tokens" not in provider.seen[0].body
    assert gateway.process.status()["spent_micro_usd"] == 0
    assert len(gateway.wait("counted")) == 1


@pytest.mark.req("H8")
def test_every_forwarded_request_is_told_with_its_host(launch, provider):
    gateway = launch()
    for wire in EVERY:
        gateway.ask(wire)
    told = gateway.wait("usage", 3)
    assert {event["host"] for event in told} == {provider.url.removeprefix("http://")}
    assert [event["format"] for event in told] == [wire.value for wire in EVERY]
    assert all(event["bytes_out"] and event["bytes_in"] for event in told)


def test_the_gateway_is_sealed(launch):
    gateway = launch()
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{gateway.process.pid}/status").read_text().splitlines()
        if ":\t" in line
    )
    assert status["NoNewPrivs"] == "1"
    sealed = gateway.process.ready["seal"]
    absent = {name for name, found in sealed.items() if found != "enforced"}
    assert {name for name in absent if not name.startswith("landlock")} == set(), sealed
    assert "seccomp" in sealed
    assert "closed_descriptors" in sealed
    assert os.stat(gateway.config.ledger).st_mode & 0o077 == 0


@pytest.mark.req("E4")
def test_a_huge_limit_is_clamped_not_refused(launch, provider):
    gateway = launch(Caps(run_micro_usd=5_000))
    assert gateway.ask(max_tokens=1_000_000).status == 200
    granted = provider.seen[0].body["max_tokens"]
    assert 400 < granted < 500
    body = body_of(Format.CHAT)
    del body["max_tokens"]
    assert gateway.ask(Format.CHAT, body).status == 200
    assert provider.seen[1].body["max_completion_tokens"] < 500
