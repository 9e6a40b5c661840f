"""Copies of a checkout: what they hold, what ends them, and that git finds nothing changed in one."""

import os
import subprocess
from pathlib import Path

import pytest

from inbounds.store import twin


def git(where: Path, *words: str) -> str:
    env = {"HOME": str(where), "PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1"}
    who = ["-c", "user.name=t", "-c", "user.email=t@localhost"]
    done = subprocess.run(["git", *who, *words], cwd=where, env=env, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture(params=["sha1", "sha256"])
def checkout(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A repository with the kinds of files that git knows."""
    top = tmp_path / "old" / "part"
    top.mkdir(parents=True)
    git(top, "init", "-q", f"--object-format={request.param}")
    (top / "plain").write_text("one\n")
    (top / "program").write_text("#!/bin/sh\n")
    (top / "program").chmod(0o755)
    (top / "link").symlink_to("plain")
    (top / "empty").touch()
    (top / "deep" / "er").mkdir(parents=True)
    (top / "deep" / "er" / "ümlaut name").write_bytes(os.urandom(3 << 20))
    git(top, "add", "-A")
    git(top, "commit", "-qm", "one")
    return top.parent


def copied(checkout: Path) -> tuple[Path, dict[str, os.stat_result]]:
    target = checkout.parent / "new"
    target.mkdir()
    return target, twin.copy(str(checkout), str(target), twin.listed(str(checkout), os.getuid()), -1, -1)


def digits(checkout: Path) -> int:
    return len(git(checkout / "part", "rev-parse", "HEAD").strip())


def seen(top: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(top.rglob("*")):
        about = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(top))] = (about.st_mode, content, 0 if path.is_dir() else about.st_mtime_ns)
    return found


def test_a_copy_is_the_same_and_shares_nothing(checkout: Path) -> None:
    target, _ = copied(checkout)
    assert seen(target) == seen(checkout)
    inodes = {path.lstat().st_ino for path in checkout.rglob("*")}
    assert not inodes & {path.lstat().st_ino for path in target.rglob("*")}


def test_git_asked_of_the_index_alone_finds_a_copy_unchanged(checkout: Path) -> None:
    target, made = copied(checkout)
    assert git(target / "part", "diff-files") != ""  # the control: as it is, it is about other files
    index = target / "part/.git/index"
    assert twin.true_index(str(index), digits(checkout), "part/", made)
    assert git(target / "part", "diff-files") == ""
    assert git(target / "part", "fsck") == ""
    assert git(target / "part", "status", "--porcelain") == ""
    (target / "part/plain").write_text("two\n")
    assert git(target / "part", "diff-files") != ""


def test_an_index_of_another_version_or_other_files_is_left_as_it_is(checkout: Path) -> None:
    target, made = copied(checkout)
    index = target / "part/.git/index"
    before = index.read_bytes()
    assert not twin.true_index(str(index), digits(checkout), "elsewhere/", made)
    assert index.read_bytes() == before
    git(target / "part", "update-index", "--index-version=4")
    assert not twin.true_index(str(index), digits(checkout), "part/", made)


@pytest.mark.parametrize("what", ["written", "replaced", "gone", "a link"])
def test_a_file_that_is_another_now_ends_the_copy(checkout: Path, what: str) -> None:
    files = twin.listed(str(checkout), os.getuid())
    target = checkout.parent / "new"
    path = checkout / "part/plain"
    if what == "written":
        path.write_text("two\n")
    else:
        path.rename(checkout.parent / "aside")
        if what == "replaced":
            path.write_text("one\n")
        elif what == "a link":
            path.symlink_to(checkout.parent / "aside")
    target.mkdir()
    with pytest.raises((twin.OtherError, OSError)):
        twin.copy(str(checkout), str(target), files, -1, -1)


def test_what_is_no_file_directory_or_link_is_not_listed(checkout: Path) -> None:
    os.mkfifo(checkout / "part/pipe")
    with pytest.raises(twin.OtherError):
        twin.listed(str(checkout), os.getuid())
