"""The broker as a real process: real sockets, a real seal, a supervisor's side that answers."""

import contextlib
import gzip
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from inbounds.broker.control import BrokerProcess, Call
from inbounds.broker.tools import Tool
from inbounds.program import channel

TOKEN = "run-token-0123456789"
TESTS = Tool(
    "run_tests",
    "Run the thread's tests.",
    {"type": "object", "properties": {"path": {"type": "string"}}, "additionalProperties": False},
)


class Desk:
    """A supervisor's desk: the broker, a listener, and a record of what was asked."""

    def __init__(self, *tools):
        self.broker = BrokerProcess.start(TOKEN, tools or (TESTS,))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.calls: list[Call] = []
        self.hold = threading.Event()
        self.hold.set()
        self.broker.on_call(self._called)
        self.broker.attach(self.listener, "agent")
        self.listener.close()

    def _called(self, call):
        self.calls.append(call)
        threading.Thread(target=self._answer, args=(call,), daemon=True).start()

    def _answer(self, call):
        self.hold.wait(20)
        if self.broker.process.poll() is None and not self.broker._child.stopping:
            self.broker.answer(call.id, f"ran {dict(call.arguments)}")

    def ask(self, path, body, *, token=TOKEN, method="POST", headers=()):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", **dict(headers)}
        connection.request(method, path, raw, sent)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response.status, json.loads(text) if text.startswith(b"{") else text

    def rpc(self, method, params=None, number=1):
        return self.ask("/mcp", {"jsonrpc": "2.0", "id": number, "method": method, "params": params or {}})


@pytest.fixture
def desk():
    made = Desk()
    try:
        yield made
    finally:
        made.hold.set()
        made.broker.stop()


def test_speaks_mcp(desk):
    status, said = desk.rpc("initialize", {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {}})
    assert status == 200
    assert said["result"]["protocolVersion"] == "2025-03-26"
    assert said["result"]["capabilities"] == {"tools": {"listChanged": False}}
    assert desk.ask("/mcp", {"jsonrpc": "2.0", "method": "notifications/initialized"}) == (202, b"")
    assert desk.rpc("ping")[1]["result"] == {}
    tools = desk.rpc("tools/list")[1]["result"]["tools"]
    assert [tool["name"] for tool in tools] == ["run_tests"]
    assert tools[0]["inputSchema"] == TESTS.schema
    said = desk.rpc("tools/call", {"name": "run_tests", "arguments": {"path": "tests"}}, number="seven")[1]
    assert said["id"] == "seven"
    assert said["result"] == {"content": [{"type": "text", "text": "ran {'path': 'tests'}"}], "isError": False}
    assert desk.rpc("resources/list")[1]["error"]["code"] == -32601
    assert desk.ask("/mcp", b"", method="GET")[0] == 405


def test_answers_the_plain_door(desk):
    assert desk.ask("/tools/run_tests", {"path": "x"}) == (200, {"text": "ran {'path': 'x'}", "is_error": False})
    assert desk.ask("/tools/run_tests", b"") == (200, {"text": "ran {}", "is_error": False})


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("shell", {"command": "id"}),
        ("run_tests", {"command": "id"}),
        ("run_tests", {"path": ["x"]}),
        ("run_tests", {"path": "x" * 5000}),
        ("run_tests", "id"),
        (7, {}),
    ],
)
def test_refuses_what_is_not_declared(desk, name, arguments):
    said = desk.rpc("tools/call", {"name": name, "arguments": arguments})[1]
    assert said["error"]["code"] == -32602
    if isinstance(name, str):
        assert desk.ask(f"/tools/{name}", arguments)[0] == 400
    assert desk.calls == []


@pytest.mark.without("tool-allowlist")
def test_a_tool_that_is_not_declared_does_not_exist():
    shell = Tool("shell", "Run a command.", {"type": "object", "properties": {"command": {"type": "string"}}})
    declared = (TESTS, shell) if os.environ.get("INBOUNDS_TEST_WITHOUT") == "tool-allowlist" else (TESTS,)
    desk = Desk(*declared)
    refused = []
    desk.broker.on_refused(lambda tool, why: refused.append((tool, why)))
    try:
        listed = desk.rpc("tools/list")[1]["result"]["tools"]
        assert [tool["name"] for tool in listed] == ["run_tests"]
        desk.rpc("tools/call", {"name": "shell", "arguments": {"command": "id"}})
        desk.ask("/tools/shell", {"command": "id"})
        desk.rpc("tools/call", {"name": "run_tests", "arguments": {"path": "tests", "command": "id"}})
        assert desk.calls == []
        desk.broker.close()  # what was refused before is told before
        assert [tool for tool, _ in refused] == ["shell", "shell", "run_tests"]
        assert "'command' is no argument" in refused[-1][1]
    finally:
        desk.broker.stop()


def test_refuses_without_the_runs_token(desk):
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "run_tests"}}
    for token in ("", "wrong", TOKEN + "x", TOKEN[:-1], "é"):
        assert desk.ask("/mcp", call, token=token.encode().decode("latin-1"))[0] == 401
    assert desk.ask("/mcp", call, headers={"Origin": "http://evil.example"})[0] == 403
    assert desk.calls == []


@pytest.mark.parametrize(
    "raw",
    [b"", b"nonsense", b"[]", b'{"id":1}', b"[" * 30_000, b'{"jsonrpc":"2.0","id":[],"method":"ping"}', b"\xff\xfe"],
)
def test_answers_malformed_messages_with_an_error(desk, raw):
    status, said = desk.ask("/mcp", raw)
    assert status == 200
    assert "error" in said
    assert desk.rpc("ping")[0] == 200


def test_bounds_the_body(desk):
    assert desk.ask("/mcp", b" " * (33 << 10))[0] == 413
    assert desk.rpc("ping")[0] == 200


@pytest.mark.req("E10")
@pytest.mark.without("broker-close")
def test_close_starts_no_new_call(desk):
    if os.environ.get("INBOUNDS_TEST_WITHOUT") == "broker-close":
        desk.broker.close = lambda: None
    desk.hold.clear()
    replies = []
    early = threading.Thread(target=lambda: replies.append(desk.rpc("tools/call", {"name": "run_tests"})))
    early.start()
    while not desk.calls:
        time.sleep(0.01)
    waiting = threading.Thread(target=lambda: replies.append(desk.rpc("tools/call", {"name": "run_tests"})))
    waiting.start()
    time.sleep(0.2)
    desk.broker.close()
    asked = len(desk.calls)
    desk.hold.set()
    assert desk.rpc("tools/call", {"name": "run_tests"})[0] == 403
    assert desk.ask("/tools/run_tests", {})[0] == 403
    early.join(10)
    waiting.join(10)
    assert [said["result"]["isError"] for _, said in replies] == [True, True]
    assert len(desk.calls) == asked == 1


def test_one_call_at_a_time_and_a_short_queue(desk):
    desk.hold.clear()
    replies = []
    threads = [
        threading.Thread(target=lambda: replies.append(desk.rpc("tools/call", {"name": "run_tests"})))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while len(replies) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(desk.calls) == 1
    assert all(said["result"]["isError"] for _, said in replies)
    desk.hold.set()
    for thread in threads:
        thread.join(10)
    assert len(desk.calls) == 8
    assert sum(said["result"]["isError"] for _, said in replies) == 4


def test_a_flood_of_connections_does_not_shut_it(desk):
    with contextlib.ExitStack() as held:
        for _ in range(200):
            held.enter_context(socket.create_connection(("127.0.0.1", desk.port), timeout=5))
        time.sleep(0.5)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            assert desk.rpc("ping")[0] == 200
            break
        except OSError:
            time.sleep(0.2)
    else:
        pytest.fail("it does not answer after a flood")


def test_a_long_answer_loses_its_middle(desk):
    desk._answer = lambda call: desk.broker.answer(call.id, "a" + "é\x00" * 60_000 + "z")
    said = desk.rpc("tools/call", {"name": "run_tests"})[1]["result"]["content"][0]["text"]
    assert said[0] == "a"
    assert said[-1] == "z"
    assert "characters left out" in said


def test_a_new_listener_replaces_the_old_one(desk):
    before = desk.port
    for _ in range(20):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            desk.port = listener.getsockname()[1]
            desk.broker.attach(listener, "agent")
        assert desk.rpc("ping")[0] == 200
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", before), timeout=2)


def test_a_detached_listener_is_let_go(desk):
    desk.broker.detach("agent")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", desk.port), timeout=2).close()
        except ConnectionRefusedError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("the broker still listens")


def test_a_compressed_body_is_not_unpacked(desk):
    bomb = gzip.compress(b" " * (20 << 20))
    status, said = desk.ask("/mcp", bomb, headers={"Content-Encoding": "gzip"})
    assert (status, said["error"]["code"]) == (200, -32700)
    assert desk.rpc("ping")[0] == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000,
        b"POST /mcp HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /",
        b"POST /mcp HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"\x16\x03\x01" + bytes(200),
        b"\r\n" * 1000,
    ],
)
def test_broken_http_changes_nothing(desk, raw):
    with socket.create_connection(("127.0.0.1", desk.port), timeout=5) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(raw)
        connection.settimeout(1)
        with contextlib.suppress(TimeoutError, ConnectionError):
            assert b" 200 " not in connection.recv(4096)
    assert desk.rpc("ping")[0] == 200
    assert desk.calls == []


def test_one_that_dies_while_it_is_asked_to_close_is_closed(desk):
    os.kill(desk.broker.pid, signal.SIGSTOP)
    late = threading.Timer(0.3, os.kill, (desk.broker.pid, signal.SIGKILL))
    late.start()
    desk.broker.close()
    late.join()
    desk.broker.close()  # and so is one that is long dead


def test_it_dies_with_the_supervisor_and_says_when_it_dies_alone(desk):
    gone = threading.Event()
    desk.broker.on_gone(gone.set)
    os.kill(desk.broker.pid, signal.SIGKILL)
    assert gone.wait(10)

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = subprocess.Popen(
        [sys.executable, "-I", "-m", "inbounds.broker", "--control-fd", str(theirs.fileno())],
        pass_fds=(theirs.fileno(),),
    )
    theirs.close()
    assert channel.receive(ours).body["event"] == "ready"
    ours.close()
    assert child.wait(10) == 0


def test_the_process_is_sealed(desk):
    sealed = desk.broker.sealed
    absent = {name: why for name, why in sealed.items() if why != "enforced"}
    landlock = {"landlock_files", "landlock_network", "landlock_scopes"}
    assert set(sealed) == {"non_dumpable", "no_new_privs", "no_core", "closed_descriptors", "seccomp", *landlock}
    assert set(absent) <= landlock, absent
    lines = Path(f"/proc/{desk.broker.pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"
    assert status["Threads"].strip() == "1"
    # A process that can't be dumped belongs to root, whoever started it.
    assert os.stat(f"/proc/{desk.broker.pid}/environ").st_uid == 0


ATTEMPTS = """
import json, os, socket, subprocess, threading
from inbounds.broker.rights import RIGHTS
from inbounds.program.seal import begin, seal
sealed = begin() | seal(RIGHTS)
def attempt(name, act):
    try:
        act()
    except Exception as fault:
        return name, type(fault).__name__
    return name, "done"
tried = dict([
    attempt("read", lambda: open("/etc/hostname").read()),
    attempt("write", lambda: open("/tmp/inbounds-broker-escape", "w")),
    attempt("exec", lambda: os.execv("/bin/true", ["true"])),
    attempt("fork", os.fork),
    attempt("thread", lambda: threading.Thread(target=print).start()),
    attempt("connect", lambda: socket.create_connection(("127.0.0.1", 9))),
    attempt("signal", lambda: os.kill(os.getppid(), 0)),
])
print(json.dumps([sealed, tried]))
"""


def test_the_seal_holds():
    done = subprocess.run(
        [sys.executable, "-I", "-c", ATTEMPTS], capture_output=True, text=True, timeout=60, check=True
    )
    sealed, tried = json.loads(done.stdout.splitlines()[-1])
    assert sealed["seccomp"] == "enforced"
    assert set(tried.values()) <= {"PermissionError", "RuntimeError"}, tried
    assert not os.path.exists("/tmp/inbounds-broker-escape")
