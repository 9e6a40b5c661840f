"""What a slot's processes did to files, as records of the journal: read and written (H5, H6), and executed.

The kernel's word by way of the host service. Whose process it was is told by when: the agent's iteration, or the tests
around it. Knows nothing of jails.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from inbounds.judges.scope import shown
from inbounds.run.housing import WORKSPACE
from inbounds.sandbox.fileevents import FileEvents, Touched
from inbounds.sandbox.reads import Seen
from inbounds.sandbox.volume import READ_ONLY, WRITABLE
from inbounds.store.walk import is_dotgit

Post = Callable[[str, Mapping[str, Any]], None]
AGENT, TESTS = "agent", "tests"  # the tests that an agent asks for in its iteration are told as the agent's


def of_agent(files: FileEvents, n: int, post: Post, build: tuple[str, ...]) -> Seen:
    """Post what was written and executed since the last look, and give what was read of the workspace.

    `build` are the directories in memory that nobody watches, where it may execute what it wrote (ADR 15).
    """
    found = files.take()
    inside = found.below(f"{WORKSPACE}/{WRITABLE}", f"{WORKSPACE}/{READ_ONLY}")
    _executed(found, n, AGENT, post, build)
    post("files.written", _seen(inside.written, found.why).as_record(n, shown))
    return _seen(inside.read, found.why)


def of_tests(files: FileEvents | None, n: int, post: Post, build: tuple[str, ...]) -> None:
    """Post what was executed or lost since the last look, if anything: before an iteration, behind a judge's jails."""
    if files is not None and files.is_due:
        _executed(files.take(), n, TESTS, post, build)


def _executed(found: Touched, n: int, during: str, post: Post, build: tuple[str, ...]) -> None:
    why = found.why or (f"what is executed in {', '.join(build)} is not seen" if build else "")
    executed = Seen(tuple(sorted(found.executed)), len(found.executed), why)
    post("files.executed", {**executed.as_record(n, shown), "during": during})


def _seen(paths: Iterable[str], why: str) -> Seen:
    """Without the agent's own throwaway repository, which is no part of the workspace."""
    kept = tuple(path for path in sorted(paths) if not any(is_dotgit(part) for part in path.split("/")))
    return Seen(kept, len(kept), why)
