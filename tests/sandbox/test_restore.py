"""Going back to a tree: exactly it, whatever stood there, at the price of what was touched, and after a kill as well."""

import mmap
import os
import signal
import stat

import pytest
from storerepo import git, make
from test_volume import FILES, World, wait_a_tick

from inbounds.sandbox.volume import Volume
from inbounds.store import descent, snapshot
from inbounds.store.store import Store


@pytest.fixture
def world(tmp_path):
    """A store with the base tree of a repository, and a way to prepare workspaces of it."""
    place = tmp_path / "place"
    make(place / "source", FILES)
    store = Store.create(os.fspath(place / "store.git"))
    yield World(place, store, store.tree_of(store.fetch(os.fspath(place / "source"))))
    descent.delete_tree(os.fspath(place))


@pytest.fixture
def replaced(monkeypatch):
    """How often all of a workspace was replaced."""
    times = []
    real = Volume._replace
    monkeypatch.setattr(Volume, "_replace", lambda self, tree: times.append(tree) or real(self, tree))
    return times


def contents(root):
    """All that stands below, the repository's own state left out: kind, mode, owner, content."""
    found = {}
    for directory, names, files in os.walk(root):
        if directory == os.fspath(root):
            names.remove(".git")
        for name in (*names, *files):
            path = os.path.join(directory, name)
            about = os.lstat(path)
            what = os.readlink(path) if stat.S_ISLNK(about.st_mode) else None
            if stat.S_ISREG(about.st_mode):
                with open(path, "rb") as file:
                    what = file.read()
            found[os.path.relpath(path, root)] = (about.st_mode, about.st_uid, about.st_gid, about.st_nlink, what) if (
                not stat.S_ISDIR(about.st_mode)
            ) else (about.st_mode, about.st_uid, about.st_gid)  # fmt: skip
    return found


def havoc(root, outside):
    """Most of what an agent can do to its files."""
    (root / "a.py").write_text("broken")
    (root / "kept.py").unlink(missing_ok=True)
    os.mkfifo(root / "pipe")
    (root / "more" / "deep").mkdir(parents=True)
    (root / "more" / "deep" / ".git").mkdir()
    (root / "more" / "x.log").write_text("ignored")
    (root / "empty").mkdir(mode=0o700)
    os.link(outside, root / "linked")
    (root / "out").symlink_to(outside)
    (root / "tests").chmod(0o2777)
    (root / "tests" / "test_a.py").chmod(0o600)
    descent.delete_tree(os.fspath(root / "new"))
    (root / "new").symlink_to("/")
    descent.delete_tree(os.fspath(root / ".inbounds"))
    with open(os.path.join(os.fsencode(root), b"caf\xe9"), "w") as file:
        file.write("x")


@pytest.mark.parametrize("again", [False, True], ids=["same process", "opened again"])
def test_restore_ends_at_exactly_the_tree_whatever_was_done(world, replaced, again):
    volume = world.prepare(protected=["billing/tests/test_a.py"])
    root = world.place / "ws" / "rw" / "billing"
    outside = world.place / "outside"
    outside.write_text("not the agent's")
    at_base = contents(root)
    (root / "kept.py").write_text("kept\n")
    (root / "kept.py").chmod(0o755)
    (root / "new" / "sub").mkdir(parents=True)
    (root / "new" / "sub" / "b").write_text("b\n")
    (root / "way").symlink_to("../../../etc")
    safe = volume.snapshot()
    assert safe.links_out == ("billing/way",)
    wanted = contents(root)
    for directory in ("new", "new/sub"):
        wanted[directory] = (stat.S_IFDIR | 0o755, *wanted[directory][1:])
    for _ in range(2):
        havoc(root, outside)
        volume.snapshot()
        git(root, "commit", "-q", "--allow-empty", "-m", "mine")
        (root / ".git" / "hooks").mkdir()
        if again:
            volume = Volume.open(world.store, os.fspath(world.place / "ws"))
        volume.restore(safe.tree)
        assert contents(root) == wanted
        taken = volume.snapshot()
        assert taken == safe
        assert git(root, "log", "--format=%s") == "The state this run started from."
        assert git(root, "status", "--short") == ""
        assert git(root, "fsck", "--strict", "--no-dangling") == ""
        assert not (root / ".git" / "hooks").exists()
    assert len(replaced) == (2 if again else 0)
    assert outside.read_text() == "not the agent's"
    volume.restore(world.tree)
    assert contents(root) == at_base
    assert volume.snapshot().tree == world.tree
    assert git(root, "status", "--short") == ""


def test_restored_files_belong_to_the_jails_user(world, replaced):
    if os.geteuid() != 0:
        pytest.skip("only root can give files to another user")
    volume = world.prepare(uid=4242, gid=4343)
    root = world.place / "ws" / "rw" / "billing"
    (root / "a.py").write_text("a = 2\n")
    (root / "new").mkdir()
    (root / "new" / "b.py").write_text("b\n")
    safe = volume.snapshot()
    for tree in (safe.tree, world.tree, safe.tree):
        havoc(root, world.place / "source" / "README") if (root / "new").exists() else None
        os.chown(root / "tests", 0, 0)
        volume.restore(tree)
        for directory, names, files in os.walk(world.place / "ws" / "rw"):
            for name in (*names, *files):
                about = os.lstat(os.path.join(directory, name))
                assert (about.st_uid, about.st_gid) == (4242, 4343), name
        assert volume.snapshot().tree == tree
    assert not replaced


def test_a_file_written_through_a_map_without_a_trace_is_written_anew(world, replaced):
    volume = world.prepare()
    path = world.place / "ws" / "rw" / "billing" / "a.py"
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[0:1] = b"b"
        wait_a_tick()
        safe = volume.snapshot()
        about = path.stat()
        mapped[0:1] = b"c"
        if path.stat().st_ctime_ns != about.st_ctime_ns:
            pytest.skip("this file system shows every writing")
    assert world.store.read_blob(safe.changes[0].new_blob) == b"b = 1\n"
    volume.restore(safe.tree)
    assert path.read_bytes() == b"b = 1\n"
    assert not replaced


@pytest.mark.parametrize("spoiled", ["repository is a link", "objects", "access list", "a file where it is refused"])
def test_what_cannot_be_gone_back_to_is_made_anew(world, monkeypatch, spoiled):
    volume = world.prepare()
    root = world.place / "ws" / "rw" / "billing"
    wanted = contents(root)
    if spoiled == "repository is a link":
        os.rename(root / ".git", root / "moved")
        (root / ".git").symlink_to("moved")
    elif spoiled == "objects":
        for path in (root / ".git" / "objects").glob("*/*"):
            path.chmod(0o644)
            path.write_bytes(b"x" * path.stat().st_size)
    elif spoiled == "access list":
        try:
            os.setxattr(root / "tests", "user.mine", b"x")
        except OSError as error:
            pytest.skip(f"no extended attributes here: {error}")
    else:
        (root / "a.py").write_text("x")
        monkeypatch.setattr(snapshot.rewind, "clear", lambda *_: True)
    (root / "new").write_text("x")
    volume.restore(world.tree)
    assert contents(root) == wanted
    assert not os.listxattr(root / "tests")
    assert git(root, "fsck", "--strict", "--no-dangling") == ""
    assert git(root, "status", "--short") == ""
    assert volume.snapshot().tree == world.tree


@pytest.mark.parametrize("step", range(8))
def test_a_restore_that_was_killed_is_repeated_whole(world, step):
    """Killed before its nth step; what comes after knows nothing of it."""
    volume = world.prepare()
    root = world.place / "ws" / "rw" / "billing"
    (root / "kept.py").write_text("kept\n")
    safe = volume.snapshot()
    wanted = contents(root)
    havoc(root, world.place / "source" / "README")
    child = os.fork()
    if child == 0:
        seen = []

        def step_by_step(real):
            def stepped(*args, **how):
                seen.append(real)
                if len(seen) > step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **how)

            return stepped

        for name in ("unlink", "mkdir", "rename", "fchmod", "rmdir"):
            setattr(os, name, step_by_step(getattr(os, name)))
        volume.restore(safe.tree)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    volume = Volume.open(world.store, os.fspath(world.place / "ws"))
    volume.restore(safe.tree)
    assert contents(root) == wanted
    assert volume.snapshot().tree == safe.tree


def test_two_hundred_checkpoints_and_back_to_each(world):
    volume = world.prepare()
    path = world.place / "ws" / "rw" / "billing" / "a.py"
    trees = []
    for number in range(200):
        path.write_text(f"a = {number}\n")
        trees.append(volume.snapshot().tree)
    assert len(set(trees)) == 200
    for number in (0, 100, 199, 7):
        volume.restore(trees[number])
        assert path.read_text() == f"a = {number}\n"
        assert volume.snapshot().tree == trees[number]
