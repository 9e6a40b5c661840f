"""The scripted provider over real HTTP: three formats, streamed and not, its bill, its faults, its turns."""

import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from inbounds.contracts.errors import HostError, OperatorError
from inbounds.modelserver import script as scripts
from inbounds.modelserver.server import ModelServer

TOOL_CHAT = {"type": "function", "function": {"name": "write", "parameters": {"type": "object"}}}
PRICES = {"m-1": {"input": 3_000_000, "output": 15_000_000, "cache_read": 300_000, "cache_write": 3_750_000}}
TURNS = [
    {
        "text": "Writing é now, in more than one piece of text.",
        "calls": [
            {"name": "write", "arguments": {"path": "a", "content": "x" * 100}},
            {"name": "list", "arguments": {}},
        ],
        "usage": {"input": 1000, "output": 200, "cache_read": 50, "cache_write": 7},
    },
    {"text": "Done.", "usage": {"input": 2000, "output": 1}},
]
SCRIPT = {"prices": PRICES, "conversations": [{"match": ["greet"], "turns": TURNS}]}
# 1000*3 + 200*15 + 50*0.3 + 7*3.75 = 6041.25 micro-dollars, rounded up; then 2000*3 + 15.
COSTS = [6042, 6015]


def post(server, path, body, *, key=None, headers=()):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"Authorization": f"Bearer {server.key if key is None else key}", **dict(headers)}
    connection.request("POST", path, raw, sent)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response, text


def chat(server, *, stream=False, history=(), **more):
    body = {"model": "m-1", "tools": [TOOL_CHAT], "messages": [{"role": "user", "content": "greet"}, *history], **more}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return post(server, "/v1/chat/completions", body)


def events(text):
    """(event name, parsed data) of a stream, as a client sees it."""
    found = []
    for block in text.decode().strip().split("\n\n"):
        name = re.search(r"^event: (.*)$", block, re.MULTILINE)
        data = re.search(r"^data: (.*)$", block, re.MULTILINE)[1]
        found.append((name[1] if name else "", data if data == "[DONE]" else json.loads(data)))
    return found


@pytest.fixture
def server():
    with ModelServer(SCRIPT) as made:
        yield made


def test_chat_whole(server):
    _, text = chat(server)
    reply = json.loads(text)
    message = reply["choices"][0]["message"]
    assert reply["object"] == "chat.completion"
    assert message["content"] == TURNS[0]["text"]
    assert [json.loads(call["function"]["arguments"]) for call in message["tool_calls"]] == [
        call["arguments"] for call in TURNS[0]["calls"]
    ]
    assert reply["choices"][0]["finish_reason"] == "tool_calls"
    assert reply["usage"]["prompt_tokens"] == 1057
    assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] == 50
    assert reply["usage"]["completion_tokens"] == 200
    history = [message, {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "ok"}]
    _, text = chat(server, history=history)
    reply = json.loads(text)
    assert reply["choices"][0]["message"]["content"] == "Done."
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert [line.cost_micro_usd for line in server.bill.lines] == COSTS
    assert server.bill.cost_micro_usd == sum(COSTS)
    assert server.bill.tool_calls == 2


def test_chat_streamed(server):
    response, text = chat(server, stream=True)
    assert response.headers["Content-Type"].startswith("text/event-stream")
    found = [data for _, data in events(text)]
    assert found.pop() == "[DONE]"
    deltas = [chunk["choices"][0]["delta"] for chunk in found if chunk["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == TURNS[0]["text"]
    arguments = {0: "", 1: ""}
    for delta in deltas:
        for call in delta.get("tool_calls", ()):
            arguments[call["index"]] += call["function"].get("arguments", "")
    assert [json.loads(arguments[at]) for at in (0, 1)] == [call["arguments"] for call in TURNS[0]["calls"]]
    assert found[-1]["usage"]["completion_tokens"] == 200
    assert all("usage" not in chunk for chunk in found[:-1])


def test_chat_streams_no_usage_that_was_not_asked_for(server):
    body = {"model": "m-1", "stream": True, "tools": [TOOL_CHAT], "messages": [{"role": "user", "content": "greet"}]}
    _, text = post(server, "/v1/chat/completions", body)
    assert b'"usage"' not in text


def test_messages(server):
    body = {
        "model": "m-1",
        "max_tokens": 1000,
        "tools": [{"name": "write", "input_schema": {"type": "object"}}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "greet"}]}],
    }
    _, text = post(server, "/v1/messages?beta=true", body)
    reply = json.loads(text)
    assert [block["type"] for block in reply["content"]] == ["text", "tool_use", "tool_use"]
    assert reply["stop_reason"] == "tool_use"
    usage = reply["usage"]
    assert [usage[k] for k in ("input_tokens", "output_tokens", "cache_read_input_tokens")] == [1000, 200, 50]
    assert usage["cache_creation_input_tokens"] == 7

    _, text = post(server, "/v1/messages", body | {"stream": True}, headers={"x-api-key": server.key})
    found = events(text)
    assert all(name == data["type"] for name, data in found)
    names = [name for name, _ in found]
    assert names[0] == "message_start"
    assert names[-2:] == ["message_delta", "message_stop"]
    assert found[0][1]["message"]["usage"]["cache_read_input_tokens"] == 50
    assert found[-2][1]["usage"]["output_tokens"] == 200
    inputs = ""
    for _, data in found:
        if data["type"] == "content_block_delta" and data["index"] == 1:
            inputs += data["delta"]["partial_json"]
    assert json.loads(inputs) == TURNS[0]["calls"][0]["arguments"]
    assert [line.cost_micro_usd for line in server.bill.lines] == [COSTS[0]] * 2


def test_responses(server):
    user = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "greet"}]}
    body = {"model": "m-1", "tools": [{"type": "function", "name": "write"}], "input": [user]}
    _, text = post(server, "/v1/responses", body)
    reply = json.loads(text)
    assert [item["type"] for item in reply["output"]] == ["message", "function_call", "function_call"]
    assert reply["usage"]["input_tokens"] == 1057
    assert reply["usage"]["total_tokens"] == 1257

    _, text = post(server, "/v1/responses", body | {"stream": True})
    found = events(text)
    assert [data["sequence_number"] for _, data in found] == list(range(len(found)))
    assert found[0][0] == "response.created"
    name, last = found[-1]
    assert name == "response.completed"
    assert last["response"]["usage"] == reply["usage"]
    deltas = "".join(data["delta"] for name, data in found if name == "response.output_text.delta")
    assert deltas == TURNS[0]["text"]

    first, second = reply["output"][1:]
    answer = [{"type": "function_call_output", "call_id": call["call_id"], "output": "ok"} for call in (first, second)]
    for order in ([first, second, *answer], [first, answer[0], second, answer[1]]):
        _, text = post(server, "/v1/responses", body | {"input": [user, reply["output"][0], *order]})
        assert json.loads(text)["output"][0]["content"][0]["text"] == "Done."


@pytest.mark.parametrize(
    ("path", "body", "limited"),
    [
        ("/v1/chat/completions", {"max_completion_tokens": 20}, lambda r: r["choices"][0]["finish_reason"]),
        ("/v1/messages", {"max_tokens": 20}, lambda r: r["stop_reason"]),
        ("/v1/responses", {"max_output_tokens": 20}, lambda r: r["incomplete_details"]["reason"]),
    ],
)
def test_a_ceiling_on_output_is_obeyed_and_billed(server, path, body, limited):
    said = {"messages": [{"role": "user", "content": "greet"}], "input": "greet", "tools": [TOOL_CHAT | {"name": "w"}]}
    _, text = post(server, path, {"model": "m-1"} | said | body)
    assert limited(json.loads(text)) in {"length", "max_tokens", "max_output_tokens"}
    assert server.bill.lines[0].output_tokens == 20
    assert server.bill.tool_calls == 0


def test_the_key_is_checked(server):
    for key in ("", "wrong", server.key + "x"):
        response, text = post(server, "/v1/messages", {}, key=key)
        assert response.status == 401
        assert json.loads(text)["error"]["type"] == "authentication_error"
    assert server.bill.requests == 0
    assert len(server.seen) == 3


@pytest.mark.parametrize("body", [b"", b"[]", b"{", {"model": 7}, {"model": "m", "messages": 7}, {"model": "m"}])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_a_bad_request_is_answered(server, path, body):
    response, text = post(server, path, body)
    assert response.status == 400
    assert json.loads(text)["error"]["message"]


def test_asides_take_no_turn(server):
    body = {"model": "m-1", "messages": [{"role": "user", "content": "greet: give a title"}]}
    _, text = post(server, "/v1/chat/completions", body)
    assert json.loads(text)["choices"][0]["message"]["content"] == "Task"
    assert json.loads(chat(server)[1])["choices"][0]["message"]["tool_calls"]
    assert [line.turn for line in server.bill.lines] == ["aside", "0/0"]


def test_one_script_serves_several_agents():
    script = {
        "conversations": [
            {"match": ["billing", "iteration 2"], "turns": [{"text": "second"}]},
            {"match": ["billing"], "turns": [{"text": "first"}]},
            {"model": "big-", "turns": [{"text": "again"}], "loop": True},
        ]
    }
    with ModelServer(script) as server:

        def said(text, model="m", taken=0):
            history = [{"role": "assistant", "content": "x"}, {"role": "user", "content": "go on"}] * taken
            messages = [{"role": "user", "content": text}, *history]
            _, raw = post(server, "/v1/chat/completions", {"model": model, "tools": [TOOL_CHAT], "messages": messages})
            return json.loads(raw)["choices"][0]["message"]["content"]

        assert said("fix billing, iteration 1") == "first"
        assert said("fix billing, iteration 2") == "second"
        assert said("fix billing", taken=1) == "Nothing is left to do."
        assert said("else", "big-1", taken=9) == "again"
        assert said("else") == "Task"


def test_faults_to_order():
    turns = [{"text": "x" * 500, "usage": {"input": 10, "output": 10}, "fault": None}]

    def ask(fault, *, stream):
        script = {"prices": PRICES, "conversations": [{"turns": [turns[0] | {"fault": fault}]}]}
        with ModelServer(script) as server:
            try:
                response, text = chat(server, stream=stream)
            except (http.client.IncompleteRead, ConnectionError) as broken:
                return type(broken).__name__, server.bill.lines
            return (response.status, text), server.bill.lines

    for stream in (False, True):
        (status, _), lines = ask({"kind": "status", "status": 529}, stream=stream)
        assert (status, lines[0].cost_micro_usd) == (529, 0)
        broken, lines = ask({"kind": "cut"}, stream=stream)
        assert broken in {"IncompleteRead", "ConnectionResetError"}
        assert lines[0].cost_micro_usd == 180
        (status, text), lines = ask({"kind": "no_usage"}, stream=stream)
        assert (status, lines[0].cost_micro_usd) == (200, 180)
        assert b"prompt_tokens" not in text
    (status, text), _ = ask({"kind": "malformed"}, stream=False)
    with pytest.raises(ValueError):
        json.loads(text)
    (status, text), _ = ask({"kind": "malformed"}, stream=True)
    with pytest.raises(ValueError):
        events(text)


def test_a_hanging_request_is_not_billed_and_does_not_hold_up_the_end():
    server = ModelServer([{"text": "x", "fault": {"kind": "hang"}}]).start()
    outcome = []

    def ask():
        try:
            outcome.append(chat(server))
        except OSError as fault:
            outcome.append(fault)
        except http.client.HTTPException as fault:
            outcome.append(fault)

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.5)
    assert not outcome
    began = time.monotonic()
    server.stop()
    asking.join(10)
    assert time.monotonic() - began < 5
    assert isinstance(outcome[0], Exception)
    assert [(line.status, line.cost_micro_usd) for line in server.bill.lines] == [(0, 0)]


def test_a_fault_can_pass():
    with ModelServer([{"text": "fine", "fault": {"kind": "status", "status": 503, "times": 2}}]) as server:
        assert [chat(server)[0].status for _ in range(4)] == [503, 503, 200, 200]


def test_a_delay_is_a_delay():
    with ModelServer([{"text": "late", "delay_ms": 300}]) as server:
        began = time.monotonic()
        chat(server)
        assert time.monotonic() - began >= 0.3


def test_counts_tokens_and_lists_models(server):
    _, text = post(server, "/v1/messages/count_tokens", {"model": "m-1", "messages": []})
    assert json.loads(text)["input_tokens"] > 0
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", "/v1/models", headers={"x-api-key": server.key})
    assert [model["id"] for model in json.loads(connection.getresponse().read())["data"]] == ["m-1"]
    connection.close()
    assert server.bill.requests == 0


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"{", "JSON"),
        (b'{"conversations":[{"turn":[]}]}', "turn"),
        (b'{"conversations":[{"turns":[{"text":7}]}]}', "text"),
        (b'{"conversations":[{"turns":[{"delay_ms":-1}]}]}', "delay"),
    ],
)
def test_a_bad_script_is_named(raw, words):
    with pytest.raises(OperatorError, match=words):
        scripts.parse(raw)


def test_a_taken_port_is_named(server):
    with pytest.raises(HostError, match="port"):
        ModelServer(SCRIPT, port=server.port).start()


def test_the_program(tmp_path):
    script, bill = tmp_path / "script.json", tmp_path / "bill.jsonl"
    script.write_text(json.dumps(SCRIPT))
    argv = [sys.executable, "-I", "-m", "inbounds.modelserver", "--script", str(script), "--bill", str(bill)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            told = json.loads(process.stdout.readline())
            body = {"model": "m-1", "tools": [TOOL_CHAT], "messages": [{"role": "user", "content": "greet"}]}
            connection = http.client.HTTPConnection("127.0.0.1", told["port"], timeout=20)
            connection.request("POST", "/v1/chat/completions", json.dumps(body), {"x-api-key": told["key"]})
            assert connection.getresponse().status == 200
            connection.close()
            assert json.loads(bill.read_text())["cost_micro_usd"] == COSTS[0]
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    script.write_text("{}")
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 100
    assert "conversations" in done.stderr
