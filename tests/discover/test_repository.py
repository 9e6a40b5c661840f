"""What is found of a real repository: its top, its commit, what stays out of a run, what a run cannot hold."""

import os
from pathlib import Path

import pytest
from made_repository import commit, repository, run, write

from inbounds.contracts.errors import OperatorError
from inbounds.discover import repository as found


def test_a_repository_is_found_from_below(tmp_path: Path) -> None:
    top = repository(tmp_path, {"a/b/c.txt": "x"})
    head = commit(top, {"a/b/c.txt": "y"})
    seen = found.look(top / "a" / "b")
    assert (seen.top, seen.head, seen.branch) == (str(top.resolve()), head, "main")
    assert seen.uncommitted == ()
    assert seen.submodules == seen.lfs == ()


def test_what_is_not_committed_is_named(tmp_path: Path) -> None:
    top = repository(tmp_path, {"kept": "1", "gone": "1", "old name": "long enough to be seen as a rename\n" * 5})
    write(top, {"kept": "2", "new\nline": "x", "dir/inside": "x"})
    (top / "gone").unlink()
    run(top, "mv", "old name", "new name")
    seen = {entry.path: entry.status for entry in found.look(top).uncommitted}
    assert seen == {"kept": " M", "gone": " D", "new name": "R ", "new\nline": "??", "dir/": "??"}


def test_looking_changes_nothing(tmp_path: Path) -> None:
    top = repository(tmp_path, {"a": "1"})
    os.utime(top / "a", (0, 0))  # git status would refresh its index here
    before = {p: p.stat().st_mtime_ns for p in (top / ".git").rglob("*")}
    found.look(top)
    assert {p: p.stat().st_mtime_ns for p in (top / ".git").rglob("*")} == before


def test_a_planted_file_system_monitor_is_not_started(tmp_path: Path) -> None:
    """ATTACKS, planted now, executed later: core.fsmonitor and hooks of the repository looked at."""
    top = repository(tmp_path / "r", {"a": "1"})
    mark = tmp_path / "mark"
    plant = tmp_path / "plant"
    plant.write_text(f"#!/bin/sh\ntouch '{mark}'\n")
    plant.chmod(0o755)
    run(top, "config", "core.fsmonitor", str(plant))
    run(top, "status")  # the positive control: it works on the host
    assert mark.exists()
    mark.unlink()
    found.look(top)
    assert not mark.exists()


def test_submodules_and_lfs_are_named(tmp_path: Path) -> None:
    inner = repository(tmp_path / "inner", {"x": "1"})
    top = repository(
        tmp_path / "outer",
        {"a/.gitattributes": "# big\n*.bin filter=lfs diff=lfs\n", "b/.gitattributes": "*.txt text\n"},
    )
    run(top, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(inner), "vendor/inner")
    run(top, "commit", "-q", "-m", "submodule")
    seen = found.look(top)
    assert seen.submodules == ("vendor/inner",)
    assert seen.lfs == ("a/.gitattributes:2",)


def test_a_linked_work_tree_is_a_repository(tmp_path: Path) -> None:
    top = repository(tmp_path / "main", {"a": "1"})
    run(top, "worktree", "add", "-q", "-b", "side", str(tmp_path / "side"))
    seen = found.look(tmp_path / "side")
    assert (seen.top, seen.branch) == (str((tmp_path / "side").resolve()), "side")


def test_no_repository_and_no_commit_say_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(OperatorError) as none:
        found.look(tmp_path)
    assert "git" in none.value.fix
    run(tmp_path, "init", "-q")
    with pytest.raises(OperatorError) as empty:
        found.look(tmp_path)
    assert "no commit" in empty.value.found
    with pytest.raises(OperatorError):
        found.look(tmp_path / "missing")


def test_a_detached_head_has_no_branch(tmp_path: Path) -> None:
    top = repository(tmp_path, {"a": "1"})
    run(top, "checkout", "-q", "--detach")
    assert found.look(top).branch == ""
