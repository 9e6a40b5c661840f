"""Looking over, deleting and defusing what an agent left: links, pipes, depth, modes, names, mounts."""

import os
import random
import resource
import shutil
import socket
import stat
import subprocess
import sys

import pytest

from inbounds.contracts.errors import HostError
from inbounds.store import descent, walk
from inbounds.store.store import Store
from inbounds.store.walk import Limits, is_dotgit, scan

DEEP = 5_000


def look(directory, limits=None, **how):
    handle = os.open(directory, walk.DIRECTORY)
    try:
        return scan(handle, limits or Limits(), **how)
    finally:
        os.close(handle)


def kinds(found):
    return {(reason.kind, reason.path) for reason in found.reasons}


def dig(directory, levels):
    """Make a directory `levels` deep; mkdir by path stops at PATH_MAX."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=handle)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=handle)
        os.close(handle)
        handle = below
    bottom = os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=handle)
    os.write(bottom, b"bottom")
    os.close(bottom)
    os.close(handle)


def as_user(directory, function):
    """Run `function` with `directory` opened, as somebody who is not root; returns what it prints of its result."""
    handle = os.open(directory, walk.DIRECTORY)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(4242, 4242, 4242)
                os.setresuid(4242, 4242, 4242)
            os.write(writer, repr(function(handle)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(child, 0)
    os.close(handle)
    return said


def test_files_links_and_modes_are_told_apart(place):
    (place / "a").write_text("1")
    (place / "run").write_text("2")
    (place / "run").chmod(0o755)
    (place / "out").symlink_to("/etc/passwd")
    (place / "dir").mkdir()
    (place / "dir" / "b").write_text("3")
    found = look(place)
    assert {path: entry.mode for path, entry in found.entries.items()} == {
        "a": 0o100644,
        "run": 0o100755,
        "out": 0o120000,
        "dir/b": 0o100644,
    }
    assert not found.reasons
    assert found.directories == 1


def test_a_link_to_a_directory_is_never_entered(place):
    outside = place / "outside"
    outside.mkdir()
    (outside / "secret").write_text("x")
    inside = place / "inside"
    inside.mkdir()
    (inside / "way").symlink_to(outside)
    assert list(look(inside).entries) == ["way"]


def test_pipes_sockets_and_hard_links_are_reasons(place):
    work = place / "work"
    work.mkdir()
    os.mkfifo(work / "pipe")
    server = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(work)  # a socket's path has 108 bytes
    try:
        server.bind("socket")
    finally:
        os.chdir(here)
        server.close()
    (place / "outside").write_text("x")
    os.link(place / "outside", work / "linked")
    (work / "twin").write_text("y")
    os.link(work / "twin", work / "twin2")
    found = look(work)
    assert kinds(found) == {("no regular file", "pipe"), ("no regular file", "socket"), ("hard link", "linked")}
    assert {"twin", "twin2"} <= set(found.entries)


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6644])
def test_set_id_modes_are_refused(place, mode):
    (place / "x").write_text("x")
    (place / "x").chmod(mode)
    if stat.S_IMODE((place / "x").stat().st_mode) != mode:
        pytest.skip("this file system drops set-id bits")
    assert kinds(look(place)) == {("set-id mode", "x")}


def test_what_cannot_be_read_is_a_reason(place):
    shut = place / "shut"
    shut.mkdir()
    (shut / "x").write_text("x")
    shut.chmod(0)
    place.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(place, 4242, 4242)
        os.chown(shut, 4242, 4242)
    said = as_user(place, lambda handle: sorted(kinds(scan(handle, Limits()))))
    assert said == "[('unreadable', 'shut')]"


def test_limits_end_in_a_reason_each(place):
    for number in range(20):
        (place / f"{number:02}").write_text("12345")
    assert ("too many entries", "10") in kinds(look(place, Limits(entries_max=10)))
    assert ("too large", "00") in kinds(look(place, Limits(file_bytes_max=4)))
    assert ("too much", "10") in kinds(look(place, Limits(bytes_max=50)))
    found = look(place, Limits(file_bytes_max=4, entries_max=1_000))
    assert not found.entries
    for number in range(200):
        (place / f"x{number}").write_text("12345")
    assert len(look(place, Limits(file_bytes_max=4)).reasons) == walk.REASONS_MAX + 1


def test_a_deep_tree_is_a_reason_and_can_be_deleted_and_measured(place):
    tree = place / "tree"
    tree.mkdir()
    dig(tree, DEEP)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        found = look(tree)
        assert [reason.kind for reason in found.reasons] == ["too deep"]
        used = descent.usage(os.fspath(tree))
        assert used.exact
        assert used.inodes == DEEP + 1
        descent.make_inert(os.fspath(tree))
        with pytest.raises((OSError, RecursionError)):
            shutil.rmtree(tree)  # the positive control: why there is a deletion of our own
        descent.delete_tree(os.fspath(tree))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not tree.exists()


@pytest.mark.req("E7")
@pytest.mark.parametrize("mode", [0o000, 0o100, 0o200, 0o300, 0o400, 0o600])
def test_bytes_behind_a_chmod_are_measured_and_the_mode_stays(place, mode):
    """An agent of the supervisor's own user (rootless, ordinary user) may lock a directory and fill it."""
    tree = place / "tree"
    (tree / "locked" / "below").mkdir(parents=True)
    (tree / "locked" / "below" / "file").write_bytes(bytes(1 << 20))
    open_ = descent.usage(os.fspath(tree))
    (tree / "locked").chmod(mode)
    assert descent.usage(os.fspath(tree)) == open_
    assert open_.exact
    assert open_.bytes >= 1 << 20
    assert stat.S_IMODE((tree / "locked").stat().st_mode) == mode
    descent.delete_tree(os.fspath(tree))


def test_deletion_restores_permissions_and_leaves_what_links_name(place):
    outside = place / "outside"
    outside.mkdir()
    (outside / "keep").write_text("x")
    tree = place / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "f").write_text("x")
    (tree / "a" / "way").symlink_to(outside)
    (tree / "a" / "b").chmod(0)
    (tree / "a").chmod(0o500)
    if os.geteuid() == 0:
        for path in (place, tree, tree / "a" / "b", tree / "a"):
            os.chown(path, 4242, 4242)

    def delete(handle):
        os.fchdir(handle)
        descent.delete_tree("tree")

    assert as_user(place, delete) == "None"
    assert not tree.exists()
    assert (outside / "keep").exists()


def test_deletion_stops_at_a_mount(place):
    tree, other = place / "tree", place / "other"
    (tree / "mounted").mkdir(parents=True)
    other.mkdir()
    (other / "keep").write_text("x")
    program = (
        f"mount --bind {other} {tree}/mounted && {sys.executable} -c '"
        f'from inbounds.store import descent; descent.delete_tree("{tree}")' + "'"
    )
    flags = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    done = subprocess.run(["unshare", *flags, "sh", "-c", program], capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert "is a mount point" in done.stderr
    assert (other / "keep").exists()


def test_deletion_refuses_a_link_in_the_directorys_place(place):
    (place / "real").mkdir()
    (place / "real" / "keep").write_text("x")
    (place / "link").symlink_to(place / "real")
    with pytest.raises(HostError):
        descent.delete_tree(os.fspath(place / "link"))
    assert (place / "real" / "keep").exists()
    descent.delete_tree(os.fspath(place / "never"))


def test_a_directory_moved_under_the_walk_is_noticed(place):
    (place / "a" / "b").mkdir(parents=True)
    handle = os.open(place, walk.DIRECTORY)

    def go():
        for step in descent.descend(handle):
            if step.name == "b" and step.entries is not None:
                os.rename(place / "a" / "b", place / "b")

    with pytest.raises(descent.MovedError):
        go()
    os.close(handle)


def test_odd_names_stay_what_they_are(place):
    names = [b"new\nline", b"\x1b[31mred", b"caf\xe9", b" ", b"-rf", b":(top)x", "ünï".encode()]
    for name in names:
        with open(os.path.join(os.fsencode(place), name), "w") as file:
            file.write("x")
    found = look(place)
    assert {os.fsencode(path) for path in found.entries} == set(names)
    assert "\n" not in walk.Reason("unreadable", "new\nline").text()
    assert "\x1b" not in walk.Reason("unreadable", "\x1b[31m").text()


@pytest.mark.parametrize(
    "name", [".git", ".GIT", ".git.", ".git ", "git~1", ".g\u200cit", ".git::$INDEX_ALLOCATION", "x\\.git"]
)
def test_every_disguise_of_dotgit_is_foreign_and_git_agrees(place, name):
    assert is_dotgit(name)
    (place / "sub").mkdir()
    (place / "sub" / name).mkdir()
    (place / "sub" / name / "config").write_text("x")
    found = look(place)
    assert found.foreign == [f"sub/{name}"]
    assert not found.entries


@pytest.mark.parametrize("name", ["git", ".gitignore", ".github", ".git2", "x.git", "git~2", ".gitmodules"])
def test_harmless_names_are_not_foreign(name):
    assert not is_dotgit(name)


def test_inert_means_no_repository_no_execution(place):
    tree = place / "tree"
    canary = place / "canary"
    for where in ("", "nested/"):
        subprocess.run(["git", "init", "-q", os.fspath(tree / where)], check=True, env={"PATH": os.environ["PATH"]})
        with open(tree / where / ".git" / "config", "a") as file:
            file.write(f"[core]\n\tfsmonitor = touch {canary}; false\n")
    subprocess.run(
        ["git", "init", "-q", "--bare", os.fspath(tree / "bare")], check=True, env={"PATH": os.environ["PATH"]}
    )
    (tree / "run").write_text("#!/bin/sh\n")
    (tree / "run").chmod(0o4755)
    (tree / "pointer").mkdir()
    (tree / "pointer" / ".git").write_text("gitdir: ../nested/.git\n")

    def status(where):
        return subprocess.run(
            ["git", "-c", "safe.directory=*", "status"], cwd=tree / where, capture_output=True, check=False,
            env={"PATH": os.environ["PATH"], "GIT_CEILING_DIRECTORIES": os.fspath(place)},
        ).returncode  # fmt: skip

    status("")
    assert canary.exists()  # the positive control: looking is enough
    canary.unlink()
    assert descent.make_inert(os.fspath(tree)) >= 5
    for where in ("", "nested", "bare", "pointer"):
        assert status(where) == 128
    assert not canary.exists()
    assert stat.S_IMODE((tree / "run").stat().st_mode) == 0o644


def test_what_is_not_foreign_git_takes(place):
    """Names near the ones that git refuses: were one missed here, an agent could make every snapshot fail by it."""
    store = Store.create(os.fspath(place / "store.git"))
    blob = store.write_blob(b"x")
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    pieces = [".git", "git", "GIT~1", "git~1", "gi7eba~1", ".gitmodules", "gitmod~1", "~", " ", ".", ":", "\\", "\u200c",
              "\ufeff", "a", "\n", "~2", "..", "$INDEX", "\u2060", "modules"]  # fmt: skip
    names = {"".join(chance.choices(pieces, k=chance.randint(1, 4))) for _ in range(4_000)} - {".", ".."}
    for mode in (walk.FILE, walk.LINK):
        taken = sorted(name for name in names if not walk.is_foreign(name, mode))
        index = store.index(os.fspath(place / f"index{mode}"))
        index.load(store.git("mktree"))
        try:
            index.update([], [(name, mode, blob) for name in taken])
        except HostError as error:
            pytest.fail(f"seed {seed}: {error}")
        assert len(taken) > len(names) / 3
