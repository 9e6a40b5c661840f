"""How a dependency layer is built: what runs in the build jail, and what to make of its answer.

Pure planning; the run loop executes it in a jail that sees manifests only and reaches only the proxy. The layer stands
at the same path while it is built and while it is used, because scripts carry that path in their first line.
"""

import importlib.resources
import json
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inbounds.contracts.errors import HostError, OperatorError
from inbounds.contracts.job import GATEWAY_PORT, HOME, LAYER, OUT
from inbounds.deps.manifests import Manifests

JOB = "/job"
ANSWER = "layer.json"
DEADLINE_MS = 1_800_000  # half an hour: large scientific stacks over slow links
RESOLVED_MAX = 20_000
PROXY = f"http://127.0.0.1:{GATEWAY_PORT}"
# The version is free: uv only reads the lock, whose hashes decide what is installed.
UV = "uv"


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """`argv` for the build jail with `files` below /job and `env`; LAYER is writable there, and only there.

    Afterwards: `env_use` for agent and tester, `pythonpath` (repository-relative directories that hold the project's
    own packages), `mounts` (repository-relative directory -> path below the layer) to show read-only
    (node_modules).
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    files: Mapping[str, bytes]
    outputs: tuple[str, ...]
    locked: bool
    notes: tuple[str, ...]
    pythonpath: tuple[str, ...]
    env_use: Mapping[str, str]
    mounts: Mapping[str, str] = field(default_factory=dict)
    deadline_ms: int = DEADLINE_MS


@dataclass(frozen=True, slots=True)
class Resolved:
    """One installed package; `digest` is "sha256:..." or npm's integrity, "" where the index gave none."""

    kind: str
    name: str
    version: str
    digest: str


def plan(
    manifests: Iterable[Manifests],
    *,
    python: str,
    packages: Sequence[str] = (),
    ensure: Sequence[str] = ("pytest",),
    proxy: str = PROXY,
    layer: str = LAYER,
    scratch: str = "/tmp",  # noqa: S108 - the build jail's own
) -> LayerPlan:
    """The build for a thread's manifests, with the jail's interpreter `python`.

    `packages`: paths of the base commit, to see where its own packages stand. `ensure`: import names of tools that the
    tester needs, installed where the manifests do not bring them. A layer without manifests has these alone.
    """
    given = tuple(manifests)
    steps: list[dict[str, Any]] = [_step("venv", (python, "-I", "-m", "venv", "--symlinks", layer))]
    files: dict[str, bytes] = {}
    reports: list[str] = []
    mounts: dict[str, str] = {}
    pip = _Pip(layer, proxy, scratch, reports)
    for one in given:
        files |= {f"{one.kind}.{name}": data for name, data in one.files.items()}
        if one.kind == "pip" and one.files["requirements.txt"].strip():
            steps.append(pip.install("requirements", ("-r", f"{JOB}/pip.requirements.txt"), hashed=one.locked))
        elif one.kind == "uv":
            steps += _uv(one, pip)
        elif one.kind == "npm" and one.files:
            steps += _npm(pip)
            mounts[posixpath.join(one.directory, "node_modules")] = "node/node_modules"
    for name in ensure:
        step = pip.install(f"tool {name}", (name,), hashed=False)
        steps.append({**step, "unless": [f"{layer}/bin/python", "-I", "-c", f"import {name}"]})
    needs = {"npm": "apt install npm"} if mounts else {}
    spec = {"needs": needs, "layer": layer, "steps": steps, "reports": reports, "out": f"{OUT}/{ANSWER}"}
    source = importlib.resources.files("inbounds.deps").joinpath("layer_builder.py").read_bytes()
    files |= {"layer_builder.py": source, "spec.json": json.dumps(spec).encode()}
    return LayerPlan(
        argv=(python, "-I", "-B", f"{JOB}/layer_builder.py", f"{JOB}/spec.json"),
        env=_environment(layer, scratch),
        files=files,
        outputs=(ANSWER,),
        locked=all(one.locked for one in given),
        notes=(*(note for one in given for note in one.notes), *_unhashed(given, ensure)),
        pythonpath=_pythonpath([one.directory for one in given if one.kind != "npm"] or [""], packages),
        env_use={"VIRTUAL_ENV": layer, "PATH": f"{layer}/bin:/usr/local/bin:/usr/bin:/bin"},
        mounts=mounts,
    )


def read(exit_code: int, outputs: Mapping[str, bytes]) -> tuple[Resolved, ...]:
    """What was installed; OperatorError where a manifest can't be satisfied, HostError where this host lacks something.

    The bytes come out of a jail in which package build scripts ran: parsed with limits, shown as data.
    """
    try:
        answer = json.loads(outputs.get(ANSWER, b""))
        ok, problem, fix = answer["ok"] is True, _plain(answer["problem"], 4000), _plain(answer["fix"], 200)
        rows = [
            Resolved(*(_plain(row[k], 300) for k in ("kind", "name", "version", "hash"))) for row in answer["resolved"]
        ]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise HostError(
            f"the layer's build ended with {exit_code} and left no answer", where="dependency layer"
        ) from None
    if fix:
        raise HostError(problem, fix=fix, where="dependency layer")
    if not ok or exit_code != 0 or len(rows) > RESOLVED_MAX:
        raise OperatorError(
            problem or f"the build ended with exit code {exit_code}",
            expected="manifests that the configured package index can satisfy",
            where="dependency layer",
        )
    return tuple(rows)


def _plain(value: object, most: int) -> str:
    """Text from the build jail without control characters, so that it can be shown on a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in str(value)[:most])


@dataclass(frozen=True, slots=True)
class _Pip:
    layer: str
    proxy: str
    scratch: str
    reports: list[str]

    def install(self, name: str, what: tuple[str, ...], *, hashed: bool, target: str = "") -> dict[str, Any]:
        report = f"{self.scratch}/inbounds-report-{len(self.reports)}.json"
        argv = [f"{self.layer}/bin/python", "-I", "-m", "pip", "--isolated", "install", "--no-input", "--no-cache-dir"]
        argv += ["--disable-pip-version-check", "--index-url", f"{self.proxy}/simple/", "--prefer-binary", "-q"]
        argv += ["--require-hashes"] if hashed else []
        argv += ["--target", target] if target else ["--report", report]
        if not target:
            self.reports.append(report)
        return _step(name, (*argv, *what))


def _uv(one: Manifests, pip: _Pip) -> list[dict[str, Any]]:
    """The lock is exported by uv itself (markers and groups are its business) and installed by pip, by hash."""
    tool, project, made = (f"{pip.scratch}/inbounds-uv{end}" for end in ("", "-project", ".txt"))
    chosen = [part for name in one.options.get("extras", ()) for part in ("--extra", name)]
    chosen += [part for name in one.options.get("groups", ()) for part in ("--group", name)]
    export = [
        f"{tool}/bin/uv",
        "export",
        "--frozen",
        "--offline",
        "--no-emit-project",
        "--no-emit-workspace",
        "--no-config",
    ]
    export += ["--format", "requirements-txt", "--no-python-downloads", "--python", f"{pip.layer}/bin/python", *chosen]
    copy = "import shutil, sys; [shutil.copy(a, b) for a, b in zip(sys.argv[1::2], sys.argv[2::2])]"
    pairs = [f"{JOB}/uv.pyproject.toml", f"{project}/pyproject.toml", f"{JOB}/uv.uv.lock", f"{project}/uv.lock"]
    return [
        pip.install("uv", (UV,), hashed=False, target=tool),
        _step("uv project", (f"{pip.layer}/bin/python", "-I", "-c", copy, *pairs), cwd=project),
        {**_step("uv export", tuple(export), cwd=project), "stdout": made},
        pip.install("uv.lock", ("-r", made), hashed=True),
    ]


def _npm(pip: _Pip) -> list[dict[str, Any]]:
    """`npm ci` without scripts: install scripts would be the package authors' code in the layer."""
    project = f"{pip.layer}/node"
    copy = "import shutil, sys; [shutil.copy(a, b) for a, b in zip(sys.argv[1::2], sys.argv[2::2])]"
    pairs = [f"{JOB}/npm.package.json", f"{project}/package.json"]
    pairs += [f"{JOB}/npm.package-lock.json", f"{project}/package-lock.json"]
    argv = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]
    argv += [f"--registry={pip.proxy}/npm/", f"--cache={pip.scratch}/inbounds-npm", "--userconfig=/nonexistent"]
    return [
        _step("npm project", (f"{pip.layer}/bin/python", "-I", "-c", copy, *pairs), cwd=project),
        _step("npm ci", (*argv, "--globalconfig=/nonexistent-too"), cwd=project),
    ]


def _unhashed(given: Sequence[Manifests], ensure: Sequence[str]) -> list[str]:
    """What enters a layer without a hash fixed beforehand (N8), in words; the layer's own lock has what was taken."""
    notes = [f"{', '.join(one.sources)}: not locked by hash" for one in given if not one.locked and one.files]
    notes += [f"{name}: the newest version, if the manifests do not bring it" for name in ensure]
    return notes + ["uv: the newest version, to read uv.lock"] * any(one.kind == "uv" for one in given)


def _step(name: str, argv: tuple[str, ...], cwd: str = "/") -> dict[str, Any]:
    return {"name": name, "argv": list(argv), "cwd": cwd}


def _environment(layer: str, scratch: str) -> dict[str, str]:
    return {
        "HOME": HOME,
        "PATH": f"{layer}/bin:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PIP_CONFIG_FILE": "/dev/null",
        "PYTHONDONTWRITEBYTECODE": "",  # bytecode belongs into the layer, which is read-only afterwards
        "UV_CACHE_DIR": f"{scratch}/inbounds-uv-cache",
        "npm_config_update_notifier": "false",
    }


def _pythonpath(directories: Sequence[str], packages: Sequence[str]) -> tuple[str, ...]:
    """Where the project's own packages are imported from: src/ if it holds Python, and the directory itself."""
    found: list[str] = []
    for place in dict.fromkeys(directories):
        source = posixpath.join(place, "src")
        if any(path.startswith(source + "/") and path.endswith(".py") for path in packages):
            found.append(source)
        found.append(place)
    return tuple(found)
