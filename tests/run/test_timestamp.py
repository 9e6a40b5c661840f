"""A time-stamp authority made on the spot: openssl behind a loopback server, and all the ways in which one can fail."""

import base64
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from inbounds.run import timestamp
from inbounds.run.timestamp import REPLY_TYPE, REQUEST_TYPE, SECONDS_MAX, check, stamp

NOTE = "inbounds.invalid/run/20261122-100000-abcdef\n7\nAAAA\n\n— inbounds-0123456789abcdef c2lnbmF0dXJl\n"
CONFIG = """
[tsa]
serial = {at}/serial
signer_cert = {at}/tsa.pem
signer_key = {at}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
ess_cert_id_alg = sha256
"""


class Authority:
    """One CA with one time-stamping certificate; `play` makes the reply of a query, honest unless a test says."""

    def __init__(self, at: Path, name: str) -> None:
        at.mkdir()
        self.at, self.ca = at, os.fspath(at / "ca.pem")
        self.play: Callable[[BaseHTTPRequestHandler, bytes], None] = self.honest
        self.seen: list[bytes] = []
        (at / "ext").write_text("extendedKeyUsage=critical,timeStamping\nkeyUsage=critical,digitalSignature\n")
        (at / "conf").write_text(CONFIG.format(at=at))
        (at / "serial").write_text("01\n")
        new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}"]
        (at / "req.conf").write_text(
            "[req]\ndistinguished_name=dn\nx509_extensions=ca\n[dn]\n[ca]\nbasicConstraints=critical,CA:TRUE\n"
        )
        conf = ["-config", "req.conf"]
        self.openssl(*new, *conf, "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2")
        self.openssl(*new[:-1], f"/CN={name} tsa", *conf, "-keyout", "tsa.key", "-out", "tsa.csr")
        signed = ["x509", "-req", "-in", "tsa.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
        self.openssl(*signed, "-out", "tsa.pem", "-days", "2", "-extfile", "ext")

    def openssl(self, *args: str) -> None:
        done = subprocess.run(["openssl", *args], cwd=self.at, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def reply(self, query: bytes) -> bytes:
        (self.at / "query").write_bytes(query)
        self.openssl("ts", "-reply", "-queryfile", "query", "-config", "conf", "-section", "tsa", "-out", "reply")
        return (self.at / "reply").read_bytes()

    def honest(self, http: BaseHTTPRequestHandler, query: bytes) -> None:
        answer(http, self.reply(query))


def answer(http: BaseHTTPRequestHandler, body: bytes, status: int = 200, kind: str = REPLY_TYPE, **more: str) -> None:
    http.send_response(status)
    for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **more}.items():
        http.send_header(name, value)
    http.end_headers()
    http.wfile.write(body)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl", path=timestamp.SEARCH) is None:
        pytest.skip("openssl is not installed: there is no witness without it")
    return Authority(tmp_path_factory.mktemp("tsa") / "one", "one")


@pytest.fixture
def authority(made: Authority) -> Authority:
    made.play = made.honest
    made.seen.clear()
    return made


@pytest.fixture
def url(authority: Authority) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == REQUEST_TYPE
            query = self.rfile.read(int(self.headers["Content-Length"]))
            authority.seen.append(query)
            try:
                authority.play(self, query)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/tsr?x=1"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.req("H14")
def test_a_checkpoint_is_stamped_and_the_token_holds_for_it_alone(authority: Authority, url: str) -> None:
    got = stamp(url, NOTE, authority.ca)
    assert (got.verified, got.why) == (True, "")
    assert abs(got.at_ms / 1000 - time.time()) < 60
    assert got.as_record() == {
        "url": url,
        "ok": True,
        "verified": True,
        "token": got.token,
        "stamped_at_ms": got.at_ms,
        "why": "",
    }
    assert NOTE.encode() not in authority.seen[0], "the authority sees a hash"
    assert check(NOTE, got.token, authority.ca) == ""
    assert "message imprint mismatch" in check(NOTE.replace("7", "8"), got.token, authority.ca)


def test_a_token_under_another_authority_does_not_hold(authority: Authority, url: str, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other", "other")
    got = stamp(url, NOTE, other.ca)
    assert (got.verified, got.token) == (False, "")
    assert "openssl ts" in got.why
    assert got.as_record()["ok"] is False
    good = stamp(url, NOTE, authority.ca)
    assert check(NOTE, good.token, other.ca)
    assert check(NOTE, good.token, authority.ca) == ""


def test_an_old_answer_is_none(authority: Authority, url: str) -> None:
    first = stamp(url, NOTE, authority.ca)
    old = base64.b64decode(first.token)
    authority.play = lambda http, _: answer(http, old)
    again = stamp(url, NOTE, authority.ca)
    assert "nonce" in again.why
    assert again.token == ""


def test_without_a_ca_file_it_is_kept_and_said_to_be_unverified(authority: Authority, url: str) -> None:
    got = stamp(url, NOTE)
    assert (got.verified, got.why) == (False, "")
    assert got.as_record()["ok"] is True
    assert check(NOTE, got.token, authority.ca) == ""


def _drip(http: BaseHTTPRequestHandler, _: bytes) -> None:
    for byte in b"HTTP/1.1 200 OK\r\n" * 20:
        http.wfile.write(bytes([byte]))
        http.wfile.flush()
        time.sleep(0.3)


def _endless(http: BaseHTTPRequestHandler, _: bytes) -> None:
    http.send_response(200)
    http.send_header("Content-Type", REPLY_TYPE)
    http.end_headers()
    while True:
        http.wfile.write(b"x" * 65_536)


REFUSED_REPLY = bytes.fromhex("3009300702010230000000")  # not even DER to its end


@pytest.mark.parametrize(
    ("play", "why"),
    [
        (lambda http, _: answer(http, b"", 500), "HTTP 500"),
        (lambda http, _: answer(http, b"", 302, Location="http://127.0.0.1:1/"), "HTTP 302"),
        (lambda http, _: answer(http, b"<html>", kind="text/html"), "an answer of type text/html"),
        (lambda http, _: answer(http, b"no token at all"), "openssl ts"),
        (lambda http, _: answer(http, REFUSED_REPLY), "openssl ts"),
        (lambda http, _: answer(http, b""), "openssl ts"),
        (_endless, "a reply of more than"),
        (_drip, "took too long"),
        (lambda http, _: time.sleep(SECONDS_MAX + 2), "took too long"),
        (lambda http, _: http.connection.shutdown(socket.SHUT_RDWR), ""),
    ],
    ids=["500", "redirect", "html", "rubbish", "torn", "empty", "endless", "drip", "silent", "hangs up"],
)
def test_a_witness_that_fails_is_recorded_in_time(
    authority: Authority, url: str, play: Callable[[BaseHTTPRequestHandler, bytes], None], why: str
) -> None:
    authority.play = play
    began = time.monotonic()
    got = stamp(url, NOTE, authority.ca)
    assert time.monotonic() - began < SECONDS_MAX + 1.5
    assert why in got.why
    assert got.why
    assert (got.token, got.verified, got.as_record()["ok"]) == ("", False, False)


@pytest.mark.parametrize(
    "bad",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "http://user:secret@127.0.0.1/",
        "127.0.0.1",
        "http://a b/",
        "http://127.0.0.1:99999/",
        "http://[::1",
        "http://x/" + "y" * 3_000,
    ],
)
def test_an_address_that_is_none(bad: str) -> None:
    got = stamp(bad, NOTE)
    assert got.why
    assert "secret" not in got.why
    assert not got.token


def test_nobody_there_no_ca_file_no_openssl(
    authority: Authority, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "refused" in stamp(f"http://127.0.0.1:{port}/", NOTE).why
    assert "no CA file" in stamp(url, NOTE, os.fspath(tmp_path / "absent.pem")).why
    assert "bytes" in stamp(url, "x" * 100_000).why
    assert check(NOTE, "no base64!", authority.ca)
    assert check(NOTE, "", authority.ca)
    monkeypatch.setattr(timestamp, "SEARCH", "/nonexistent")
    assert "not installed" in stamp(url, NOTE).why


def test_the_hosts_own_configuration_changes_nothing(
    authority: Authority, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Authority(tmp_path / "other", "other")
    (tmp_path / "evil.cnf").write_text("openssl_conf = nonsense\n[nonsense\n")
    monkeypatch.setenv("OPENSSL_CONF", os.fspath(tmp_path / "evil.cnf"))
    monkeypatch.setenv("SSL_CERT_FILE", authority.ca)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(tmp_path / "tmp"))
    assert stamp(url, NOTE, other.ca).verified is False, "a CA of the environment counts for nothing"
    assert stamp(url, NOTE, authority.ca).verified is True, "the control"
    assert list((tmp_path / "tmp").iterdir()) == [], "nothing is left behind"
