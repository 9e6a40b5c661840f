"""Tool calls as hashes: the same call has the same hash however it came, in every format; limits hold."""

import json
import time
import tracemalloc
from typing import Any

import pytest
from gateway_rig import EVERY

from inbounds.contracts.canonical import digest
from inbounds.gateway import calls
from inbounds.gateway.calls import HASHES_MAX, call_hash
from inbounds.gateway.config import Format
from inbounds.gateway.replies import EventSplitter, Reading, event_data, read_reply, stream_meter
from inbounds.modelserver import wire_chat, wire_messages, wire_responses
from inbounds.modelserver.script import ToolCall, Usage
from inbounds.modelserver.wire import Asked, Reply, Wire

WIRES: dict[Format, Wire] = {
    Format.CHAT: wire_chat,
    Format.RESPONSES: wire_responses,
    Format.MESSAGES: wire_messages,
}
ASKED = Asked("m", True, "", "", 0, {}, None, True, 0)

# The streams of the providers' own references (tool use, fine-grained deltas), shortened where text repeats.
ANTHROPIC = """\
event: message_start
data: {"type":"message_start","message":{"id":"msg_014p","type":"message","role":"assistant","model":"m","stop_sequence":null,"usage":{"input_tokens":472,"output_tokens":2},"content":[],"stop_reason":null}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: ping
data: {"type": "ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Okay"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"toolu_01T1","name":"get_weather","input":{}}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\\"location\\":"}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":" \\"San Francisco, CA\\", \\"unit\\": \\"fahrenheit\\"}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":89}}

event: message_stop
data: {"type":"message_stop"}

"""
OPENAI_CHAT = """\
data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"call_D","type":"function","function":{"name":"get_weather","arguments":""}}]},"finish_reason":null}]}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\\"location\\":\\"San Francisco, CA\\""}}]},"finish_reason":null}]}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":",\\"unit\\":\\"fahrenheit\\"}"}}]},"finish_reason":null}]}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":5}}

data: [DONE]

"""
OPENAI_RESPONSES = """\
event: response.output_item.added
data: {"type":"response.output_item.added","response_id":"resp_1","output_index":0,"item":{"type":"function_call","id":"fc_1","call_id":"call_1","name":"get_weather","arguments":""}}

event: response.function_call_arguments.delta
data: {"type":"response.function_call_arguments.delta","response_id":"resp_1","item_id":"fc_1","output_index":0,"delta":"{\\"location\\":"}

event: response.function_call_arguments.done
data: {"type":"response.function_call_arguments.done","response_id":"resp_1","item_id":"fc_1","output_index":0,"arguments":"{\\"unit\\":\\"fahrenheit\\",\\"location\\":\\"San Francisco, CA\\"}"}

event: response.output_item.done
data: {"type":"response.output_item.done","response_id":"resp_1","output_index":0,"item":{"type":"function_call","id":"fc_1","call_id":"call_1","name":"get_weather","status":"completed","arguments":"{\\"unit\\":\\"fahrenheit\\",\\"location\\":\\"San Francisco, CA\\"}"}}

event: response.completed
data: {"type":"response.completed","response":{"id":"resp_1","status":"completed","output":[{"type":"function_call","id":"fc_1","call_id":"call_1","name":"get_weather","status":"completed","arguments":"{\\"unit\\":\\"fahrenheit\\",\\"location\\":\\"San Francisco, CA\\"}"}],"usage":{"input_tokens":9,"output_tokens":5}}}

"""
STREAMS = {Format.CHAT: OPENAI_CHAT, Format.RESPONSES: OPENAI_RESPONSES, Format.MESSAGES: ANTHROPIC}
WEATHER = digest({"name": "get_weather", "arguments": {"location": "San Francisco, CA", "unit": "fahrenheit"}})[:16]


def metered(wire: Format, raw: bytes) -> Reading:
    splitter, meter = EventSplitter(), stream_meter(wire)
    for event in [*splitter.feed(raw), splitter.rest()]:
        if (data := event_data(event)) is not None:
            meter.feed(data)
    return meter.reading


@pytest.mark.req("H20")
@pytest.mark.parametrize("wire", EVERY)
def test_a_providers_stream_has_the_hash_of_its_call(wire: Format) -> None:
    reading = metered(wire, STREAMS[wire].encode())
    assert (reading.tool_calls, reading.calls.hashes) == (1, [WEATHER])
    assert reading.usage is not None
    other = metered(wire, STREAMS[wire].replace("San Francisco", "Lisbon").encode())
    assert other.calls.hashes != [WEATHER]
    assert len(other.calls.hashes) == 1


MADE = (
    ToolCall("write", {"path": "a.py", "content": "x = 1\n" * 40}),
    ToolCall("write", {"path": "b.py", "content": "x = 1\n" * 40}),
    ToolCall("list", {}),
    ToolCall("wait", {"seconds": 0.5, "big": 1 << 60}),
    ToolCall("write", {"content": "x = 1\n" * 40, "path": "a.py"}),
)


@pytest.mark.req("H20")
@pytest.mark.parametrize("wire", EVERY)
def test_whole_and_streamed_calls_have_the_same_hashes(wire: Format) -> None:
    reply = Reply(1, 0, "m", "some text", MADE, Usage(input=9, output=5), False, 0)
    whole = read_reply(wire, WIRES[wire].whole(reply))
    streamed = metered(wire, b"".join(WIRES[wire].events(reply, ASKED)))
    assert streamed.calls.hashes == whole.calls.hashes
    assert whole.tool_calls == streamed.tool_calls == len(MADE)
    first, second, third, fourth, last = whole.calls.hashes
    assert first == last == digest({"name": "write", "arguments": MADE[0].arguments})[:16]
    assert len({first, second, third, fourth}) == 4


def test_free_form_and_other_tools_have_hashes() -> None:
    def read(*output: dict[str, Any]) -> list[str]:
        return read_reply(Format.RESPONSES, {"output": list(output)}).calls.hashes

    patch = {"type": "custom_tool_call", "name": "apply_patch", "input": "*** Begin", "call_id": "d"}
    shell = {"type": "local_shell_call", "call_id": "c", "status": "completed", "action": {"command": ["ls"]}}
    assert read(patch) == [digest({"name": "apply_patch", "arguments": "*** Begin"})[:16]]
    assert read(patch | {"call_id": "e", "id": "x"}) == read(patch)
    assert read(patch | {"namespace": "functions"}) != read(patch)
    assert read(shell) != read(shell | {"action": {"command": ["rm"]}})
    assert read({"type": "some_call", "id": "1", "q": 1}) == read({"type": "some_call", "id": "2", "q": 1})
    custom = {"custom": {"name": "apply_patch", "input": "*** Begin"}}
    body: dict[str, Any] = {"choices": [{"message": {"tool_calls": [custom], "function_call": {"name": "f"}}}]}
    assert read_reply(Format.CHAT, body).calls.hashes == [*read(patch), call_hash("f", None)]


def test_what_is_not_json_counts_as_text_and_nothing_is_the_empty_object() -> None:
    assert (
        call_hash("f", '{"a": 1, "b": [2]}') == call_hash("f", '{"b":[2],"a":1}') == call_hash("f", {"a": 1, "b": [2]})
    )
    assert call_hash("f", "") == call_hash("f", None) == call_hash("f", {}) == call_hash("f", " {} ")
    odd = ["{", "[" * 100_000, '"\\ud800"', '{"a": 1.5}', '{"a": 1.25}', "1e400", '{"a": 9007199254740993}']
    assert len({call_hash("f", text) for text in odd}) == len(odd)
    assert call_hash("f", {}) != call_hash("g", {})
    assert all(len(call_hash(name, "{}")) == 16 for name in ("", "\ud800", "ü"))


@pytest.mark.parametrize("wire", EVERY)
def test_a_call_that_never_ends_has_no_hash(wire: Format) -> None:
    cut = STREAMS[wire].split("\n\n")
    stop = next(i for i, event in enumerate(cut) if "unit" in event)
    reading = metered(wire, "\n\n".join([*cut[:stop], "", ""]).encode())
    assert (reading.tool_calls, reading.calls.hashes) == (1, [])


def many(wire: Format, count: int) -> Reply:
    made = tuple(ToolCall("f", {"n": n}) for n in range(count))
    return Reply(1, 0, "m", "", made, Usage(input=9, output=5), False, 0)


@pytest.mark.parametrize("wire", EVERY)
def test_no_more_hashes_than_the_limit(wire: Format) -> None:
    for count in (HASHES_MAX, HASHES_MAX + 30):
        reply = many(wire, count)
        for reading in (
            read_reply(wire, WIRES[wire].whole(reply)),
            metered(wire, b"".join(WIRES[wire].events(reply, ASKED))),
        ):
            assert (reading.tool_calls, len(reading.calls.hashes)) == (count, HASHES_MAX)
            assert len(set(reading.calls.hashes)) == HASHES_MAX


def test_arguments_without_end_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "HELD_CHARS_MAX", 100_000)
    found = calls.Calls()
    tracemalloc.start()
    try:
        for n in range(2_000):
            found.begin((0, n % 3), "f")
            found.piece((0, n % 3), str(n) * 2_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
    found.begin("last", "g")
    found.piece("last", '{"a":')
    found.piece("last", {"b": 1})
    found.piece("never begun", "x")
    found.end("last")
    found.end("last")
    assert len(found.hashes) == 1


@pytest.mark.parametrize("wire", EVERY)
def test_the_gateways_usage_carries_the_hashes(launch: Any, provider: Any, wire: Format) -> None:
    reply = many(wire, 3)

    def play(call: Any) -> None:
        if not call.body.get("stream"):
            call.reply(WIRES[wire].whole(reply))
            return
        call.start_stream()
        for event in WIRES[wire].events(reply, ASKED):
            call.chunk(event)
        call.end_stream()

    provider.play = play
    gateway = launch()
    assert [gateway.ask(wire, stream=stream).status for stream in (False, True)] == [200, 200]
    usages = gateway.wait("usage", 2)
    wanted = [call_hash("f", {"n": n}) for n in range(3)]
    assert [(u["state"], u["tool_hashes"], u["tool_hashes_more"]) for u in usages] == [("settled", wanted, 0)] * 2


def test_a_call_that_the_provider_never_finished_is_one_without_hash(launch: Any, provider: Any) -> None:
    provider.play = lambda call: call.stream(calls=2)  # blocks that begin and do not end
    gateway = launch()
    assert gateway.ask(Format.MESSAGES, stream=True).status == 200
    [usage] = gateway.wait("usage")
    assert (usage["tool_calls"], usage["tool_hashes"], usage["tool_hashes_more"]) == (2, [], 2)


def test_hashing_costs_little() -> None:
    text = json.dumps({"path": "a.py", "content": "x = 1\n" * 2_000})
    began = time.perf_counter()
    for _ in range(200):
        call_hash("write", text)
    assert (time.perf_counter() - began) / 200 < 0.005  # a 14 kB call; alone it is below 0.1 ms
