"""The dependency layer of a thread: which one its base commit needs, and building it in a jail of its own (N8).

The build sees manifests only, reaches the package index through a GET-only proxy, and leaves a read-only directory
named by the manifests' hash. Agents and testers mount it; nothing they write reaches it.
"""

import json
import os
import platform
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from inbounds.contracts.errors import HostError, InboundsError
from inbounds.contracts.job import GATEWAY_PORT, LAYER, OUT
from inbounds.deps import build, manifests
from inbounds.run.crew import Crew
from inbounds.run.documents import Documents
from inbounds.run.home import Home
from inbounds.run.mounts import META
from inbounds.run.workbench import JOB_DIRECTORY, read_limited
from inbounds.sandbox.host import jail_python
from inbounds.sandbox.identity import Identity, identity
from inbounds.sandbox.spec import Bind, JailLimits, JailSpec, Listener
from inbounds.store.descent import delete_tree
from inbounds.store.store import Store

ENV = "env"
FILES_MAX = 4_000  # manifests of one repository that are read to find its own
ANSWER_BYTES_MAX = 64 << 20  # the list of packages and hashes
BUILD_LIMITS = JailLimits(processes=512, tmp_bytes=2 << 30, home_bytes=1 << 30)


@dataclass(frozen=True, slots=True)
class Need:
    """What a thread's base commit needs: the layer's key, its manifests, and the tree's paths."""

    key: str
    manifests: tuple[manifests.Manifests, ...]
    paths: tuple[str, ...]
    thread: str


def need(store: Store, tree: str, thread: str) -> Need:
    """Read the manifests of the base commit; the key also names the interpreter and the platform."""
    nodes = store.ls(tree)
    chosen = [node for node in nodes if manifests.is_manifest(node.path)][:FILES_MAX]
    files = {node.path: store.read_blob(node.blob) for node in chosen}
    found = manifests.find(files, "" if thread == "." else thread)
    key = manifests.key(found, _python_version(), f"{platform.system()}-{platform.machine()}")
    return Need(key, found, tuple(node.path for node in nodes), thread)


def pythonpath(wanted: Need) -> tuple[str, ...]:
    """Repository directories that hold the project's own packages."""
    return _plan(wanted).pythonpath


def sources(needed: Need) -> tuple[str, ...]:
    """The manifest files, as the repository names them."""
    return tuple(path for one in needed.manifests for path in one.sources)


def needed(home: Home, store: Store, tree: str, documents: Documents | None) -> tuple[str, tuple[str, ...]]:
    """The layer's key and what goes on PYTHONPATH, built or not."""
    del home
    wanted = need(store, tree, documents.thread if documents else ".")
    return wanted.key, _plan(wanted).pythonpath


def built(home: Home, key: str) -> dict[str, Any] | None:
    """What is known of a finished layer, or None."""
    try:
        found = json.loads((home.layers / key / META).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    assert isinstance(found, dict)
    return found


def ensure(home: Home, wanted: Need, say: Callable[[str], None]) -> dict[str, Any]:
    """Build the layer unless it is there; returns its facts. A failed build leaves nothing."""
    kept = built(home, wanted.key)
    if kept is not None:
        return kept
    plan = _plan(wanted)
    for note in plan.notes:
        say(note)
    say(f"building the dependency layer {wanted.key[:12]} from {', '.join(sources(wanted)) or 'the test runner alone'}")
    scratch = Path(tempfile.mkdtemp(prefix="inbounds-layer-", dir=home.layers))
    try:
        facts = _build(wanted, plan, scratch)
        _write_protect(scratch / ENV)
        (scratch / META).write_text(json.dumps(facts, sort_keys=True), encoding="utf-8")
        target = home.layers / wanted.key
        try:
            scratch.rename(target)
        except OSError:
            if built(home, wanted.key) is None:  # another process may have been faster
                raise
    except OSError as error:
        raise HostError(f"the layer cannot be built: {error.strerror}", where=str(home.layers)) from error
    finally:
        if scratch.exists():
            delete_tree(str(scratch))
    return facts


def _plan(wanted: Need) -> build.LayerPlan:
    return build.plan(wanted.manifests, python=str(jail_python()), packages=wanted.paths)


def _build(wanted: Need, plan: build.LayerPlan, scratch: Path) -> dict[str, Any]:
    # a layer is looked at by every verb, and built once: HTTP and TLS are for building
    from inbounds.deps.control import IndexProxy
    from inbounds.deps.upstream import discover

    who = identity(wanted.key)
    env, out, job = scratch / ENV, scratch / "out", scratch / "job"
    for path in (env, out, job):
        path.mkdir(mode=0o755)
        _give(path, who)
    for name, content in plan.files.items():
        (job / name).write_bytes(content)
    crew = Crew(who)
    proxy = IndexProxy.start(discover()[0])
    try:
        jail = crew.open(
            JailSpec(
                role="builder",
                argv=plan.argv,
                cwd="/tmp",  # noqa: S108 - inside the build jail, private to it
                env=plan.env,
                binds=(
                    Bind(str(env), LAYER, writable=True, executable=True),
                    Bind(str(out), OUT, writable=True),
                    Bind(str(job), JOB_DIRECTORY),
                ),
                listeners=(Listener("proxy", "tcp", GATEWAY_PORT),),
                limits=BUILD_LIMITS,
                deadline_ms=plan.deadline_ms,
                executables=("/tmp",),  # noqa: S108 - build back ends run from there
            ),
            scratch,
        )
        proxy.attach(jail.listeners["proxy"])
        jail.go()
        ended = crew.finish(jail)
    finally:
        crew.halt()
        proxy.stop()
    read = {name: read_limited(out / name, ANSWER_BYTES_MAX) for name in plan.outputs}
    outputs = {name: content for name, content in read.items() if content is not None}
    try:
        resolved = build.read(ended.exit_code, outputs)
    except InboundsError as error:
        said = (read_limited(scratch / "stderr", 1 << 20) or b"").decode("utf-8", "replace").strip()[-1_500:]
        raise type(error)(
            f"{error.found}{': ' + said if said else ''}", expected=error.expected, fix=error.fix, where=error.where
        ) from error
    for path in (out, job, scratch / "stdout", scratch / "stderr"):
        delete_tree(str(path)) if path.is_dir() else path.unlink(missing_ok=True)
    return {
        "key": wanted.key,
        "sources": list(sources(wanted)),
        "locked": plan.locked,
        "resolved": [asdict(package) for package in resolved],
        "pythonpath": list(plan.pythonpath),
        "mounts": dict(plan.mounts),
    }


def _give(path: Path, who: Identity) -> None:
    if who.dropped:
        os.chown(path, who.uid, who.gid)


def _write_protect(path: Path) -> None:
    """Read-only for everybody, and root's own where root builds: no run's user may change a shared layer."""
    for place, directories, files in os.walk(path):
        for name in (*directories, *files, ""):
            item = os.path.join(place, name) if name else place
            if os.geteuid() == 0:
                os.chown(item, 0, 0, follow_symlinks=False)
            if not os.path.islink(item):
                os.chmod(item, os.stat(item).st_mode & 0o755 & ~0o222 | (0o200 if os.path.isdir(item) else 0))


def _python_version() -> str:
    return f"{platform.python_implementation()}-{platform.python_version()}:{jail_python()}"
