"""The trusted store against real git: fetching, trees, commits, refs, export, and what must never be executed."""

import os
import random
import stat
import subprocess
import sys
import threading

import pytest
from storerepo import add, git, make

from inbounds.contracts.errors import HostError, OperatorError, RefusedError
from inbounds.store import git as hardened
from inbounds.store.blobs import blob_id
from inbounds.store.export import Owner
from inbounds.store.store import Store, object_format_of, repo_key
from inbounds.store.walk import EXECUTABLE, FILE, LINK

AUTHOR = "A Person <person@example.com>"


@pytest.fixture
def store(place):
    return Store.create(os.fspath(place / "store.git"))


def test_refs_are_listed_below_a_whole_name_only(store, source):
    commit = store.fetch(os.fspath(source))
    assert store.refs("refs/inbounds/base") == {f"refs/inbounds/base/{commit}": commit}
    assert store.set_ref("refs/inbounds/baseless/x", commit, None)
    assert list(store.refs("refs/inbounds/base")) == [f"refs/inbounds/base/{commit}"]
    assert store.refs("refs/inbounds/none") == {}
    for wrong in ("refs", "refs/inbounds/*", "--all", "refs/inbounds/base/../heads"):
        with pytest.raises(OperatorError, match="no ref name"):
            store.refs(wrong)


@pytest.fixture
def source(place):
    make(place / "source", {"a/b/f": "hello\n", "x y": "1\n", "run": "#!/bin/sh\n"})
    (place / "source" / "run").chmod(0o755)
    (place / "source" / "link").symlink_to("/etc/passwd")
    (place / "source" / "new\nline").write_text("n")
    add(place / "source", {})
    return place / "source"


def test_a_commit_is_fetched_and_listed(store, source):
    commit = store.fetch(os.fspath(source))
    assert commit == git(source, "rev-parse", "HEAD")
    tree = store.tree_of(commit)
    assert tree == git(source, "rev-parse", "HEAD^{tree}")
    listed = {node.path: (node.mode, node.size) for node in store.ls(tree)}
    assert listed == {
        "a/b/f": (0o100644, 6),
        "x y": (0o100644, 2),
        "run": (0o100755, 10),
        "link": (0o120000, 11),
        "new\nline": (0o100644, 1),
    }
    assert [node.path for node in store.ls(tree, ["a"])] == ["a/b/f"]
    assert store.fetch(os.fspath(source), "HEAD~1") == git(source, "rev-parse", "HEAD~1")
    assert stat.S_IMODE(os.stat(store.path).st_mode) == 0o700


def test_work_trees_and_shallow_clones_are_fetched_from(store, source, place):
    git(source, "worktree", "add", "-q", "../beside")
    assert store.fetch(os.fspath(place / "beside")) == git(source, "rev-parse", "HEAD")
    git(place, "clone", "-q", "--depth=1", f"file://{source}", "shallow")
    other = Store.create(os.fspath(place / "other.git"))
    commit = other.fetch(os.fspath(place / "shallow"))
    assert other.ls(other.tree_of(commit)) == store.ls(store.tree_of(commit))


def test_a_repository_of_sha256_objects(place):
    git(place, "init", "-q", "-b", "main", "--object-format=sha256", "source")
    commit = add(place / "source", {"f": "1\n"})
    assert object_format_of(os.fspath(place / "source")) == "sha256"
    store = Store.create(os.fspath(place / "store.git"), object_format="sha256")
    assert store.fetch(os.fspath(place / "source")) == commit
    tree = store.replace(store.tree_of(commit), {"g": store.write_blob(b"2\n")})
    assert store.set_ref("refs/heads/agent/x", store.commit(tree, [commit], "m", AUTHOR, 1), None)
    with pytest.raises(OperatorError, match="objects are sha256"):
        Store.create(os.fspath(place / "other.git")).fetch(os.fspath(place / "source"))


def test_partial_clones_are_refused_by_name(store, source, place):
    git(source, "config", "uploadpack.allowFilter", "true")
    git(place, "clone", "-q", "--filter=blob:none", "--no-checkout", f"file://{source}", "partial")
    with pytest.raises(OperatorError, match="partial clone"):
        store.fetch(os.fspath(place / "partial"))


@pytest.mark.parametrize("rev", ["nothing", "--upload-pack=touch /tmp/x", "HEAD^{tree}", ""])
def test_a_revision_that_is_no_commit_is_the_operators_mistake(store, source, rev):
    with pytest.raises(OperatorError, match="names no commit"):
        store.fetch(os.fspath(source), rev)


def test_no_repository_and_an_empty_one(store, place):
    (place / "plain").mkdir()
    with pytest.raises(OperatorError, match="no git repository"):
        store.fetch(os.fspath(place / "plain"))
    git(place, "init", "-q", "empty")
    with pytest.raises(OperatorError, match="names no commit"):
        store.fetch(os.fspath(place / "empty"))


def test_submodules_are_refused_by_name(store, source, place):
    make(place / "module", {"m": "m"})
    git(source, "-c", "protocol.file.allow=always", "submodule", "add", "-q", os.fspath(place / "module"), "vendor/m")
    add(source, {})
    tree = store.tree_of(store.fetch(os.fspath(source)))
    with pytest.raises(OperatorError, match="submodules are not supported: 'vendor/m'"):
        store.refuse_unsupported(tree)


def test_lfs_pointers_are_refused_by_name(store, source):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1\n"
    add(source, {"big.bin": pointer})
    store.refuse_unsupported(store.tree_of(store.fetch(os.fspath(source))))  # a text about LFS is no LFS file
    add(source, {".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n"})
    with pytest.raises(OperatorError, match=r"Git LFS files are not supported: 'big\.bin'"):
        store.refuse_unsupported(store.tree_of(store.fetch(os.fspath(source))))


def test_trees_are_compared_and_parts_replaced(store, source):
    commit = store.fetch(os.fspath(source))
    tree = store.tree_of(commit)
    blob = store.write_blob(b"hello\nyou\n")
    assert blob == blob_id(b"hello\nyou\n", "sha1")
    assert store.read_blob(blob) == b"hello\nyou\n"
    with pytest.raises(HostError, match="at most 3"):
        store.read_blob(blob, 3)
    new = store.replace(tree, {"a/b/f": blob, "x y": None, "run": blob, "link/below": blob})
    assert [(c.status, c.path) for c in store.diff(tree, new)] == [
        ("M", "a/b/f"),
        ("D", "link"),
        ("A", "link/below"),
        ("M", "run"),
        ("D", "x y"),
    ]
    assert store.modes(new, ["run", "a"]) == {"run": 0o100755, "a": 0o040000}
    assert {line.path: (line.added, line.deleted) for line in store.numstat(tree, new)}["a/b/f"] == (1, 0)
    patch = store.patch(tree, new)
    assert b"+you\n" in patch
    assert store.patch(tree, new, 50) == patch[:50]
    assert store.replace(tree, {}) == tree


def test_a_rename_and_a_type_change_are_named(store, source):
    tree = store.tree_of(store.fetch(os.fspath(source)))
    git(source, "mv", "a/b/f", "moved")
    (source / "x y").unlink()
    (source / "x y").symlink_to("run")
    after = store.tree_of(store.fetch(os.fspath(source), add(source, {})))
    assert [(c.status, c.old_path, c.path) for c in store.diff(tree, after)] == [
        ("R", "a/b/f", "moved"),
        ("T", "x y", "x y"),
    ]


@pytest.mark.req("K1")
def test_commits_are_deterministic_and_refs_move_by_comparison(store, source):
    base = store.fetch(os.fspath(source))
    tree = store.tree_of(base)
    made = {store.commit(tree, [base], "PLAN-1 iteration 1\n", AUTHOR, 1_000) for _ in range(2)}
    assert len(made) == 1
    commit = made.pop()
    assert store.is_ancestor(base, commit)
    assert not store.is_ancestor(commit, base)
    ref = "refs/heads/agent/run/1"
    assert store.ref(ref) is None
    assert store.set_ref(ref, commit, None)
    assert not store.set_ref(ref, base, None)
    assert not store.set_ref(ref, base, base)
    assert store.ref(ref) == commit
    assert not store.delete_ref(ref, base)
    assert store.delete_ref(ref, commit)
    assert store.ref(ref) is None
    for name in ("refs/heads/main", "refs/heads/development", "refs/heads/staging"):
        with pytest.raises(RefusedError):
            store.set_ref(name, commit, None)
    for name in ("main", "refs/heads/../x", "refs/heads/a.lock", "-d", "refs/heads/a b"):
        with pytest.raises(OperatorError):
            store.set_ref(name, commit, None)


def test_of_many_writers_of_one_ref_one_wins(store, source):
    base = store.fetch(os.fspath(source))
    commits = [store.commit(store.tree_of(base), [base], f"{number}", AUTHOR, number) for number in range(8)]
    assert store.set_ref("refs/heads/agent/race", base, None)
    won = []
    start = threading.Barrier(len(commits))

    def move(commit):
        start.wait()
        if store.set_ref("refs/heads/agent/race", commit, base):
            won.append(commit)

    threads = [threading.Thread(target=move, args=(commit,)) for commit in commits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.ref("refs/heads/agent/race") == won[0]


def test_export_writes_files_as_they_are(store, source, place):
    add(source, {".gitattributes": "* text eol=crlf filter=evil\n", "text": "one\ntwo\n"})
    tree = store.tree_of(store.fetch(os.fspath(source)))
    out = place / "out"
    out.mkdir()
    old = os.umask(0o077)
    try:
        written = store.export(tree, os.fspath(out))
    finally:
        os.umask(old)
    assert (out / "text").read_bytes() == b"one\ntwo\n"
    assert os.readlink(out / "link") == "/etc/passwd"
    assert stat.S_IMODE((out / "run").stat().st_mode) == 0o755
    assert stat.S_IMODE((out / "a" / "b" / "f").stat().st_mode) == 0o644
    assert stat.S_IMODE((out / "a").stat().st_mode) == 0o755
    assert {entry.path for entry, _ in written} == {node.path for node in store.ls(tree)}
    part = place / "part"
    part.mkdir()
    assert [entry.path for entry, _ in store.export(tree, os.fspath(part), ["a", "run"])] == ["a/b/f", "run"]


def test_export_gives_files_away(store, source, place):
    if os.geteuid() != 0:
        pytest.skip("only root can give files to another user")
    out = place / "out"
    out.mkdir()
    store.export(store.tree_of(store.fetch(os.fspath(source))), os.fspath(out), owner=Owner(4242, 4343))
    for path in [out / "a", out / "a" / "b" / "f", out / "link"]:
        assert (path.lstat().st_uid, path.lstat().st_gid) == (4242, 4343)


def test_export_never_writes_through_a_link_in_the_way(store, source, place):
    tree = store.tree_of(store.fetch(os.fspath(source)))
    out, outside = place / "out", place / "outside"
    out.mkdir()
    outside.mkdir()
    (out / "a").symlink_to(outside)
    with pytest.raises(HostError, match="could not be written"):
        store.export(tree, os.fspath(out))
    assert not any(outside.iterdir())


@pytest.mark.parametrize("name", [".git", "..", ".GIT", "git~1"])
def test_a_hostile_tree_is_not_exported(store, place, name):
    blob = store.write_blob(b"x")
    raw = b"100644 " + name.encode() + b"\0" + bytes.fromhex(blob)
    tree = store.git("hash-object", "-w", "--stdin", "-t", "tree", "--literally", stdin=raw)
    out = place / "out"
    out.mkdir()
    with pytest.raises(OperatorError, match="the tree names"):
        store.export(tree, os.fspath(out))
    assert not any(out.iterdir())
    assert not (place / "x").exists()


@pytest.mark.without("git-hardening")
def test_nothing_of_a_hostile_repository_is_executed(store, source, place, monkeypatch):
    """Hooks, fsmonitor, filters, drivers, pager and aliases of the source and of the caller's own configuration."""
    canary = place / "canary"
    touch = f"touch {canary}"
    (place / "hooks").mkdir()
    for hook in ("reference-transaction", "post-checkout", "pre-commit", "post-index-change", "pre-auto-gc"):
        path = place / "hooks" / hook
        path.write_text(f"#!/bin/sh\n{touch}\n")
        path.chmod(0o755)
        (source / ".git" / "hooks").mkdir(exist_ok=True)
        (source / ".git" / "hooks" / hook).write_text(f"#!/bin/sh\n{touch}\n")
        (source / ".git" / "hooks" / hook).chmod(0o755)
    config = f"""[core]
    fsmonitor = {touch}; false
    hooksPath = {place}/hooks
    pager = {touch}
    sshCommand = {touch}
[filter "evil"]
    clean = {touch}; cat
    smudge = {touch}; cat
[diff "evil"]
    textconv = {touch}; cat
[diff]
    external = {touch}; cat
[uploadpack]
    packObjectsHook = {touch}; git
[merge "evil"]
    driver = {touch}
"""
    (place / "home").mkdir()
    (place / "home" / ".gitconfig").write_text(config)
    with open(source / ".git" / "config", "a") as file:
        file.write(config)
    (source / ".gitattributes").write_text("* filter=evil diff=evil merge=evil\n")
    monkeypatch.setenv("HOME", os.fspath(place / "home"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.hooksPath")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", os.fspath(place / "hooks"))
    env = {
        **os.environ,
        "GIT_AUTHOR_NAME": "x",
        "GIT_AUTHOR_EMAIL": "x",
        "GIT_COMMITTER_NAME": "x",
        "GIT_COMMITTER_EMAIL": "x",
    }
    for words in (["add", "-A"], ["commit", "-q", "--no-verify", "-m", "hostile"]):
        subprocess.run(["git", "-C", os.fspath(source), *words], env=env, check=False, capture_output=True)
    assert canary.exists()  # the positive control: plain git does execute them
    canary.unlink()
    if os.environ.get("INBOUNDS_TEST_WITHOUT") == "git-hardening":
        monkeypatch.setattr(hardened, "HARDENED", {})
        monkeypatch.setattr(hardened, "environment", lambda extra=None: {**os.environ, **(extra or {})})
    commit = store.fetch(os.fspath(source))
    tree = store.tree_of(commit)
    store.refuse_unsupported(tree)
    out = place / "out"
    out.mkdir()
    store.export(tree, os.fspath(out))
    new = store.replace(tree, {"a/b/f": store.write_blob(b"y\n")})
    store.diff(tree, new)
    store.patch(tree, new)
    store.set_ref("refs/heads/agent/x", store.commit(new, [commit], "m", AUTHOR, 1), None)
    assert not canary.exists()


@pytest.mark.parametrize("ref", ["development", "staging", "main"])
@pytest.mark.req("K2", "K7")
@pytest.mark.without("store-hooks")
def test_pushes_to_protected_refs_are_refused(store, source, ref, monkeypatch):
    if os.environ.get("INBOUNDS_TEST_WITHOUT") == "store-hooks":
        for name in os.listdir(os.path.join(store.path, "hooks")):
            os.unlink(os.path.join(store.path, "hooks", name))
        git(store.path, "config", "receive.denyNonFastForwards", "false")
    head = git(source, "rev-parse", "HEAD")
    for force in ([], ["-f"]):
        said = git(source, "push", *force, store.path, f"HEAD:refs/heads/{ref}", check=False)
        assert "only the promotion gate moves it" in said
        assert store.ref(f"refs/heads/{ref}") is None
    assert store.compare_and_swap(f"refs/heads/{ref}", store.fetch(os.fspath(source)), None)
    for words in (["-f", store.path, f"HEAD~1:refs/heads/{ref}"], [store.path, f":refs/heads/{ref}"]):
        assert "rejected" in git(source, "push", *words, check=False)
    git(store.path, "update-ref", f"refs/heads/{ref}", git(source, "rev-parse", "HEAD~1"), check=False)
    assert store.ref(f"refs/heads/{ref}") == head
    git(source, "push", "-q", store.path, "HEAD:refs/heads/topic")  # what is not protected may be pushed
    assert store.ref("refs/heads/topic") == head


def test_hooks_come_back_when_a_store_is_opened(store):
    path = os.path.join(store.path, "hooks", "update")
    os.unlink(path)
    Store.open(store.path)
    assert os.access(path, os.X_OK)


def test_two_repositories_never_share_a_store(place):
    (place / "a" / "same").mkdir(parents=True)
    (place / "b" / "same").mkdir(parents=True)
    (place / "link").symlink_to(place / "a" / "same")
    one, two = repo_key(place / "a" / "same"), repo_key(place / "b" / "same")
    assert one != two
    assert repo_key(place / "link") == one
    assert one.startswith("same-")


def test_git_that_hangs_prints_too_much_or_fails_is_a_host_error(store):
    with pytest.raises(HostError, match="no object id"):
        store.tree_of("--all")
    with pytest.raises(HostError, match="ended with status 128"):
        store.tree_of("0" * 40)
    with pytest.raises(HostError, match="more than 10 bytes"):
        hardened.run(["help", "-a"], limit=10)
    with pytest.raises(HostError, match="longer than"):
        hardened.run(["-c", "alias.hang=!sleep 30", "hang"], timeout_s=0.3)


def test_a_full_disk_is_said_in_words_and_leaves_the_store_usable(place):
    """A real file system of 8 MiB, in a mount namespace of a child's own."""
    full = place / "full"
    full.mkdir()
    program = f"""
import os
import random
from inbounds.contracts.errors import HostError
from inbounds.store.store import Store
store = Store.create("{full}/store.git")
small = store.write_blob(b"small")
try:
    with store.writing() as writer:
        for number in range(64):
            writer.add(os.urandom(1 << 20))
except HostError as error:
    print("HostError", error.one_line())
assert store.read_blob(small) == b"small"
print([name for _, _, names in os.walk(store.path) for name in names if "tmp" in name or "crash" in name])
empty = store.git("mktree")
try:
    store.export(store.replace(empty, {{"x": small}}), "{full}")
except HostError as error:
    print("HostError", error.one_line())
"""
    script = f'mount -t tmpfs -o size=8m none {full} && exec {sys.executable} -c "$PROGRAM"'
    flags = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    env = {**os.environ, "PROGRAM": program}
    done = subprocess.run(["unshare", *flags, "sh", "-c", script], env=env, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert "free some disk space" in said[0]
    assert said[1] == "[]"
    assert "MiB are free" in said[2]


def test_reading_many_ends_early_without_a_process_left(store):
    with store.writing() as writer:
        names = [writer.add(os.urandom(200_000)) for _ in range(40)]
    with hardened.Batch(store.path, 1 << 20, buffered=True) as batch:
        contents = batch.read_all(names)
        assert len(next(contents)) == 200_000
        contents.close()
        process = batch._process
    assert process.returncode is not None
    with hardened.Batch(store.path, 1 << 20, buffered=True) as batch:
        contents = batch.read_all([names[0], "0" * 40, *names])
        next(contents)
        with pytest.raises(HostError, match="cannot be read"):
            next(contents)


def test_thousands_of_files_are_replaced_at_once(store, source):
    tree = store.tree_of(store.fetch(os.fspath(source)))
    blob = store.write_blob(b"t")
    names = {f"{'long' * 40}/{number}": blob for number in range(20_000)}
    new = store.replace(tree, {**names, "run": blob})
    assert store.modes(new, ["run"]) == {"run": 0o100755}
    assert len(store.ls(new)) == 20_000 + len(store.ls(tree))


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_a_tree_made_with_its_blobs_is_the_one_that_an_index_makes(tmp_path, object_format):
    """Random changes, odd names, files for directories and the reverse; what makes it leaves no ref behind."""
    store = Store.create(str(tmp_path / "store.git"), object_format=object_format)
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    names = [
        "a",
        "b",
        "A",
        "a b",
        'q"uote',
        "back\\slash",
        "new\nline",
        "caf\udce9",
        "é",
        "-x",
        ":x",
        "a.b",
        "\\n",
        "\t",
    ]
    index = store.index(str(tmp_path / "index"))
    tree, held = store.git("mktree"), set[str]()
    for _ in range(25):
        index.load(tree)
        paths = {"/".join(chance.choices(names, k=chance.randint(1, 3))) for _ in range(8)}
        paths -= {path for path in paths for other in paths if path.startswith(other + "/")}
        gone = {path for path in held if chance.random() < 0.2}
        gone |= {one for one in held for path in paths if one.startswith(path + "/") or path.startswith(one + "/")}
        gone -= paths
        modes = {path: chance.choice([FILE, EXECUTABLE, LINK]) for path in paths}
        with store.writing() as writer:
            added = [(path, mode, writer.add(chance.randbytes(9))) for path, mode in sorted(modes.items())]
            made = writer.tree(tree, sorted(gone), added)
        index.update(sorted(gone), added)
        assert made == index.write(), seed
        held, tree = (held - gone) | paths, made
        assert {node.path for node in store.ls(tree)} == held
    assert store.git("for-each-ref") == ""
    assert store.git("fsck", "--strict", "--no-dangling", tree) == ""
    with pytest.raises(HostError, match="fast-import"), store.writing() as writer:
        writer.tree(tree, [], [("x", FILE, "1" * len(tree))])
    with pytest.raises(HostError, match="fast-import"), store.writing() as writer:
        writer.tree("1" * len(tree), ["x"], [])
    assert not [name for name in os.listdir(store.path) if "crash" in name or "blobs" in name]
