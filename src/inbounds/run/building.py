"""Build directories: where a thread of a compiled language may execute what it built, and nowhere else (ADR 15).

A thread declares them, policy may refuse them, and the blast radius says so. Knows nothing of how a jail makes them.
"""

from collections.abc import Iterable

from inbounds.contracts.errors import OperatorError
from inbounds.contracts.job import WORK
from inbounds.contracts.limits import Limits
from inbounds.contracts.paths import CONTRACT_DIRECTORY, below, joined, relative
from inbounds.run.documents import POLICY, Documents
from inbounds.sandbox.spec import JailLimits
from inbounds.store.store import Store


def declared(documents: Documents, store: Store, tree: str, protected: Iterable[str] = ()) -> tuple[str, ...]:
    """The thread's build directories, repository-relative.

    OperatorError where policy refuses them, where one leaves the thread or meets another, a contract or a `protected`
    path, and where `tree`, the base, has files there: they would be hidden.
    """
    where = documents.path("config.yaml")
    found = tuple(dict.fromkeys(relative(path, where=where) for path in documents.config.build_directories))
    if found and documents.policy.enforcement.build_directories == "refuse":
        raise OperatorError(
            f"build_directories: {found[0]} widens what policy grants",
            where=where,
            expected=f"none: {POLICY} says enforcement.build_directories: refuse",
            fix="take them away, or have the policy's owner change it",
        )
    kept = (CONTRACT_DIRECTORY, joined(documents.thread, CONTRACT_DIRECTORY), *protected)
    for path in found:
        tracked = store.ls(tree, (path,))
        others = [other for other in (*kept, *found) if other != path]
        met = next((other for other in others if below(other, path) or below(path, other)), None)
        if path == documents.thread or not below(path, documents.thread) or met:
            raise OperatorError(
                f"{path} can be no build directory" + (f": {met} is there" if met else ""),
                where=where,
                expected=f"a directory of its own below {documents.thread}, such as target or build",
                fix="change build_directories",
            )
        if tracked:
            raise OperatorError(
                f"{path} can be no build directory: HEAD has {tracked[0].path}, which would be hidden",
                where=where,
                expected="a directory without tracked files",
                fix=f"git rm -r --cached {path}, and commit, or change build_directories",
            )
    return found


def inside(directories: Iterable[str]) -> tuple[str, ...]:
    """Their paths in a jail."""
    return tuple(f"{WORK}/{path}" for path in directories)


def jail_limits(limits: Limits, *, output_bytes: int = JailLimits().output_bytes) -> JailLimits:
    """A run's ceilings for one jail; what it builds lies in memory, so that it may be half of that."""
    return JailLimits(
        processes=limits.processes,
        memory_bytes=limits.memory_bytes,
        file_bytes=min(limits.disk_bytes, JailLimits().file_bytes),
        build_bytes=min(limits.disk_bytes, limits.memory_bytes // 2),
        output_bytes=output_bytes,
    )
