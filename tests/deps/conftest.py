"""An index proxy on a loopback listener, and a builder that runs a layer plan as a plain process."""

import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from inbounds.deps import build, control, upstream
from inbounds.deps.manifests import Manifests


@dataclass
class Running:
    proxy: control.IndexProxy
    address: str

    def ask(self, path: str, method: str = "GET", data: bytes | None = None, **headers: str) -> tuple[int, bytes, str]:
        request = urllib.request.Request(self.address + path, data=data, method=method, headers=headers)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return answer.status, answer.read(), answer.headers.get("Content-Type", "")
        except urllib.error.HTTPError as error:
            return error.code, error.read(), ""


Start = Callable[[upstream.Upstream], Running]


@pytest.fixture
def start_proxy() -> Iterator[Start]:
    running: list[control.IndexProxy] = []

    def start(told: upstream.Upstream) -> Running:
        proxy = control.IndexProxy.start(told)
        running.append(proxy)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            proxy.attach(listener)
            return Running(proxy, f"http://127.0.0.1:{listener.getsockname()[1]}")

    yield start
    for proxy in running:
        proxy.stop()


@pytest.fixture(scope="session")
def configured() -> upstream.Upstream:
    return upstream.discover()[0]


@pytest.fixture
def registry(configured: upstream.Upstream, start_proxy: Start) -> Running:
    """A proxy to the really configured indexes, or a skip with the reason."""
    running = start_proxy(configured)
    for path in ("/simple/six/", "/npm/is-number"):
        status, body, _ = running.ask(path)
        if status != 200:
            pytest.skip(f"the configured package index can't be reached: {body[:200]!r}")
    return running


@dataclass
class Built:
    code: int
    outputs: dict[str, bytes]
    layer: Path
    plan: build.LayerPlan
    stderr: str


Build = Callable[..., Built]


@pytest.fixture
def build_layer(tmp_path: Path) -> Iterator[Build]:
    base = tmp_path / "layer-build"

    def run(manifests: tuple[Manifests, ...], address: str, ensure: tuple[str, ...] = ()) -> Built:
        for name in ("job", "out", "scratch", "home"):
            (base / name).mkdir(parents=True)
        layer = base / "env"
        plan = build.plan(
            manifests,
            python=sys.executable,
            proxy=address,
            layer=str(layer),
            scratch=str(base / "scratch"),
            ensure=ensure,
        )

        def rebase(text: str) -> str:
            return text.replace("/job/", f"{base}/job/") if text.startswith("/job/") else text

        for name, data in plan.files.items():
            (base / "job" / name).write_bytes(data)
        text = plan.files["spec.json"].decode().replace('"/job/', f'"{base}/job/').replace('"/out/', f'"{base}/out/')
        (base / "job" / "spec.json").write_text(text)
        env = {**plan.env, "HOME": str(base / "home"), "PATH": f"{plan.env['PATH']}:{os.environ['PATH']}"}
        done = subprocess.run([rebase(a) for a in plan.argv], env=env, cwd=base, capture_output=True, check=False)
        outputs = {n: (base / "out" / n).read_bytes() for n in plan.outputs if (base / "out" / n).exists()}
        return Built(done.returncode, outputs, layer, plan, done.stderr.decode())

    yield run
    shutil.rmtree(base, ignore_errors=True)
