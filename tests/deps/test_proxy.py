import hashlib
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from inbounds.contracts.errors import OperatorError
from inbounds.deps import build, control, manifests, pages, upstream
from inbounds.program import landlock

from .conftest import Build, Running, Start

WHEEL = b"not really a wheel" * 100


class Index(http.server.BaseHTTPRequestHandler):
    """A small package index that also has things which must never be asked for."""

    asked: list[tuple[str, str, str]]

    def do_GET(self) -> None:
        self.asked.append((self.command, self.path, self.headers.get("Authorization", "")))
        port = self.server.server_address[1]  # type: ignore[union-attr]  # a TCP server's address is a pair
        answers: dict[str, tuple[str, bytes]] = {
            "/simple/a/": (
                "text/html",
                f'<a href="http://127.0.0.1:{port}/f/a-1.whl#sha256=00ff" data-requires-python="&gt;=3" '
                'data-core-metadata="true" onclick="x">a-1.whl</a> <a href="../../f/huge.whl">huge.whl</a>'.encode(),
            ),
            "/simple/j/": (
                pages.JSON_FORM,
                json.dumps({"name": "j", "files": [{"filename": "j.whl", "url": "/f/j.whl", "hashes": {}}]}).encode(),
            ),
            "/simple/inside/": ("text/html", b'<a href="http://127.0.0.1:6379/flushall">x.whl</a>'),
            "/simple/odd/": ("text/html", b'<a href="file:///etc/passwd">x</a>'),
            "/f/a-1.whl": ("application/octet-stream", WHEEL),
            "/f/a-1.whl.metadata": ("text/plain", b"Name: a"),
            "/f/j.whl": ("application/octet-stream", WHEEL),
            "/f/huge.whl": ("application/octet-stream", b"x" * 300_000),
            "/npm/p": (
                "application/json",
                json.dumps({"versions": {"1": {"dist": {"tarball": f"http://127.0.0.1:{port}/f/j.whl"}}}}).encode(),
            ),
        }
        if self.path == "/simple/away/":
            self.send_response(302)
            self.send_header("Location", "ftp://elsewhere.example/")
            self.end_headers()
            return
        kind, body = answers.get(self.path, ("", b""))
        self.send_response(200 if kind else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def index() -> Iterator[tuple[upstream.Upstream, list[tuple[str, str, str]]]]:
    asked: list[tuple[str, str, str]] = []
    handler = type("Handler", (Index,), {"asked": asked})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    at = f"127.0.0.1:{server.server_address[1]}"
    yield upstream.Upstream(f"http://me:secret@{at}/simple", f"http://{at}/npm", file_bytes_max=200_000), asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def running(index: tuple[upstream.Upstream, list[tuple[str, str, str]]], start_proxy: Start) -> Running:
    return start_proxy(index[0])


def test_pages_name_files_and_named_files_are_fetched(
    running: Running, index: tuple[upstream.Upstream, list[tuple[str, str, str]]]
) -> None:
    status, page, _ = running.ask("/simple/a/", Accept="text/html")
    assert status == 200
    assert b'<a href="/files/0/a-1.whl#sha256=00ff" data-core-metadata="true" data-requires-python="&gt;=3">' in page
    assert b"onclick" not in page
    assert running.ask("/files/0/a-1.whl")[:2] == (200, WHEEL)
    assert running.ask("/files/0/a-1.whl.metadata")[:2] == (200, b"Name: a")
    status, page, kind = running.ask("/simple/j/", Accept=pages.JSON_FORM)
    assert (status, kind) == (200, pages.JSON_FORM)
    name = json.loads(page)["files"][0]["url"]
    assert running.ask(name)[:2] == (200, WHEEL)
    document = json.loads(running.ask("/npm/p")[1])
    assert document["versions"]["1"]["dist"]["tarball"].startswith(running.address + "/files/")
    assert {authorization[:6] for _, _, authorization in index[1]} == {"Basic "}
    running.proxy.stop()
    requests = [event for event in running.proxy.events if event["event"] == "request"]
    assert [event["status"] for event in requests] == [200] * 6
    assert requests[1]["bytes"] == len(WHEEL)
    assert "secret" not in json.dumps([running.proxy.events, running.proxy.ready])


@pytest.mark.parametrize(
    ("method", "path", "data", "status"),
    [
        ("POST", "/simple/a/", b"x", 405),
        ("PUT", "/npm/p", b"{}", 405),
        ("DELETE", "/files/0/a-1.whl", None, 405),
        ("GET", "/simple/a/", b"body", 400),
        ("GET", "/simple/a/?x=stolen", None, 400),
        ("GET", "/files/0/other.whl", None, 404),
        ("GET", "/files/99/a-1.whl", None, 404),
        ("GET", "/simple/", None, 404),
        ("GET", "/simple/a/../../f/j.whl", None, 404),
        ("GET", "/simple/%2e%2e/", None, 404),
        ("GET", "/npm/-/whoami", None, 404),
        ("GET", "/npm/-/user", None, 404),
        ("GET", "/npm/p/-/p-1.tgz", None, 404),
        ("GET", "/f/j.whl", None, 404),
        ("GET", "/", None, 404),
    ],
)
def test_nothing_can_be_sent_and_nothing_else_fetched(
    method: str,
    path: str,
    data: bytes | None,
    status: int,
    running: Running,
    index: tuple[upstream.Upstream, list[tuple[str, str, str]]],
) -> None:
    running.ask("/simple/a/")
    before = len(index[1])
    assert running.ask(path, method, data)[0] == status
    assert len(index[1]) == before


@pytest.mark.parametrize(
    "raw",
    [
        b"CONNECT pypi.org:443 HTTP/1.1\r\nHost: pypi.org:443\r\n\r\n",
        b"GET http://169.254.169.254/latest/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /simple/a/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"\x16\x03\x01garbage\r\n\r\n",
    ],
)
def test_no_tunnel_and_no_other_host(
    raw: bytes, running: Running, index: tuple[upstream.Upstream, list[tuple[str, str, str]]]
) -> None:
    with socket.create_connection(("127.0.0.1", int(running.address.rpartition(":")[2])), timeout=30) as sock:
        sock.sendall(raw)
        status = sock.recv(4096).split(b" ")[1]
    assert status in {b"400", b"404", b"405"}
    assert index[1] == []


def test_limits_and_odd_upstreams_are_refused(running: Running) -> None:
    running.ask("/simple/a/")
    assert running.ask("/files/1/huge.whl")[0] == 403
    assert running.ask("/simple/odd/")[0] == 502
    named = re.search(rb"/files/\d+/\w+", running.ask("/simple/inside/", Accept="text/html")[1])
    assert named is not None
    status, why, _ = running.ask(named[0].decode())
    assert (status, b"port 6379" in why) == (502, True)
    assert running.ask("/simple/away/")[0] == 502
    assert running.ask("/simple/unknown/")[0] == 404


def test_a_build_fetches_no_more_than_it_may(
    index: tuple[upstream.Upstream, list[tuple[str, str, str]]], start_proxy: Start
) -> None:
    few = start_proxy(replace(index[0], requests_max=2))
    assert [few.ask("/simple/a/")[0] for _ in range(3)] == [200, 200, 403]
    small = start_proxy(replace(index[0], total_bytes_max=1000))
    small.ask("/simple/a/")
    with pytest.raises(Exception, match=r"IncompleteRead|reset|closed"):
        small.ask("/files/0/a-1.whl")


def test_an_upstream_that_is_not_there_is_an_answer(start_proxy: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    status, body, _ = start_proxy(upstream.Upstream(f"http://u:word@127.0.0.1:{port}/simple")).ask("/simple/a/")
    assert status == 502
    assert b"word" not in body


SEALED = """
import json, os, socket, subprocess, sys, threading
from inbounds.deps.rights import rights
from inbounds.program.seal import begin, seal
secret, other, allowed, forbidden = sys.argv[1:]
if os.environ.get("INBOUNDS_TEST_WITHOUT") != "proxy-seal":
    begin()
    seal(rights([int(allowed)]))
def attempt(what):
    try:
        what()
        return "done"
    except PermissionError:
        return "denied"
def connect(port):
    socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()
print(json.dumps({
    "read": attempt(lambda: open(secret).close()),
    "write": attempt(lambda: open(other, "w").close()),
    "run": attempt(lambda: subprocess.run(["/bin/true"])),
    "signal": attempt(lambda: os.kill(os.getppid(), 0)),
    "index": attempt(lambda: connect(allowed)),
    "other port": attempt(lambda: connect(forbidden)),
}))
"""


@pytest.mark.without("proxy-seal")
def test_the_seal_leaves_the_indexes_ports_and_no_file(tmp_path: Path) -> None:
    version = landlock.abi()
    if not version:
        pytest.skip("this kernel has no Landlock")
    secret = tmp_path / "secret"
    secret.write_text("x")
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [str(server.getsockname()[1]) for server in servers]
    argv = [sys.executable, "-c", SEALED, str(secret), str(tmp_path / "other"), *ports]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    for server in servers:
        server.close()
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if version < landlock.ABI_TCP:
        found["other port"] = "denied"  # told as absent; nothing to prove here
    denied = dict.fromkeys(("read", "write", "run", "signal", "other port"), "denied")
    assert found == {**denied, "index": "done"}


def test_a_running_proxy_says_what_holds(start_proxy: Start) -> None:
    sealed = start_proxy(upstream.Upstream()).proxy.ready["seal"]
    absent = {name for name, found in sealed.items() if found != "enforced"}
    assert "seccomp" in sealed
    assert all(name.startswith("landlock") for name in absent), sealed


def test_the_proxy_ends_with_its_supervisor() -> None:
    source = (
        "import time\nfrom inbounds.deps import control, upstream\n"
        "p = control.IndexProxy.start(upstream.Upstream())\nprint(p.pid, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        supervisor.send_signal(signal.SIGKILL)
        supervisor.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the proxy outlived its supervisor")


def test_a_configuration_that_can_not_work_is_the_operators() -> None:
    good = upstream.Upstream()
    object.__setattr__(good, "pip_index", "gopher://x")
    with pytest.raises(OperatorError, match="http or https"):
        control.IndexProxy.start(good)


def resolved(outputs: dict[str, bytes]) -> set[tuple[str, str]]:
    return {(row.name, row.version) for row in build.read(0, outputs)}


@pytest.mark.slow
def test_pip_installs_a_real_package_by_hash(registry: Running, build_layer: Build) -> None:
    page = json.loads(registry.ask("/simple/six/", Accept=pages.JSON_FORM)[1])
    digest = next(f["hashes"]["sha256"] for f in page["files"] if f["filename"].startswith("six-1.17.0-py2"))
    found = manifests.find({"requirements.txt": f"six==1.17.0 --hash=sha256:{digest}\n".encode()})
    built = build_layer(found, registry.address, ensure=("pytest",))
    assert built.code == 0, (built.stderr, built.outputs)
    assert ("six", "1.17.0") in resolved(built.outputs)
    assert "pytest" in {name for name, _ in resolved(built.outputs)}
    ran = subprocess.run([built.layer / "bin" / "pytest", "--version"], capture_output=True, check=False)
    assert ran.returncode == 0
    lock = json.loads((built.layer / "inbounds-lock.json").read_text())
    assert all(row["hash"].startswith("sha256:") for row in lock["resolved"])
    wrong = hashlib.sha256(b"").hexdigest()
    again = manifests.find({"requirements.txt": f"six==1.17.0 --hash=sha256:{wrong}\n".encode()})
    os.rename(built.layer.parent, built.layer.parent.with_name("first"))
    bad = build_layer(again, registry.address)
    with pytest.raises(OperatorError, match=r"(?i)hash"):
        build.read(bad.code, bad.outputs)


@pytest.mark.slow
def test_npm_installs_a_real_package_from_a_lock(registry: Running, build_layer: Build) -> None:
    document = json.loads(registry.ask("/npm/is-number")[1])
    dist = document["versions"]["7.0.0"]["dist"]
    lock = {
        "name": "x",
        "version": "1.0.0",
        "lockfileVersion": 3,
        "packages": {
            "": {"name": "x", "version": "1.0.0", "dependencies": {"is-number": "7.0.0"}},
            "node_modules/is-number": {
                "version": "7.0.0",
                "resolved": "https://registry.npmjs.org/is-number/-/is-number-7.0.0.tgz",
                "integrity": dist["integrity"],
                "engines": {"node": ">=0.12.0"},
            },
        },
    }
    package = {"name": "x", "version": "1.0.0", "dependencies": {"is-number": "7.0.0"}}
    files = {"package.json": json.dumps(package).encode(), "package-lock.json": json.dumps(lock).encode()}
    built = build_layer(manifests.find(files), registry.address)
    assert built.code == 0, (built.stderr, built.outputs)
    assert ("is-number", "7.0.0") in resolved(built.outputs)
    assert built.plan.mounts == {"node_modules": "node/node_modules"}
    assert (built.layer / "node" / "node_modules" / "is-number" / "index.js").exists()


@pytest.mark.slow
def test_uv_lock_is_exported_and_installed_by_hash(registry: Running, build_layer: Build) -> None:
    page = json.loads(registry.ask("/simple/six/", Accept=pages.JSON_FORM)[1])
    digest = next(f["hashes"]["sha256"] for f in page["files"] if f["filename"].startswith("six-1.17.0-py2"))
    project = b"[project]\nname='x'\nversion='1'\nrequires-python='>=3.11'\ndependencies=['six']\n"
    lock = f"""version = 1
revision = 3
requires-python = ">=3.11"

[[package]]
name = "six"
version = "1.17.0"
source = {{ registry = "https://pypi.org/simple" }}
wheels = [
    {{ url = "https://files.pythonhosted.org/six-1.17.0-py2.py3-none-any.whl", hash = "sha256:{digest}", size = 11050 }},
]

[[package]]
name = "x"
version = "1"
source = {{ virtual = "." }}
dependencies = [{{ name = "six" }}]

[package.metadata]
requires-dist = [{{ name = "six" }}]
"""
    found = manifests.find({"pyproject.toml": project, "uv.lock": lock.encode()})
    built = build_layer(found, registry.address)
    assert built.code == 0, (built.stderr, built.outputs)
    assert ("six", "1.17.0") in resolved(built.outputs)
