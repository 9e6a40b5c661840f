"""What a request may contain, what is refused by name, and how its cost is bounded: the pure part."""

import json
from datetime import UTC, datetime
from decimal import ROUND_CEILING

import pytest
from gateway_rig import EVERY, PRICE, body_of, without

from inbounds.gateway import allowed
from inbounds.gateway.config import Caps, Format, GatewayConfig, Model, Upstream
from inbounds.gateway.prices import PriceBook, Prices, Rate, UnknownPriceError, from_override
from inbounds.gateway.refusal import Refusal
from inbounds.gateway.replies import BrokenReplyError, EventSplitter
from inbounds.gateway.requests import DEPTH_MAX, ModelRequest, parse_json, parse_request
from inbounds.gateway.usage import Usage, read_usage

CLAUDE = {
    "model": "m",
    "max_tokens": 32_000,
    "stream": True,
    "system": [{"type": "text", "text": "You are", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "...", "signature": "x"},
                {"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": "ls", "type": "image"}},
            ],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "a"}]}],
        },
    ],
    "tools": [{"name": "Bash", "description": "run", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "auto"},
    "metadata": {"user_id": "u"},
    "thinking": {"type": "enabled", "budget_tokens": 31_999},
    "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    "output_config": {"effort": "high"},
    "temperature": 1,
}
CODEX = {
    "model": "m",
    "instructions": "You are",
    "input": [
        {
            "type": "additional_tools",
            "role": "developer",
            "tools": [{"type": "namespace", "name": "functions", "tools": [{"type": "custom", "name": "exec"}]}],
        },
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "x"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}], "encrypted_content": "gAAA"},
        {"type": "function_call", "name": "shell", "arguments": "{}", "call_id": "c"},
        {"type": "function_call_output", "call_id": "c", "output": "ok"},
        {"type": "custom_tool_call", "name": "apply_patch", "input": "*** Begin", "call_id": "d"},
        {"type": "custom_tool_call_output", "call_id": "d", "output": [{"type": "input_text", "text": "done"}]},
    ],
    "tools": [
        {"type": "function", "name": "shell", "parameters": {}, "strict": False},
        {"type": "custom", "name": "apply_patch", "format": {"type": "grammar", "syntax": "lark", "definition": ""}},
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "k",
    "text": {"verbosity": "low"},
    "client_metadata": {"x": "y"},
}
PNG = "data:image/png;base64,iVBORw0KGgo="


def parse(wire, **changes):
    return parse_request(wire, {**body_of(wire), **changes})


@pytest.mark.parametrize(("wire", "body"), [(Format.MESSAGES, CLAUDE), (Format.RESPONSES, CODEX)])
def test_what_the_real_agents_send_is_admitted(wire, body):
    parsed = parse_request(wire, body)
    assert isinstance(parsed, ModelRequest), parsed
    assert parsed.input_tokens_max >= len(json.dumps(body, separators=(",", ":")))


CHAT_PARTS = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}]


@pytest.mark.req("G1")
@pytest.mark.without("feature-allowlist")
@pytest.mark.parametrize(
    ("wire", "changes"),
    [
        (Format.RESPONSES, {"tools": [{"type": "web_search", "external_web_access": False}]}),
        (Format.RESPONSES, {"tools": [{"type": "mcp", "server_url": "https://evil"}]}),
        (Format.RESPONSES, {"tools": [{"type": "namespace", "tools": [{"type": "code_interpreter"}]}]}),
        (Format.RESPONSES, {"input": [{"type": "additional_tools", "tools": [{"type": "web_search"}]}]}),
        (Format.RESPONSES, {"input": [{"id": "msg_1"}]}),
        (Format.RESPONSES, {"previous_response_id": "resp_1"}),
        (Format.RESPONSES, {"conversation": "c"}),
        (Format.RESPONSES, {"background": True}),
        (Format.RESPONSES, {"store": True}),
        (Format.RESPONSES, {"store": 0}),
        (Format.RESPONSES, {"service_tier": "priority"}),
        (Format.RESPONSES, {"include": ["file_search_call.results"]}),
        (Format.RESPONSES, {"input": [{"type": "item_reference", "id": "msg_1"}]}),
        (Format.RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "http://x"}]}]}),
        (
            Format.RESPONSES,
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "https://x"}]}]},
        ),
        (Format.RESPONSES, {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}),
        (Format.CHAT, {"web_search_options": {}}),
        (Format.CHAT, {"n": 2}),
        (Format.CHAT, {"n": True}),
        (Format.CHAT, {"store": True}),
        (Format.CHAT, {"modalities": ["text", "audio"]}),
        (Format.CHAT, {"prediction": {"type": "content", "content": "x"}}),
        (Format.CHAT, {"something_new": 1}),
        (Format.CHAT, {"messages": CHAT_PARTS}),
        (
            Format.CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]},
        ),
        (Format.MESSAGES, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
        (Format.MESSAGES, {"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]}),
        (Format.MESSAGES, {"tools": [{"type": "code_execution_20250825", "name": "c"}]}),
        (Format.MESSAGES, {"mcp_servers": [{"url": "https://evil"}]}),
        (Format.MESSAGES, {"container": "c"}),
        (Format.MESSAGES, {"speed": "fast"}),
        (Format.MESSAGES, {"inference_geo": "us"}),
        (Format.MESSAGES, {"context_management": {"edits": [{"type": "compact_20260112"}]}}),
        (
            Format.MESSAGES,
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "x"}}]}]},
        ),
        (
            Format.MESSAGES,
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "tool_result",
                                "content": [{"type": "document", "source": {"type": "url", "url": "x"}}],
                            }
                        ],
                    }
                ]
            },
        ),
    ],
)
def test_what_a_provider_would_do_for_the_agent_is_refused_by_name(wire, changes, monkeypatch):
    if without("feature-allowlist"):
        monkeypatch.setattr("inbounds.gateway.requests._refuse_fields", lambda *_: None)
        monkeypatch.setattr("inbounds.gateway.requests._refuse_tools", lambda *_: None)
        monkeypatch.setattr("inbounds.gateway.requests._refuse_content", lambda *_: None)
    refused = parse(wire, **changes)
    assert isinstance(refused, Refusal)
    assert (refused.status, refused.reason) == (403, "feature")


def test_null_is_the_same_as_absent():
    parsed = parse(Format.RESPONSES, previous_response_id=None, store=None, new_field=None)
    assert isinstance(parsed, ModelRequest)
    sent = json.loads(parsed.upstream_body(upstream(), "x", 5))
    assert "previous_response_id" not in sent
    assert "new_field" not in sent
    assert sent["store"] is False


@pytest.mark.parametrize("wire", EVERY)
@pytest.mark.parametrize("value", [0, -1, 1.5, "9", True])
def test_an_output_limit_that_is_none_is_malformed(wire, value):
    name = "max_output_tokens" if wire is Format.RESPONSES else "max_tokens"
    refused = parse(wire, **{name: value})
    assert isinstance(refused, Refusal)
    assert refused.status == 400


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b"{",
        b'{"a": "\xff"}',
        b'{"a":' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 90_000 + b"1" + b"}" * 90_000,
    ],
)
def test_bad_json_is_a_clean_400(raw):
    refused = parse_json(raw)
    assert isinstance(refused, Refusal)
    assert refused.status == 400


def test_depth_has_room_for_schemas():
    deep = b'{"a":' * (DEPTH_MAX - 10) + b"1" + b"}" * (DEPTH_MAX - 10)
    assert isinstance(parse_json(deep), dict)


def upstream(**changes):
    return Upstream(**{"name": "u", "formats": EVERY, "base_url": "http://h/v1", "auth_header": "A", **changes})


def test_the_body_is_written_anew_so_that_duplicates_cannot_hide():
    body = parse_json(b'{"model":"m","max_tokens":5,"max_tokens":7,"messages":[],"model":"n"}')
    parsed = parse_request(Format.CHAT, body)
    sent = parsed.upstream_body(upstream(), "real", 3)
    assert sent.count(b'"max_tokens"') == 1
    assert json.loads(sent)["model"] == "real"
    assert json.loads(sent)["max_tokens"] == 3


def test_a_thinking_budget_fits_into_a_clamped_limit():
    parsed = parse_request(Format.MESSAGES, CLAUDE)
    clamped = json.loads(parsed.upstream_body(upstream(), "m", 2_000))
    assert (clamped["max_tokens"], clamped["thinking"]["budget_tokens"]) == (2_000, 1_999)
    assert json.loads(parsed.upstream_body(upstream(), "m", 500))["thinking"] == {"type": "disabled"}


@pytest.mark.req("G2")
def test_the_bound_holds_for_text_that_grows_and_for_images():
    plain = parse(Format.CHAT, messages=[{"role": "user", "content": "a" * 100}])
    ligature = parse(Format.CHAT, messages=[{"role": "user", "content": "\ufdfa" * 100}])
    assert plain.input_tokens_max > 100
    assert ligature.input_tokens_max > 3_000  # three bytes that a normalizing tokenizer sees as thirty-three
    parts = [{"type": "image_url", "image_url": {"url": PNG}}]
    assert parse(Format.CHAT, messages=[{"role": "user", "content": parts}]).input_tokens_max > 6_000


@pytest.mark.req("G2")
def test_the_dearest_price_bounds_and_tiers_apply():
    tiered = Prices(Rate(2, ((100, 5),)), Rate(10, ((100, 30),)), Rate(1), Rate(3), Rate(4, ((100, 9),)))
    assert tiered.dearest_input(100, cache_write=False, cache_write_1h=False) == 2
    assert tiered.dearest_input(101, cache_write=False, cache_write_1h=False) == 5
    assert tiered.dearest_input(101, cache_write=True, cache_write_1h=True) == 9
    assert tiered.cost(Usage(100, 1_000_000)) == -(-(200 + 10_000_000) // 10**6)
    assert tiered.cost(Usage(50, 1_000_000, cache_read_tokens=51)) == -(-(250 + 51 + 30_000_000) // 10**6)
    assert from_override(PRICE).cost(Usage(1)) == 1


def book(model, provider):
    config = GatewayConfig(
        run_id="r",
        thread="t",
        requirements=(),
        token="x" * 32,
        ledger="/l",
        caps=Caps(1),
        upstreams={"u": upstream(price_provider=provider)},
        models={"m": Model("m", "u", model, 10)},
    )
    return PriceBook(config)


@pytest.mark.parametrize(
    ("model", "provider"),
    [("claude-sonnet-4-5", "anthropic"), ("claude-opus-4-5", "anthropic"), ("gpt-5", "openai"), ("gpt-5.4", "openai")],
)
def test_listed_prices_equal_the_price_lists_own_sums(model, provider):
    import genai_prices

    prices = book(model, provider).price("m", datetime.now(UTC))
    for scale in (1, 1_000):
        usage = Usage(1_234 * scale, 567 * scale, 89 * scale, *((10, 0) if provider == "anthropic" else ()))
        theirs = genai_prices.calc_price(
            genai_prices.Usage(
                input_tokens=usage.input_total,
                output_tokens=usage.output_tokens,
                cache_read_tokens=usage.cache_read_tokens,
                cache_write_tokens=usage.cache_write_tokens,
            ),
            model,
            provider_id=provider,
        ).total_price
        assert prices.cost(usage) == (theirs * 10**6).to_integral_value(ROUND_CEILING)


def test_a_model_without_price_has_none():
    with pytest.raises(UnknownPriceError):
        book("never-heard-of", "openai").price("m", datetime.now(UTC))
    with pytest.raises(UnknownPriceError):  # priced per request, too, which is not metered here
        book("sonar", "perplexity").price("m", datetime.now(UTC))


def test_configuration_survives_the_channel():
    config = GatewayConfig(
        run_id="r",
        thread="t",
        requirements=("FR-1",),
        token="x" * 32,
        ledger="/l",
        caps=Caps(5, tool_calls=3),
        upstreams={"u": upstream(key="k")},
        models={"m": Model("m", "u", "x", 10, PRICE)},
    )
    assert GatewayConfig.load(json.loads(config.dump())) == config
    assert "'k'" not in repr(config)
    assert "x" * 32 not in repr(config)
    keyed = config.with_keys({"upstreams": {"u": {"key": "new", "other": 1}}})
    assert keyed.upstreams["u"].key == "new"


def test_anthropic_usage_with_one_sum_or_split():
    only = read_usage(Format.MESSAGES, {"input_tokens": 1, "output_tokens": 2, "cache_creation_input_tokens": 30})
    assert (only.cache_write_5m_tokens, only.cache_write_1h_tokens) == (30, 0)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_cut_wherever_the_chunks_fall(size):
    raw = b"event: a\r\ndata: {}\r\n\r\ndata: 1\n\n: comment\n\ndata: [DONE]\n\nrest"
    splitter = EventSplitter()
    events = [event for at in range(0, len(raw), size) for event in splitter.feed(raw[at : at + size])]
    assert b"".join(events) + splitter.rest() == raw
    assert len(events) == 4


def test_an_endless_event_is_refused(monkeypatch):
    monkeypatch.setattr("inbounds.gateway.replies.EVENT_BYTES_MAX", 100)
    with pytest.raises(BrokenReplyError):
        EventSplitter().feed(b"x" * 101)


def test_every_refused_field_is_outside_the_allowlist():
    for fields in allowed.FIELDS.values():
        assert not fields & set(allowed.REFUSED_FIELDS)
