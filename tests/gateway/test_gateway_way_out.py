"""The operator's way out: an HTTPS provider behind a CONNECT proxy, with a certificate of a private authority."""

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from gateway_rig import EVERY, KEY, Call, Provider, Running, Server

from inbounds.gateway.config import Proxy, Upstream

NAME = "provider.inbounds.test"  # known to the proxy alone: only through it can anything be reached


@dataclass
class Authority:
    """A private certificate authority and a certificate of it for NAME, made anew."""

    bundle: Path
    chain: Path
    key: Path


@dataclass
class Tunnel:
    """A proxy that speaks CONNECT only, and leads NAME to one local port; keeps every byte that passed it."""

    port: int
    asked: list[str] = field(default_factory=list)
    passed: bytearray = field(default_factory=bytearray)


def make_authority(place: Path) -> Authority:
    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=place, check=True, capture_output=True, timeout=60)

    place.mkdir()
    (place / "ext").write_text(f"subjectAltName=DNS:{NAME}\n")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    authority = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=inbounds test", *authority)
    openssl("req", *curve, "-keyout", "server.key", "-out", "server.csr", "-subj", f"/CN={NAME}")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "ext")
    openssl("x509", "-req", "-in", "server.csr", "-out", "server.pem", *signed)
    return Authority(place / "ca.pem", place / "server.pem", place / "server.key")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: no certificate authority can be made for this test")
    return make_authority(tmp_path / "authority")


@pytest.fixture
def secure(authority: Authority) -> Iterator[tuple[Provider, int]]:
    """A provider behind TLS; its own port."""
    made = Provider()
    server = Server(("127.0.0.1", 0), type("Bound", (Call,), {"provider": made}))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.chain, authority.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield made, server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def tunnel(secure: tuple[Provider, int]) -> Iterator[Tunnel]:
    listener = socket.create_server(("127.0.0.1", 0))
    made = Tunnel(listener.getsockname()[1])

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while part := source.recv(65_536):
                made.passed += part
                sink.sendall(part)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return  # one side hung up, which is how these conversations end

    def serve(client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            part = client.recv(65_536)
            if not part:
                return
            head += part
        made.passed += head
        target = head.split(b" ")[1].decode()
        made.asked.append(target)
        if not head.startswith(b"CONNECT ") or target != f"{NAME}:443":
            client.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            return
        upstream = socket.create_connection(("127.0.0.1", secure[1]))
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        threading.Thread(target=pump, args=(upstream, client), daemon=True).start()
        pump(client, upstream)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield made
    listener.close()


def through(launch: Callable[..., Running], tunnel: Tunnel, bundle: Path | None) -> Running:
    upstream = Upstream("acme", EVERY, f"https://{NAME}", "X-Api-Key", "", KEY)
    proxy = Proxy(https=f"http://127.0.0.1:{tunnel.port}")
    return launch(upstreams={"acme": upstream}, proxy=proxy, ca_bundle=str(bundle) if bundle else None)


@pytest.mark.req("G1")
def test_the_gateway_goes_through_the_operators_proxy_with_the_operators_certificates(
    launch: Callable[..., Running], secure: tuple[Provider, int], tunnel: Tunnel, authority: Authority
) -> None:
    answer = through(launch, tunnel, authority.bundle).ask()
    assert answer.status == 200, answer.raw
    assert tunnel.asked == [f"{NAME}:443"]
    assert [seen.headers["x-api-key"] for seen in secure[0].seen] == [KEY]
    assert KEY.encode() not in tunnel.passed, "the proxy carries the key encrypted only"


def test_a_certificate_of_another_authority_gets_neither_key_nor_prompt(
    launch: Callable[..., Running], secure: tuple[Provider, int], tunnel: Tunnel, tmp_path: Path, authority: Authority
) -> None:
    assert authority.bundle.exists(), "the control is the test above: the right authority works"
    for bundle in (None, make_authority(tmp_path / "other").bundle):
        running = through(launch, tunnel, bundle)
        answer = running.ask()
        assert answer.status == 502, answer.raw
        assert KEY.encode() not in answer.raw
        assert secure[0].seen == []
        # nothing was sent, so nothing can have been billed
        assert running.process.status()["spent_micro_usd"] == 0
