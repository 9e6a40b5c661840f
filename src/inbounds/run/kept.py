"""Keep a visit's checkout and jail layout, before anybody has been in it, for the next visit of the same commit.

The other half of run/quick.py: this writes what that one reads. A visit that can't be kept is no fault: the next one is
prepared like this one. Bounded in number and size, the one that was used longest ago goes first.
"""

import contextlib
import marshal
import os
import time
from pathlib import Path

from inbounds.contracts.errors import InboundsError
from inbounds.run import quick
from inbounds.run.documents import Documents
from inbounds.run.home import Home
from inbounds.run.quick import META, TREE, VISITS, OddError, found, name_of, state
from inbounds.sandbox import hardened, layout
from inbounds.sandbox.host import ETC_SHARED, SYSTEM, bubblewrap, interpreter_prefix, jail_python
from inbounds.sandbox.identity import Identity
from inbounds.sandbox.spec import JailSpec
from inbounds.sandbox.volume import READ_ONLY, WRITABLE, Volume
from inbounds.store import twin
from inbounds.store.descent import delete_tree

KEPT_MAX = 8  # visits: a person goes back and forth between a few commits and two roles
FILES_MAX, BYTES_MAX = 20_000, 256 << 20  # copying more takes longer than a person wants to wait, and disk
TICK_NS = 20_000_000  # two ticks of the coarsest clock that file systems go by
OWN = ("sandbox", "store", "run", "contracts", "program")  # packages that shape a checkout or a jail
NEW, OLD = ".new-", ".old-"


def keep(home: Home, found_: Documents, role: str, commit: str, spec: JailSpec, who: Identity, volume: Volume,
         layer: Path) -> None:  # fmt: skip
    """Keep it where it is an ordinary one, made of what has not changed since this process began."""
    began_ns = _began_ns()
    visits = home.path / VISITS
    made = visits / f"{NEW}{os.getpid()}-{os.urandom(6).hex()}"
    try:
        facts = found(str(home.path), str(found_.top), found_.thread, role)
        watched = _watched(found_, layer, began_ns)
        if facts["commit"] != commit or _changed(facts, began_ns):
            return
        visits.mkdir(mode=0o700, exist_ok=True)
        made.mkdir(mode=0o700)
        _write(made, facts, watched, spec, who, volume)
        _put(made, visits / name_of(facts))
        evict(visits)
    except (OddError, twin.OtherError, OSError, ValueError):
        pass  # the next visit is prepared as this one was
    finally:
        if made.exists():
            delete_tree(str(made))


def _write(made: Path, facts: dict[str, object], watched: dict[str, object], spec: JailSpec, who: Identity,
           volume: Volume) -> None:  # fmt: skip
    source, tree = Path(volume.directory), made / TREE
    tree.mkdir(mode=0o700)
    files = []
    for part in (WRITABLE, READ_ONLY):
        about = os.lstat(source / part)
        inside = twin.listed(str(source / part), who.uid)
        files += [(part, about.st_mode, about.st_uid == who.uid, (0, 0, 0, 0))]
        files += [(f"{part}/{path}", mode, given, same) for path, mode, given, same in inside]
    if len(files) > FILES_MAX or sum(same[0] for *_, same in files) > BYTES_MAX:
        raise OddError("large")
    twin.copy(str(source), str(tree), files, -1, -1)
    again = {path: same for path, _, _, same in twin.listed(str(tree), os.getuid())}
    files = [(path, mode, given, again[path]) for path, mode, given, _ in files]
    laid = layout.lay_out(spec, who, bubblewrap())
    kept = {
        "facts": facts,
        "watched": watched,
        "files": files,
        "index": _index(source, volume),
        "sources": [_relative(path, source) for path in laid.sources],
        "jail": {
            "argv": laid.argv,
            "memory": laid.memory_files,
            "task": {**marshal.loads(laid.task), "argv": [], "host_namespaces": {}},  # noqa: S302  # ours
            "require": spec.require,
            "output_bytes": spec.limits.output_bytes,
        },
    }
    fd = os.open(made / META, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(marshal.dumps(kept))


def _relative(path: str, source: Path) -> tuple[bool, str]:
    """A bind's source: (True, its path in the workspace), or (False, its path on the host)."""
    inside = path.startswith(f"{source}/")
    return inside, path.removeprefix(f"{source}/") if inside else path


def _index(source: Path, volume: Volume) -> tuple[str, str]:
    """Where the agent's own repository has its index, and what its paths are below, both in the workspace."""
    root = os.path.relpath(volume.root, source)
    return f"{root}/.git/index", f"{root}/"


def _watched(found_: Documents, layer: Path, began_ns: int) -> dict[str, object]:
    """Each thing of the host that the visit was made from, as it is. OddError where one may have changed already."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(quick.__file__)))
    own = [os.path.join(package, name) for name in OWN]
    modules = [os.path.join(each, name) for each in own for name in os.listdir(each) if name.endswith(".py")]
    fixed = [*modules, os.path.join(package, "__init__.py"), bubblewrap().path, jail_python()]
    watched: dict[str, object] = {path: state(path) for path in (*fixed, *own)}
    if any(os.lstat(path).st_ctime_ns > began_ns - TICK_NS for path in fixed):
        raise OddError("a program that was installed just now")
    for path in (*SYSTEM, *ETC_SHARED, interpreter_prefix(), str(layer), str(layer.parent / "layer.json")):
        if path:
            watched[path] = state(path)
            watched[os.path.realpath(path)] = state(os.path.realpath(path))
    if found_.policy.enforcement.mode != "rootless":
        watched[hardened.place()] = state(hardened.place())
        if watched[hardened.place()] is not None:
            raise OddError("a service that may come to serve this user")
    return watched


def _began_ns() -> int:
    """When this process began, in Unix time: it had read nothing then."""
    with open("/proc/self/stat", "rb") as file:
        ticks = int(file.read().rpartition(b")")[2].split()[19])
    running_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - ticks * 10**9 // os.sysconf("SC_CLK_TCK")
    return time.time_ns() - running_ns


def _changed(facts: dict[str, object], began_ns: int) -> bool:
    """Whether a contract may be another than the one that was read."""
    read = facts["documents"]
    assert isinstance(read, dict)
    return any(os.lstat(path).st_ctime_ns > began_ns - TICK_NS for path, content in read.items() if content is not None)


def _put(made: Path, place: Path) -> None:
    """Into its place, in one step; one that stands there already (of other facts, or another's) goes."""
    with contextlib.suppress(FileNotFoundError):
        old = place.with_name(f"{OLD}{os.getpid()}-{os.urandom(6).hex()}")
        place.rename(old)
        delete_tree(str(old))
    made.rename(place)


def evict(visits: Path) -> None:
    """Delete all but the newest, and what was half made or half deleted a day ago."""
    aged: list[tuple[float, Path]] = []
    for path in visits.iterdir():
        with contextlib.suppress(OSError):  # another visit was faster
            if path.name.startswith((NEW, OLD)):
                if path.stat().st_mtime < time.time() - 86_400:
                    delete_tree(str(path))
            else:
                aged.append(((path / META).stat().st_mtime, path))
    for _, path in sorted(aged, reverse=True)[KEPT_MAX:]:
        with contextlib.suppress(OSError, InboundsError):
            old = path.with_name(f"{OLD}{os.getpid()}-{os.urandom(6).hex()}")
            path.rename(old)  # whoever reads it now finds its files gone, and prepares a visit of its own
            delete_tree(str(old))
