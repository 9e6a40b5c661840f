"""The gateway as the target: malformed HTTP, slow and huge bodies, and what its seal leaves it."""

import contextlib
import gzip
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time

import pytest
from gateway_rig import PATHS, TOKEN, altered, body_of

from inbounds.gateway.config import Format
from inbounds.gateway.program import CONNECTIONS_MAX
from inbounds.program import landlock


def raw(gateway, data: bytes, seconds: float = 10) -> bytes:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=seconds) as sock:
        sock.sendall(data)
        got = b""
        while chunk := sock.recv(65536):
            got += chunk
            if b"\r\n\r\n" in got:
                return got
        return got


def head(length: int | str, *more: str, path: str = "/v1/messages") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {TOKEN}", f"Content-Length: {length}", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@pytest.mark.req("G1")
def test_malformed_requests_get_a_clean_answer_and_cost_nothing(launch, provider):
    gateway = launch()
    body = json.dumps(body_of(Format.MESSAGES)).encode()
    chunked = "Transfer-Encoding: chunked"
    cases = {
        "smuggled length and chunks": head(len(body), chunked) + b"0\r\n\r\n",
        "two lengths": head(len(body), "Content-Length: 5") + body,
        "negative length": head(-1),
        "no length": head("abc"),
        "huge header": head(len(body), "X: " + "y" * 100_000) + body,
        "many headers": head(len(body), *[f"X-{n}: y" for n in range(500)]) + body,
        "bad chunk": head(0).replace(b"Content-Length: 0", chunked.encode()) + b"zz\r\n",
        "control characters": b"POST /v1/messages\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    }
    for name, data in cases.items():
        assert re.match(rb"HTTP/1.[01] 4", raw(gateway, data)), name
    assert not provider.seen
    assert gateway.ask().status == 200


@pytest.mark.req("G1")
def test_bodies_have_limits(launch, provider):
    gateway = launch()
    bomb = gzip.compress(b"x" * 10_000_000)
    assert gateway.ask(body=bomb, headers={"Content-Encoding": "gzip"}).status == 415
    assert raw(gateway, head(33 << 20)).startswith(b"HTTP/1.1 413")
    assert gateway.ask(body=b'{"a":' + b"[" * 50_000).status == 400
    assert gateway.ask(body=b'{"model":"m","messages":[],"max_tokens":NaN}').status == 400
    assert gateway.ask(method="PUT", body={}).status == 405
    assert not provider.seen
    assert gateway.ask().status == 200


def test_a_slow_body_hinders_nobody(launch, provider):
    gateway = launch()
    slow = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(70)]
    try:
        for sock in slow:
            sock.sendall(head(1000) + b"{")
        assert gateway.ask().status == 200
    finally:
        for sock in slow:
            sock.close()


def test_pipelined_requests_are_each_paid(launch, provider):
    gateway = launch()
    body = json.dumps(body_of(Format.CHAT)).encode()
    one = head(len(body), path=PATHS[Format.CHAT]) + body
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as sock:
        sock.sendall(one * 3)
        got = b""
        while got.count(b'"id": "1"') < 3:
            got += sock.recv(65536)
    assert gateway.wait("usage", 3)[-1]["spent_micro_usd"] == 210


def test_a_provider_that_redirects_or_compresses_is_not_followed(launch, provider):
    gateway = launch()
    provider.play = lambda call: call.reply(b"", 302, Location="http://169.254.169.254/")
    assert gateway.ask().status == 403
    provider.play = lambda call: call.reply(gzip.compress(b"{}"), 200, **{"Content-Encoding": "gzip"})
    assert gateway.ask().status == 502
    provider.play = lambda call: call.reply(b"<html>")
    assert gateway.ask().status == 502
    assert [event["state"] for event in gateway.wait("usage", 3)] == ["released", "unknown", "unknown"]


def test_a_new_listener_of_a_role_replaces_the_old(launch):
    gateway = launch()
    listener = socket.create_server(("127.0.0.1", 0))
    gateway.process.attach(listener, "agent")
    old, gateway.port = gateway.port, listener.getsockname()[1]
    listener.close()
    assert gateway.ask().status == 200
    assert gateway.process.status()["roles"] == ["agent"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", old), timeout=5)
    gateway.process.detach("agent")
    gateway.process.status()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", gateway.port), timeout=5)


SEALED = """
import json, os, socket, subprocess, sys, threading
from inbounds.gateway.rights import rights
from inbounds.program.seal import begin, seal
ledger, other, secret, allowed, forbidden = sys.argv[1:]
if os.environ.get("INBOUNDS_TEST_WITHOUT") != "gateway-seal":
    begin()
    seal(rights(ledger, None, [int(allowed)]))
def attempt(what):
    try:
        what()
        return "done"
    except PermissionError:
        return "denied"
    except OSError as error:
        return type(error).__name__
def connect(port):
    socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()
print(json.dumps({
    "write ledger": attempt(lambda: open(ledger, "r+b").close()),
    "write other": attempt(lambda: open(other, "w").close()),
    "make beside": attempt(lambda: open(ledger + ".new", "w").close()),
    "read secret": attempt(lambda: open(secret).close()),
    "run": attempt(lambda: subprocess.run(["/bin/true"])),
    "become": attempt(lambda: os.execv("/bin/true", ["true"])),
    "fork": attempt(os.fork),
    "signal": attempt(lambda: os.kill(os.getppid(), 0)),
    "packets": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)),
    "serve": attempt(lambda: socket.create_server(("127.0.0.1", 0))),
    "thread": attempt(lambda: threading.Thread(target=int).start()),
    "connect allowed": attempt(lambda: connect(allowed)),
    "connect forbidden": attempt(lambda: connect(forbidden)),
}))
"""


@pytest.mark.req("G1")
@pytest.mark.without("gateway-seal")
def test_the_seal_leaves_the_ledger_the_ports_and_nothing_else(tmp_path):
    abi = landlock.abi()
    if not abi:
        pytest.skip("this kernel has no Landlock")
    ledger, other, secret = tmp_path / "ledger", tmp_path / "other", tmp_path / "secret"
    for path in (ledger, other, secret):
        path.write_text("x")
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [str(server.getsockname()[1]) for server in servers]
    done = subprocess.run(
        [sys.executable, "-c", SEALED, str(ledger), str(other), str(secret), *ports],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ},
    )
    for server in servers:
        server.close()
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    if abi < 4:
        found["connect forbidden"] = found["serve"] = "denied"  # told as absent; nothing to prove here
    assert found == {
        "write ledger": "done",
        "write other": "denied",
        "make beside": "denied",
        "read secret": "denied",
        "run": "denied",
        "become": "denied",
        "fork": "denied",
        "signal": "denied",
        "packets": "denied",
        "serve": "denied",
        "thread": "done",
        "connect allowed": "done",
        "connect forbidden": "denied",
    }


def test_a_supervisor_that_reads_nothing_does_not_stall_the_gateway(launch, provider):
    stop = threading.Event()
    gateway = launch()
    gateway.process._on_event = lambda event: (gateway.heard.append(event), stop.wait(10))
    started = time.monotonic()
    assert [gateway.ask().status for _ in range(5)] == [200] * 5
    assert time.monotonic() - started < 8
    stop.set()


def memory_of(pid: int) -> int:
    """Bytes that a process holds in memory now."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def answers_again(gateway, seconds: float) -> bool:
    """Whether it does so in time; connections that were one too many are dropped until the others are gone."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(ConnectionError):
            if gateway.ask().status == 200:
                return True
        time.sleep(0.1)
    return False


def test_bodies_that_never_end_do_not_fill_the_host(launch, provider):
    """The gateway lives outside the jail's ceilings: what an agent sends must have its own."""
    gateway = launch()
    before = memory_of(gateway.process.pid)
    held: list[socket.socket] = []
    try:
        for _ in range(300):
            sock = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
            held.append(sock)
            try:
                sock.sendall(head(30 << 20) + b"x" * (3 << 20))
            except OSError:
                continue  # refused or closed: what is asked for here
        grown = memory_of(gateway.process.pid) - before
        assert grown < 400 << 20, f"{grown >> 20} MiB"
        assert grown > 50 << 20, "nothing was sent: this test shows nothing"
    finally:
        for sock in held:
            sock.close()
    assert answers_again(gateway, 20)


def test_connections_of_one_jail_have_a_limit(launch, provider):
    gateway = launch()
    held = [socket.create_connection(("127.0.0.1", gateway.port), timeout=10) for _ in range(CONNECTIONS_MAX + 20)]
    try:
        time.sleep(0.5)
        over = 0
        for sock in held:
            sock.setblocking(False)
            try:
                over += sock.recv(1) == b""
            except ConnectionResetError:
                over += 1
            except BlockingIOError:
                continue
        assert over == 20
    finally:
        for sock in held:
            sock.close()
    time.sleep(0.5)
    assert gateway.ask().status == 200


def test_a_body_of_nothing_but_brackets_is_not_decoded(launch, provider):
    gateway = launch()
    assert gateway.ask().status == 200
    before = memory_of(gateway.process.pid)
    body = b'{"model":"m","max_tokens":1,"messages":[' + b"[]," * (9 << 20) + b"[]]}"
    assert gateway.ask(body=body).status == 400
    with open(f"/proc/{gateway.process.pid}/status") as file:
        peak = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    assert peak - before < 250 << 20, f"{(peak - before) >> 20} MiB"


def test_counting_tokens_has_a_limit_of_its_own(launch, provider, monkeypatch):
    """It costs no money and no turn, and each is a message to the outside and a line of the journal."""
    altered(monkeypatch, "from inbounds.gateway import server; server.COUNTS_MAX = 3")
    gateway = launch()
    provider.play = lambda call: call.reply({"input_tokens": 7})
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    seen = [gateway.ask("/v1/messages/count_tokens", body).status for _ in range(5)]
    assert seen == [200, 200, 200, 403, 403]
    assert len(provider.seen) == 3
    assert len(gateway.wait("refused", 2)) == 2
