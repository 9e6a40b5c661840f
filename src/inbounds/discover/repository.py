"""What git says of a person's repository before a run: top, HEAD, what is not committed, submodules and LFS.

Looks only; the work tree is never touched. Knows nothing of policy or threads.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from inbounds.contracts.errors import OperatorError
from inbounds.store import git

# Uncommitted files are named to a person; a longer list is counted.
DIRTY_MAX = 1_000
# .gitattributes files of a large repository are a few kilobytes each.
ATTRIBUTES_BYTES_MAX = 4 << 20
LEVELS_MAX = 64  # directories above the starting point that are looked at for .git
_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Uncommitted:
    """A file that a run of HEAD does not see; `status` is git's two letters ("??" is untracked)."""

    status: str
    path: str


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository on this host; paths in it are relative to `top`, `branch` is "" for a detached HEAD.

    `lfs` has "file:line" of each attribute that asks for LFS, `submodules` the paths of gitlinks in HEAD.
    """

    top: str
    git_dir: str
    head: str
    branch: str
    uncommitted: tuple[Uncommitted, ...]
    uncommitted_more: bool
    submodules: tuple[str, ...]
    lfs: tuple[str, ...]


def top_of(start: str | os.PathLike[str]) -> str:
    """The directory at or above `start` that has .git; OperatorError where there is none."""
    here = Path(start).absolute()
    if not here.is_dir():
        raise OperatorError(f"{here} is no directory", expected="a directory of a git repository")
    here = here.resolve()
    for place in [here, *here.parents][:LEVELS_MAX]:
        if (place / ".git").exists():
            return str(place)
    raise OperatorError(
        f"{here} is in no git repository",
        expected="a repository with a commit: a run starts from HEAD and ends with a branch",
        fix=f"git -C {here} init && git -C {here} add . && git -C {here} commit -m start",
    )


def look(start: str | os.PathLike[str]) -> Repository:
    """Everything about the repository around `start`; OperatorError without a repository or a commit."""
    top = top_of(start)
    git_dir = os.path.join(top, ".git")
    code, out = git.status(
        ["rev-parse", "--verify", "--quiet", "HEAD^{commit}"], git_dir=git_dir, ok=frozenset({0, 1}), cwd=top
    )
    head = out.decode("ascii", "replace").strip()
    if code or not _ID.fullmatch(head):
        raise OperatorError(
            f"{top} has no commit yet", expected="a commit to start from", fix=f"git -C {top} commit -m start"
        )
    changes, more = _uncommitted(top, git_dir)
    return Repository(
        top=top,
        git_dir=git_dir,
        head=head,
        branch=_branch(top, git_dir),
        uncommitted=changes,
        uncommitted_more=more,
        submodules=_submodules(git_dir, head),
        lfs=_lfs(git_dir, head),
    )


def _branch(top: str, git_dir: str) -> str:
    _, out = git.status(["symbolic-ref", "--quiet", "--short", "HEAD"], git_dir=git_dir, ok=frozenset({0, 1}), cwd=top)
    return out.decode("utf-8", "backslashreplace").strip()


def _uncommitted(top: str, git_dir: str) -> tuple[tuple[Uncommitted, ...], bool]:
    """Parse `git status --porcelain=v1 -z`: "XY path NUL", and for renames one more "old path NUL".

    Neither the repository's filters nor git in a submodule (whose configuration is its own) are run.
    """
    out = git.run(
        ["status", "--porcelain=v1", "-z", "--untracked-files=normal", "--ignore-submodules=dirty"],
        git_dir=git_dir,
        work_tree=top,
        cwd=top,
        env=git.without_filters(git_dir, top),
    )
    fields = iter(out.split(b"\0"))
    found: list[Uncommitted] = []
    for entry in fields:
        if not entry:
            continue
        if len(found) == DIRTY_MAX:
            return tuple(found), True
        status = entry[:2].decode("ascii", "replace")
        found.append(Uncommitted(status, os.fsdecode(entry[3:])))
        if "R" in status or "C" in status:
            next(fields, None)
    return tuple(found), False


def _tree(git_dir: str, head: str) -> list[tuple[str, str, str]]:
    """(mode, id, path) of every entry of HEAD."""
    found = []
    for entry in git.run(["ls-tree", "-r", "-z", "--full-tree", head], git_dir=git_dir).split(b"\0"):
        facts, _, name = entry.partition(b"\t")
        if name:
            mode, _, blob = facts.decode("ascii").split(" ")
            found.append((mode, blob, os.fsdecode(name)))
    return found


def _submodules(git_dir: str, head: str) -> tuple[str, ...]:
    return tuple(path for mode, _, path in _tree(git_dir, head) if mode == "160000")


def _lfs(git_dir: str, head: str) -> tuple[str, ...]:
    """Where a committed .gitattributes hands files to LFS: their blobs in HEAD are pointers, not content."""
    found: list[str] = []
    for mode, blob, path in _tree(git_dir, head):
        if os.path.basename(path) != ".gitattributes" or not mode.startswith("100"):
            continue
        text = git.run(["cat-file", "blob", blob], git_dir=git_dir, limit=ATTRIBUTES_BYTES_MAX).decode(
            "utf-8", "replace"
        )
        for number, line in enumerate(text.splitlines(), 1):
            if "filter=lfs" in line.split() and not line.lstrip().startswith("#"):
                found.append(f"{path}:{number}")
    return tuple(found)
