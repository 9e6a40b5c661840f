"""Notices against real programs and a real HTTP server; whatever goes wrong is a value."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from inbounds.notify.notice import Message, Settings
from inbounds.notify.tell import tell

MESSAGE = Message(
    "20261120-231500-a1b2c3",
    "STOP_BUDGET_EXCEEDED",
    "the run cap\x1b[2J\n<a href=x>click</a>",
    "/state/runs/x/report.html",
    "inbounds resume 20261120-231500-a1b2c3",
)


class Hook(ThreadingHTTPServer):
    """A chat server: keeps what it got, answers to order."""

    daemon_threads = True

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], Any]] = []
        self.status, self.wait_s, self.location = 200, 0.0, ""
        super().__init__(("127.0.0.1", 0), Answer)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook?team=billing"


class Answer(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), json.loads(body)))
        time.sleep(self.server.wait_s)
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()

    do_GET = do_POST  # noqa: N815 - the name is http.server's

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def only_hook(url: str, **more: Any) -> Settings:
    return Settings(desktop=False, webhook=url, **more)


def test_a_webhook_gets_five_plain_strings_and_nothing_else(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-secret")
    assert [(n.channel, n.ok, n.detail) for n in tell(only_hook(hook.url), MESSAGE)] == [("webhook", True, "HTTP 200")]
    path, headers, body = hook.got[0]
    assert path == "/hook?team=billing"
    assert headers["Content-Type"] == "application/json"
    assert set(body) == {"run_id", "code", "why", "report", "needs"}
    assert body["why"] == "the run cap?[2J?<a href=x>click</a>"
    assert "sk-ant" not in json.dumps([headers, body])


def test_a_redirect_is_not_followed(hook: Hook) -> None:
    hook.status, hook.location = 307, hook.url
    assert tell(only_hook(hook.url), MESSAGE)[0].detail == "refused: it redirects (307)"
    assert len(hook.got) == 1


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_a_failing_server_is_a_value(hook: Hook, status: int) -> None:
    hook.status = status
    assert [(n.ok, n.detail) for n in tell(only_hook(hook.url), MESSAGE)] == [(False, f"HTTP {status}")]


def test_a_slow_server_does_not_hold_the_stop_up(hook: Hook) -> None:
    hook.wait_s = 3
    start = time.monotonic()
    notice = tell(only_hook(hook.url, timeout_s=1), MESSAGE)[0]
    assert (notice.ok, notice.detail.startswith("failed: TimeoutError")) == (False, True)
    assert time.monotonic() - start < 2.5


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("http://192.0.2.1/hook", "http only to the loopback"),
        ("http://169.254.169.254/latest/meta-data", "http only to the loopback"),
        ("https://169.254.169.254/", "169.254.169.254 is not a public address"),
        ("https://10.1.2.3/", "10.1.2.3 is not a public address"),
        ("https://127.0.0.1/", "127.0.0.1 is not a public address"),
        ("https://[::1]/", "::1 is not a public address"),
        ("https://[::ffff:10.0.0.1]/", "10.0.0.1 is not a public address"),
        ("https://[fe80::1]/", "fe80::1 is not a public address"),
        ("https://0.0.0.0/", "0.0.0.0 is not a public address"),
        ("https://[64:ff9b::a00:1]/", "10.0.0.1 is not a public address"),
        ("https://[2002:7f00:1::]/", "127.0.0.1 is not a public address"),
        ("https://224.0.0.1/", "224.0.0.1 is not a public address"),
        ("https://user:secret@example.org/", "a password in the URL"),
        ("ftp://127.0.0.1/", "neither https nor loopback http"),
        ("file:///etc/passwd", "neither https nor loopback http"),
        ("http://127.0.0.1/\r\nX-Evil: 1", "no plain URL"),
        ("https://" + "a" * 3_000, "no plain URL"),
    ],
)
def test_an_address_that_is_a_trap_is_refused_before_anything_is_sent(url: str, detail: str) -> None:
    notice = tell(only_hook(url, timeout_s=2), MESSAGE)[0]
    assert not notice.ok
    assert detail in notice.detail
    assert "secret" not in notice.detail


def test_a_private_network_opens_by_policy_only() -> None:
    notice = tell(only_hook("https://127.0.0.1:1/", private_allowed=("127.0.0.0/8",), timeout_s=2), MESSAGE)[0]
    assert "ConnectionRefusedError" in notice.detail


@pytest.mark.parametrize(
    "url", ["https://inbounds-nowhere.invalid/", "http://127.0.0.1:1/", "https://[bad", "http://127.0.0.1:99999/"]
)
def test_what_cannot_be_reached_is_a_value(url: str) -> None:
    notice = tell(only_hook(url, timeout_s=2), MESSAGE)[0]
    assert (notice.ok, notice.detail.startswith("failed: ")) == (False, True)


def test_a_server_that_talks_nonsense_is_a_value() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def nonsense() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(65_536)
                peer.sendall(b"\x00\xff\x1b[2J" * 100 + b"\r\n\r\n")

        thread = threading.Thread(target=nonsense)
        thread.start()
        notice = tell(only_hook(f"http://127.0.0.1:{server.getsockname()[1]}/"), MESSAGE)[0]
        thread.join()
    assert not notice.ok
    assert notice.detail.isprintable()


def program(folder: Path, name: str, exit_code: int = 0) -> dict[str, str]:
    """A notifier that writes its arguments down, first on a PATH of its own."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(
        f'#!/bin/sh\nfor a in "$@"; do printf "%s\\0" "$a"; done > {folder}/argv\necho broken >&2\nexit {exit_code}\n'
    )
    path.chmod(0o755)
    return {"PATH": str(folder), "DBUS_SESSION_BUS_ADDRESS": "unix:path=/nonexistent"}


def arguments(folder: Path) -> list[str]:
    return (folder / "argv").read_text().split("\0")[:-1]


@pytest.mark.parametrize("name", ["notify-send", "gdbus"])
def test_a_desktop_notice_is_plain_text(tmp_path: Path, name: str) -> None:
    env = program(tmp_path / "bin", name)
    notice = tell(Settings(env=env), MESSAGE)[0]
    assert (notice.channel, notice.ok, notice.detail) == ("desktop", True, name)
    given = " ".join(arguments(tmp_path / "bin"))
    assert "STOP_BUDGET_EXCEEDED" in given
    assert "&lt;a href=x&gt;" in given
    assert "<a" not in given
    assert given.isprintable()


def test_a_text_that_looks_like_an_option_is_text(tmp_path: Path) -> None:
    env = program(tmp_path / "bin", "notify-send")
    tell(Settings(env=env), Message("r", "DONE", "--help", "/r", "-x"))
    given = arguments(tmp_path / "bin")
    assert given.index("--") < given.index("--help — -x")


def test_a_notifier_that_fails_says_why(tmp_path: Path) -> None:
    notice = tell(Settings(env=program(tmp_path / "bin", "notify-send", 3)), MESSAGE)[0]
    assert (notice.ok, notice.detail) == (False, "failed: notify-send: broken")


def test_no_notifier_is_said_and_not_hidden() -> None:
    notice = tell(Settings(env={"PATH": "/nonexistent", "DBUS_SESSION_BUS_ADDRESS": "x"}), MESSAGE)[0]
    assert (notice.ok, notice.detail) == (False, "absent: no notifier")


def test_this_hosts_own_desktop_answers_one_way_or_the_other() -> None:
    notices = tell(Settings(timeout_s=5, env=dict(os.environ)), MESSAGE)
    assert len(notices) == 1
    assert notices[0].ok or notices[0].detail.startswith(("absent", "failed"))


def test_one_channels_fault_does_not_silence_the_other(hook: Hook) -> None:
    notices = tell(Settings(webhook=hook.url, env={"PATH": ""}), MESSAGE)
    assert [(n.channel, n.ok) for n in notices] == [("desktop", False), ("webhook", True)]


def test_nothing_configured_tells_nobody() -> None:
    assert tell(Settings(desktop=False), MESSAGE) == []
