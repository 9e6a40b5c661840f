"""The rootless volume: what a jail is shown, and that a snapshot says all that an agent did there, or that it can't."""

import os
import stat
import subprocess
import time

import pytest
from storerepo import add, git, make

from inbounds.contracts.canonical import canonical
from inbounds.contracts.errors import HostError, OperatorError
from inbounds.sandbox.volume import Bind, Volume
from inbounds.store import descent, export, snapshot
from inbounds.store.store import Store
from inbounds.store.walk import Limits

FILES = {
    "billing/a.py": "a = 1\n",
    "billing/.inbounds/config.yaml": "limits: {}\n",
    "billing/tests/test_a.py": "def test_a(): assert False\n",
    "shared/api.json": "{}\n",
    "other/secret.py": "x = 1\n",
    ".gitignore": "*.log\nbuild/\n",
    "README": "read me\n",
}


@pytest.fixture
def place(tmp_path):
    directory = tmp_path / "place"
    directory.mkdir()
    yield directory
    descent.delete_tree(os.fspath(directory))


@pytest.fixture
def world(place):
    """A store with the base tree of a repository, and a way to prepare workspaces of it."""
    make(place / "source", FILES)
    store = Store.create(os.fspath(place / "store.git"))
    return World(place, store, store.tree_of(store.fetch(os.fspath(place / "source"))))


class World:
    def __init__(self, place, store, tree):
        self.place, self.store, self.tree = place, store, tree

    def prepare(self, thread="billing", interfaces=("shared/api.json",), **how):
        where = os.fspath(self.place / "ws")
        return Volume.prepare(self.store, self.tree, thread, interfaces, where, **how)

    def again(self):
        self.tree = self.store.tree_of(self.store.fetch(os.fspath(self.place / "source")))


def changes(taken):
    return [(change.status, change.path) for change in taken.changes]


def wait_a_tick():
    time.sleep(2 * snapshot.TICK_NS / 1e9)


def test_the_jail_is_shown_the_thread_and_its_interfaces_and_nothing_else(world):
    volume = world.prepare(protected=["billing/tests/test_a.py"])
    root = world.place / "ws"
    assert volume.binds() == (
        Bind(f"{root}/rw/billing", "/work/billing", writable=True),
        Bind(f"{root}/ro/shared/api.json", "/work/shared/api.json", writable=False),
        Bind(f"{root}/ro/billing/.inbounds", "/work/billing/.inbounds", writable=False),
        Bind(f"{root}/ro/billing/tests/test_a.py", "/work/billing/tests/test_a.py", writable=False),
    )
    shown = {path.name for bind in volume.binds() for path in root.glob("**/*") if str(path).startswith(bind.source)}
    assert "a.py" in shown
    assert not list(root.glob("**/secret.py"))
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_the_whole_repository_as_a_thread(world):
    volume = world.prepare(".", (), protected=["billing/tests/test_a.py"])
    assert [(bind.target, bind.writable) for bind in volume.binds()] == [
        ("/work", True),
        ("/work/.inbounds", False),
        ("/work/billing/tests/test_a.py", False),
    ]
    assert volume.snapshot().tree == world.tree


@pytest.mark.req("I1")
def test_a_snapshot_is_the_base_with_what_changed(world):
    volume = world.prepare()
    root = world.place / "ws" / "rw" / "billing"
    first = volume.snapshot()
    assert (first.tree, first.changes, first.complete) == (world.tree, (), True)
    (root / "a.py").write_text("a = 2\n")
    (root / "new").mkdir()
    (root / "new" / "b.py").write_text("b\n")
    (root / "run").write_text("#!/bin/sh\n")
    (root / "run").chmod(0o755)
    (root / "tests" / "test_a.py").unlink()
    taken = volume.snapshot()
    assert taken.complete
    assert changes(taken) == [
        ("M", "billing/a.py"),
        ("A", "billing/new/b.py"),
        ("A", "billing/run"),
        ("D", "billing/tests/test_a.py"),
    ]
    paths = {node.path for node in world.store.ls(taken.tree)}
    assert {"other/secret.py", "README", "shared/api.json", "billing/run"} <= paths
    (root / "a.py").write_text("a = 1\n")
    assert ("M", "billing/a.py") not in changes(volume.snapshot())


def test_files_become_directories_and_the_reverse(world):
    volume = world.prepare()
    root = world.place / "ws" / "rw" / "billing"
    (root / "a.py").unlink()
    (root / "a.py").mkdir()
    (root / "a.py" / "x").write_text("x")
    descent.delete_tree(os.fspath(root / "tests"))
    (root / "tests").write_text("a file now")
    taken = volume.snapshot()
    assert ("A", "billing/a.py/x") in changes(taken)
    assert ("A", "billing/tests") in changes(taken)
    assert taken.complete


def test_a_same_sized_rewrite_with_its_old_times_is_seen(world):
    """The change time can't be set back without privilege; size, inode and modification time can be kept."""
    volume = world.prepare()
    path = world.place / "ws" / "rw" / "billing" / "a.py"
    for number in range(2, 8):  # at once, too: within one tick of the file system's clock
        about = path.stat()
        path.write_text(f"a = {number}\n")
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
        taken = volume.snapshot()
        blob = next(change.new_blob for change in taken.changes)
        assert world.store.read_blob(blob) == f"a = {number}\n".encode()


@pytest.mark.req("B8", "O6")
@pytest.mark.without("protected-from-base")
def test_protected_files_come_from_the_base_whatever_stands_there(world, monkeypatch):
    if os.environ.get("INBOUNDS_TEST_WITHOUT") == "protected-from-base":
        monkeypatch.setattr(snapshot.Part, "guards", lambda self, path: False)
    volume = world.prepare(protected=["billing/tests/test_a.py"])
    root = world.place / "ws" / "rw" / "billing"
    (root / "tests" / "test_a.py").write_text("def test_a(): pass\n")
    (root / ".inbounds" / "config.yaml").write_text("limits: {none: 1}\n")
    (root / ".inbounds" / "extra.yaml").write_text("new\n")
    (root / "a.py").write_text("a = 3\n")
    taken = volume.snapshot()
    assert changes(taken) == [("M", "billing/a.py")]
    assert set(taken.protected_changed) == {
        "billing/tests/test_a.py",
        "billing/.inbounds/config.yaml",
        "billing/.inbounds/extra.yaml",
    }


@pytest.mark.parametrize("shape", ["renamed", "file", "link"])
def test_a_renamed_parent_of_a_protected_file_changes_nothing(world, shape):
    volume = world.prepare(protected=["billing/tests/test_a.py"])
    root = world.place / "ws" / "rw" / "billing"
    os.rename(root / "tests", root / "tests2")
    if shape == "file":
        (root / "tests").write_text("in the way")
    elif shape == "link":
        (root / "tests").symlink_to("tests2")
    taken = volume.snapshot()
    blobs = {node.path: node.blob for node in world.store.ls(taken.tree)}
    base = {node.path: node.blob for node in world.store.ls(world.tree)}
    assert blobs["billing/tests/test_a.py"] == base["billing/tests/test_a.py"]
    assert taken.protected_changed == ("billing/tests/test_a.py",)
    assert changes(taken) == [("A", "billing/tests2/test_a.py")]


@pytest.mark.req("B8")
def test_contracts_that_did_not_exist_cannot_be_created(world):
    volume = world.prepare("other", ())
    assert volume.binds()[1] == Bind(f"{world.place}/ws/ro/other/.inbounds", "/work/other/.inbounds", writable=False)
    (world.place / "ws" / "rw" / "other" / ".inbounds" / "config.yaml").write_text("mine\n")
    taken = volume.snapshot()
    assert taken.tree == world.tree
    assert taken.protected_changed == ("other/.inbounds/config.yaml",)


def test_links_out_are_kept_as_links_and_named(world, monkeypatch):
    volume = world.prepare()
    root = world.place / "ws" / "rw" / "billing"
    (root / "passwd").symlink_to("/etc/passwd")
    (root / "up").symlink_to("../../etc")
    (root / "sibling").symlink_to("../other/secret.py")
    (root / "here").symlink_to("a.py")
    taken = volume.snapshot()
    assert taken.links_out == ("billing/passwd", "billing/up")
    blobs = {node.path: (node.mode, node.blob) for node in world.store.ls(taken.tree)}
    mode, blob = blobs["billing/passwd"]
    assert mode == 0o120000
    assert world.store.read_blob(blob) == b"/etc/passwd"
    (root / "passwd").unlink()
    assert volume.snapshot().links_out == ("billing/up",)


@pytest.mark.parametrize("step", ["scan", "look", "lines"])
def test_a_directory_swapped_for_a_link_is_not_followed(world, monkeypatch, step):
    """Between the look and the reading, as a process that is still alive could do it."""
    volume = world.prepare()
    root = world.place / "ws" / "rw" / "billing"
    outside = world.place / "outside"
    outside.mkdir()
    (outside / "key").write_text("private")
    (root / "sub").mkdir()
    (root / "sub" / "key").write_text("private")
    if step == "scan":
        volume = Volume.open(world.store, os.fspath(world.place / "ws"))
    module = snapshot.listing if step == "lines" else snapshot.walk
    real, swapped = getattr(module, step), []

    def look_then_swap(*args, **how):
        found = real(*args, **how)
        if not swapped:
            swapped.append(os.rename(root / "sub", root / "gone"))
            (root / "sub").symlink_to(outside)
        return found

    monkeypatch.setattr(module, step, look_then_swap)
    taken = volume.snapshot()
    assert swapped
    assert "billing/sub/key" not in {node.path for node in world.store.ls(taken.tree)}
    if step == "scan":
        assert not taken.complete
        assert "billing/sub/key" in taken.why
    else:  # noticed, and so all was looked at once more, now as it stands
        assert taken.complete
        assert changes(taken) == [("A", "billing/gone/key"), ("A", "billing/sub")]
        assert taken.links_out == ("billing/sub",)


def test_nested_repositories_never_reach_a_tree_nor_run(world):
    volume = world.prepare()
    root = world.place / "ws" / "rw" / "billing"
    canary = world.place / "canary"
    nested = root / "nested"
    git(world.place, "init", "-q", os.fspath(nested))
    (nested / "f.txt").write_text("x")
    with open(nested / ".git" / "config", "a") as file:
        file.write(
            f'[core]\n fsmonitor = touch {canary}; false\n hooksPath = .\n[filter "e"]\n clean = touch {canary}\n'
        )
    for where in (root, nested):
        (where / ".gitattributes").write_text("* filter=e diff=e\n")
    with open(root / ".git" / "config", "a") as file:
        file.write(f'[core]\n fsmonitor = touch {canary}; false\n[filter "e"]\n clean = touch {canary}; cat\n')
    (root / "pointer").mkdir()
    (root / "pointer" / ".git").write_text("gitdir: ../nested/.git\n")
    subprocess.run(["git", "-c", "safe.directory=*", "status"], cwd=root, capture_output=True, check=False)
    assert canary.exists()  # the positive control: plain git runs what the agent planted
    canary.unlink()
    taken = volume.snapshot()
    assert set(taken.foreign) == {"billing/nested/.git", "billing/pointer/.git"}
    assert not any(".git/" in node.path or node.path.endswith("/.git") for node in world.store.ls(taken.tree))
    assert ("A", "billing/nested/f.txt") in changes(taken)
    volume.restore(taken.tree)
    volume.quarantine(os.fspath(world.place / "quarantine"))
    subprocess.run(["git", "status"], cwd=world.place / "quarantine" / "billing", capture_output=True, check=False,
                   env={"PATH": os.environ["PATH"], "GIT_CEILING_DIRECTORIES": os.fspath(world.place)})  # fmt: skip
    assert not canary.exists()


def test_only_the_bases_ignore_rules_count(world):
    volume = world.prepare()
    root = world.place / "ws" / "rw" / "billing"
    (root / "x.log").write_text("noise")
    (root / "build").mkdir()
    (root / "build" / "out").write_text("noise")
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "a.pyc").write_text("noise")
    (root / ".gitignore").write_text("hidden.py\n")
    (root / "hidden.py").write_text("import os\n")
    (root / ":(top)").write_text("an odd name")
    taken = volume.snapshot()
    assert changes(taken) == [("A", "billing/.gitignore"), ("A", "billing/:(top)"), ("A", "billing/hidden.py")]
    assert taken.ignored == ("billing/__pycache__/a.pyc", "billing/build/out", "billing/x.log")
    assert volume.snapshot().ignored == taken.ignored


def test_odd_names_are_kept_and_undecodable_ones_make_it_inconclusive(world):
    volume = world.prepare()
    root = world.place / "ws" / "rw" / "billing"
    (root / "new\nline").write_text("1")
    (root / "\x1b[31m").write_text("2")
    taken = volume.snapshot()
    assert taken.complete
    assert set(changes(taken)) == {("A", "billing/new\nline"), ("A", "billing/\x1b[31m")}
    with open(os.path.join(os.fsencode(root), b"caf\xe9"), "w") as file:
        file.write("3")
    taken = volume.snapshot()
    assert not taken.complete
    assert "not UTF-8" in taken.why
    taken.why.encode("utf-8")
    assert len(taken.changes) == 2


def test_undecodable_names_beside_the_tree_can_be_journalled(world):
    volume = world.prepare()
    root = os.path.join(os.fsencode(world.place), b"ws/rw/billing")
    for name in (b"caf\xe9/.git", b"build/\xff", b".inbounds/\xfe"):
        os.makedirs(os.path.join(root, name))
    for name in (b"build/\xff/x", b".inbounds/\xfe/x"):
        with open(os.path.join(root, name), "w") as file:
            file.write("x")
    taken = volume.snapshot()
    canonical([*taken.foreign, *taken.ignored, *taken.protected_changed, taken.why])
    assert taken.foreign == ("billing/caf\\udce9/.git",)
    assert taken.ignored == ("billing/build/\\udcff/x",)


def test_undecodable_names_of_the_base_are_no_obstacle(world):
    with open(os.path.join(os.fsencode(world.place), b"source/billing/caf\xe9"), "w") as file:
        file.write("old")
    add(world.place / "source", {})
    world.again()
    volume = world.prepare()
    assert volume.snapshot().complete
    os.unlink(os.path.join(os.fsencode(world.place), b"ws/rw/billing/caf\xe9"))
    taken = volume.snapshot()
    assert not taken.complete
    assert taken.changes == ()


@pytest.mark.parametrize("kind", ["pipe", "set-id", "hard link", "deep", "large"])
def test_what_no_tree_can_hold_is_inconclusive(world, kind):
    volume = world.prepare(limits=Limits(depth_max=8, file_bytes_max=1_000))
    root = world.place / "ws" / "rw" / "billing"
    path = root / "x"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "set-id":
        path.write_text("x")
        path.chmod(0o4755)
    elif kind == "hard link":
        os.link(world.place / "source" / "README", path)
    elif kind == "deep":
        os.makedirs(root.joinpath(*["d"] * 20))
    else:
        path.write_bytes(b"x" * 1_001)
    taken = volume.snapshot()
    assert not taken.complete
    assert "billing/" in taken.why
    volume.discard()
    assert not (world.place / "ws").exists()


def test_restore_brings_back_any_snapshot(world):
    volume = world.prepare()
    root = world.place / "ws" / "rw" / "billing"
    (root / "a.py").write_text("a = 2\n")
    (root / "kept.py").write_text("kept\n")
    safe = volume.snapshot()
    (root / "a.py").write_text("broken")
    (root / "kept.py").unlink()
    (root / "more").mkdir()
    (root / "more" / ".git").mkdir()
    os.mkfifo(root / "pipe")
    (root / "shut").mkdir()
    (root / "shut").chmod(0)
    volume.restore(safe.tree)
    again = volume.snapshot()
    assert (again.tree, again.changes, again.complete, again.foreign) == (safe.tree, safe.changes, True, ())
    assert (root / "a.py").read_text() == "a = 2\n"
    volume.restore(world.tree)
    assert volume.snapshot().changes == ()
    assert sorted(os.listdir(world.place / "ws")) == ["ro", "rw", "state"]


def test_restore_refuses_a_tree_that_differs_elsewhere(world):
    volume = world.prepare()
    other = world.store.replace(world.tree, {"other/secret.py": None})
    with pytest.raises(HostError, match="other/secret"):
        volume.restore(other)


@pytest.mark.req("E13")
def test_quarantine_keeps_the_evidence_and_makes_it_inert(world):
    volume = world.prepare()
    root = world.place / "ws" / "rw" / "billing"
    (root / "evil.sh").write_text("#!/bin/sh\n")
    (root / "evil.sh").chmod(0o6755)
    target = world.place / "quarantine"
    volume.quarantine(os.fspath(target))
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert (target / "billing" / "evil.sh").read_text() == "#!/bin/sh\n"
    assert stat.S_IMODE((target / "billing" / "evil.sh").stat().st_mode) == 0o644
    assert not (target / "billing" / ".git").exists()
    assert not root.exists()


def test_the_agent_has_a_repository_of_its_own(world):
    world.prepare()
    root = world.place / "ws" / "rw" / "billing"
    assert git(root, "status", "--short") == ""
    assert git(root, "log", "--format=%s") == "The state this run started from."
    (root / "a.py").write_text("a = 2\n")
    git(root, "commit", "-q", "-a", "-m", "mine")
    assert git(root, "ls-files").splitlines() == [".inbounds/config.yaml", "a.py", "tests/test_a.py"]
    assert not (root / ".git" / "hooks").exists()
    assert "url" not in (root / ".git" / "config").read_text()
    assert not (root / ".git" / "objects" / "info" / "alternates").exists()


def test_files_belong_to_the_jails_user(world):
    if os.geteuid() != 0:
        pytest.skip("only root can give files to another user")
    world.prepare(uid=4242, gid=4343)
    for directory, names, files in os.walk(world.place / "ws" / "rw"):
        for name in (*names, *files):
            about = os.lstat(os.path.join(directory, name))
            assert (about.st_uid, about.st_gid) == (4242, 4343), name


def test_a_workspace_is_found_again_after_a_crash(world):
    volume = world.prepare(protected=["billing/tests/test_a.py"])
    root = world.place / "ws" / "rw" / "billing"
    (root / "a.py").write_text("a = 2\n")
    before = volume.snapshot()
    again = Volume.open(world.store, os.fspath(world.place / "ws"))
    assert again.binds() == volume.binds()
    assert again.snapshot() == before
    with pytest.raises(HostError, match="holds no workspace"):
        Volume.open(world.store, os.fspath(world.place))


@pytest.mark.parametrize("thread", ["nothing", "../x", "/etc", "", "billing/../..", ".git", "a\nb"])
def test_a_thread_that_is_no_directory_of_the_base_is_refused(world, thread):
    with pytest.raises(OperatorError):
        world.prepare(thread)
    assert not (world.place / "ws").exists()


@pytest.mark.parametrize("where", ["interface", "above", "contracts", "thread"])
def test_links_among_what_is_mounted_are_refused(world, where):
    source = world.place / "source"
    (source / "linked").symlink_to("/etc")
    if where == "contracts":
        (source / "other" / ".inbounds").symlink_to("/etc")
    add(source, {})
    world.again()
    asked = {
        "interface": ("billing", ["linked"]),
        "above": ("billing", ["linked/passwd"]),
        "contracts": ("other", []),
        "thread": ("linked", []),
    }
    with pytest.raises(OperatorError, match="symbolic link"):
        world.prepare(*asked[where])


def test_a_disk_too_small_is_said_before_anything_is_written(world, monkeypatch):
    monkeypatch.setattr(export, "RESERVE_BYTES", 1 << 60)  # more than any disk of these years has
    with pytest.raises(HostError, match="MiB are free"):
        world.prepare()
    assert not (world.place / "ws").exists()


def test_usage_is_what_is_on_the_disk(world):
    volume = world.prepare()
    before = volume.usage()
    (world.place / "ws" / "rw" / "billing" / "big").write_bytes(b"x" * (1 << 20))
    after = volume.usage()
    assert after.exact
    assert after.inodes == before.inodes + 1
    assert after.bytes - before.bytes >= 1 << 20


def test_a_second_snapshot_costs_what_changed(world, monkeypatch):
    """10,000 files: the first look at a workspace opened again reads all of them, the next one only what changed.

    Counted, not timed: a busy machine has a share in every duration.
    """
    many = {f"billing/d{number // 100}/f{number}": f"{number}\n" for number in range(10_000)}
    add(world.place / "source", many)
    world.again()
    world.prepare()
    wait_a_tick()
    volume = Volume.open(world.store, os.fspath(world.place / "ws"))
    read = []
    real = snapshot.walk.read_entry
    monkeypatch.setattr(snapshot.walk, "read_entry", lambda root, entry: read.append(entry.path) or real(root, entry))
    first = volume.snapshot(alive=False)
    assert first.tree == world.tree
    assert len(read) == first.files > 10_000
    read.clear()
    (world.place / "ws" / "rw" / "billing" / "d3" / "f300").write_text("changed\n")
    second = volume.snapshot(alive=False)
    assert changes(second) == [("M", "billing/d3/f300")]
    assert read == ["d3/f300"]
    wait_a_tick()
    volume.snapshot(alive=False)
    read.clear()
    assert volume.snapshot(alive=False).tree == second.tree
    assert read == []
