"""The workspace as of a record: byte for byte the stated tree, nothing followed or executed, or a refusal that helps."""

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runrig import Rig, script

from inbounds.agents import npm
from inbounds.agents.profile import Install
from inbounds.agents.registry import profile
from inbounds.contracts.errors import HostError, OperatorError, RefusedError
from inbounds.journal.writer import Journal
from inbounds.run import rebuild
from inbounds.run.home import Home, open_home
from inbounds.store.descent import delete_tree
from inbounds.store.store import Store

RUN = "20260101-000000-abcdef"
ODD: dict[bytes, bytes] = {
    b"-rf": b"a name that looks like an option\n",
    b"sp ace": b"",
    b"new\nline": b"\0binary\xff",
    b"\xff\xfe": b"no UTF-8 in the name",
    "é".encode(): b"x\r\ny\n",
    b"a.b": b"before the directory a in bytes, behind it in git's order\n",
    b"a/b": b"1",
    b"a0": b"2",
    b".gitattributes": b"* text eol=crlf filter=evil ident\n",
    b".gitignore": b"*\n",
    b"/".join([b"deep"] * 60) + b"/leaf": b"$Id$\n",
    b"only/dirs/here/x": b"3",
}
EXECUTABLE = (b"a0",)
LINKS: dict[bytes, bytes] = {
    b"away": b"/etc/passwd",
    b"up": b"../../../../outside",
    b"nowhere": b"\xff not there",
    b"into": b"a",
    b"only/self": b"self",
}


def plumbing(store: Store, *args: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        ["git", f"--git-dir={store.path}", *args],
        input=stdin,
        capture_output=True,
        check=True,
        env={**os.environ, **(env or {})},
    )
    return done.stdout.decode().strip()


def planted(store: Store, tmp_path: Path, files: dict[bytes, bytes], links: dict[bytes, bytes] | None = None) -> str:
    """A tree made by git's own index, whatever the names."""
    env = {"GIT_INDEX_FILE": str(tmp_path / f"index-{len(os.listdir(tmp_path))}")}
    listed = b""
    for kind, entries in (("file", files), ("link", links or {})):
        for path, content in entries.items():
            blob = plumbing(store, "hash-object", "-w", "--no-filters", "--stdin", stdin=content)
            mode = b"120000" if kind == "link" else b"100755" if path in EXECUTABLE else b"100644"
            listed += mode + b" " + blob.encode() + b"\t" + path + b"\0"
    plumbing(store, "update-index", "-z", "--index-info", stdin=listed, env=env)
    return plumbing(store, "write-tree", env=env)


class Made:
    """A run's journal and store, written here: base, then three trees."""

    def __init__(self, tmp_path: Path, object_format: str = "sha1") -> None:
        self.home: Home = open_home(tmp_path / "state")
        self.store = Store.create(str(self.home.stores / "r" / "store.git"), object_format=object_format)
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        self.base = planted(self.store, scratch, {b"base": b"base\n"})
        self.odd = planted(self.store, scratch, ODD, LINKS)
        self.last = planted(self.store, scratch, {b"last": b"last\n", b"new/er": b"new\n"})
        self.out = tmp_path / "out"
        self.steps: list[tuple[str, dict[str, Any]]] = [
            ("run.accepted", {"run_id": RUN, "base_tree": self.base, "store": self.store.path}),  # 1
            ("iteration.started", {"n": 1}),  # 2
            ("snapshot.taken", {"n": 1, "tree": self.odd, "complete": True}),  # 3
            ("verdict", {"judge": "scope", "outcome": "PASS", "n": 1}),  # 4
            ("commit.made", {"n": 1, "tree": self.odd, "commit": "1" * 40, "branch": "b"}),  # 5
            ("iteration.started", {"n": 2}),  # 6
            ("snapshot.kept", {"n": 2, "tree": self.last}),  # 7
            ("snapshot.taken", {"n": 2, "tree": self.last, "complete": False, "why": "unreadable: 'x'"}),  # 8
            ("stop.step", {"step": "reverted", "ok": True, "detail": f"the workspace is at tree {self.odd}"}),  # 9
        ]
        self.write()

    def write(self) -> None:
        with Journal.open(self.home.run(RUN) / "journal.jsonl") as journal:
            for kind, data in self.steps:
                journal.append(kind, data)

    def rebuild(self, at: int) -> rebuild.Rebuilt:
        return rebuild.rebuild(self.home, RUN, at, self.out)

    def object(self, name: str) -> Path:
        return Path(self.store.path) / "objects" / name[:2] / name[2:]


@pytest.fixture
def made(tmp_path: Path) -> Any:
    yield Made(tmp_path)
    delete_tree(str(tmp_path))


def again(directory: Path, tmp_path: Path, object_format: str) -> str:
    """What git itself makes of a directory, with every filter and ignore rule of it out of the way."""
    store = Store.create(str(tmp_path / "again.git"), object_format=object_format)
    files: dict[bytes, bytes] = {}
    links: dict[bytes, bytes] = {}
    modes: dict[bytes, int] = {}
    root = os.fsencode(directory)
    for place, below, names in os.walk(root):
        for name in [*names, *below]:
            path = os.path.join(place, name)
            inside = os.path.relpath(path, root)
            if os.path.islink(path):
                links[inside] = os.readlink(path)
            elif os.path.isfile(path):
                files[inside] = Path(os.fsdecode(path)).read_bytes()
                modes[inside] = stat.S_IMODE(os.stat(path).st_mode)
    assert {path for path, mode in modes.items() if mode == 0o755} == set(EXECUTABLE) & set(files)
    assert set(modes.values()) <= {0o644, 0o755}
    (tmp_path / "scratch2").mkdir()
    return planted(store, tmp_path / "scratch2", files, links)


@pytest.mark.req("H15")
@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_what_is_rebuilt_is_the_tree_byte_for_byte(tmp_path: Path, object_format: str) -> None:
    made = Made(tmp_path, object_format)
    outside = tmp_path / "outside"
    outside.write_text("mine")
    told = made.rebuild(4)
    assert told.checkpoint.tree == made.odd
    assert (told.checkpoint.seq, told.checkpoint.kind) == (3, "snapshot.taken")
    assert told.files == len(ODD) + len(LINKS)
    assert again(made.out, tmp_path, object_format) == made.odd
    for path, content in ODD.items():
        assert Path(os.fsdecode(os.path.join(os.fsencode(made.out), path))).read_bytes() == content
    assert os.readlink(os.path.join(os.fsencode(made.out), b"up")) == LINKS[b"up"]
    assert outside.read_text() == "mine"
    assert stat.S_IMODE(made.out.stat().st_mode) == 0o700
    assert {path.lstat().st_uid for path in made.out.rglob("*")} == {os.geteuid()}


@pytest.mark.parametrize(
    ("at", "seq", "name"),
    [(1, 1, "base"), (2, 1, "base"), (3, 3, "odd"), (6, 5, "odd"), (7, 7, "last"), (8, 8, "last"), (9, 9, "odd")],
)
def test_a_record_means_the_tree_that_was_stated_last(made: Made, at: int, seq: int, name: str) -> None:
    told = made.rebuild(at)
    assert told.checkpoint.seq == seq
    assert told.checkpoint.tree == getattr(made, name)
    assert told.checkpoint.complete is (seq != 8)


def test_what_a_record_says_is_no_path_into_git(made: Made) -> None:
    made.steps.append(("snapshot.taken", {"n": 3, "tree": "--upload-pack=/bin/true"}))
    with Journal.open(made.home.run(RUN) / "journal.jsonl") as journal:
        seq = journal.append(*made.steps[-1]).seq
    assert made.rebuild(seq).checkpoint.seq == 9, "what is no object id states no tree"


def test_a_directory_with_something_in_it_is_left_alone(made: Made, tmp_path: Path) -> None:
    made.out.mkdir()
    (made.out / "mine").write_text("mine")
    with pytest.raises(OperatorError, match="something already"):
        made.rebuild(4)
    assert [path.name for path in made.out.iterdir()] == ["mine"]
    (made.out / "mine").unlink()
    assert made.rebuild(4).files == len(ODD) + len(LINKS), "the control: an empty one will do"
    link = tmp_path / "link"
    (tmp_path / "elsewhere").mkdir()
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OperatorError, match="something already"):
        rebuild.rebuild(made.home, RUN, 4, link)
    with pytest.raises(OperatorError, match="cannot be made"):
        rebuild.rebuild(made.home, RUN, 4, tmp_path / "not" / "there")


@pytest.mark.parametrize("at", [0, 10, 99])
def test_a_record_that_is_not_there_or_states_nothing(made: Made, at: int) -> None:
    with pytest.raises(OperatorError) as told:
        made.rebuild(at)
    assert told.value.fix.startswith("inbounds logs")
    assert not made.out.exists()


def test_a_tree_that_was_discarded_is_refused_and_says_which_are_kept(made: Made) -> None:
    assert made.rebuild(7).files == 2, "the control: it was there"
    delete_tree(str(made.out))
    made.object(plumbing(made.store, "rev-parse", f"{made.last}:new/er")).unlink()
    with pytest.raises(RefusedError, match="no longer holds") as told:
        made.rebuild(7)
    assert told.value.fix == f"inbounds logs {RUN} --at 5"
    assert "5" in told.value.expected
    assert not made.out.exists()
    assert made.rebuild(5).checkpoint.tree == made.odd


@pytest.mark.req("H15")
def test_a_store_that_holds_something_else_under_that_id_is_found(made: Made) -> None:
    """An object written over by another's bytes: git reads it without a word."""
    one = plumbing(made.store, "rev-parse", f"{made.last}:last")
    other = plumbing(made.store, "rev-parse", f"{made.last}:new/er")
    made.object(one).chmod(0o600)
    made.object(one).write_bytes(made.object(other).read_bytes())
    with pytest.raises(HostError):
        made.rebuild(7)
    assert not made.out.exists(), "what is not the tree is not left there as if it were"


def test_the_files_on_disk_are_what_is_hashed(made: Made) -> None:
    made.rebuild(4)
    assert rebuild.tree_id(made.store, made.odd, made.out) == made.odd
    (made.out / "a" / "b").write_bytes(b"2")
    assert rebuild.tree_id(made.store, made.odd, made.out) != made.odd
    (made.out / "a" / "b").write_bytes(b"1")
    (made.out / "a" / "b").chmod(0o755)
    assert rebuild.tree_id(made.store, made.odd, made.out) != made.odd


def test_modes_that_very_old_trees_have(made: Made) -> None:
    blob = plumbing(made.store, "hash-object", "-w", "--stdin", stdin=b"old\n")
    content = b"100664 old\0" + bytes.fromhex(blob)
    tree = plumbing(made.store, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=content)
    with Journal.open(made.home.run(RUN) / "journal.jsonl") as journal:
        seq = journal.append("snapshot.taken", {"n": 3, "tree": tree}).seq
    assert made.rebuild(seq).files == 1


def test_nothing_is_rebuilt_from_a_journal_that_does_not_hold(made: Made) -> None:
    path = made.home.run(RUN) / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"n":2', b'"n":3', 1))
    with pytest.raises(RefusedError, match="does not hold"):
        made.rebuild(4)
    assert not made.out.exists()


def test_the_verb_says_what_it_made(made: Made, tmp_path: Path) -> None:
    env = {**os.environ, "INBOUNDS_HOME": str(made.home.path)}

    def logs(*args: str) -> "subprocess.CompletedProcess[str]":
        argv = [sys.executable, "-m", "inbounds", "logs", *args]
        return subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    done = logs(RUN, "--at", "8")
    assert done.returncode == 0, done.stderr
    assert f"tree   {made.last}, stated by record 8 (snapshot.taken)" in done.stdout
    assert "not complete: unreadable: 'x'" in done.stdout
    assert "untrusted" in done.stdout
    assert (tmp_path / f"{RUN}-at-8" / "last").read_bytes() == b"last\n"
    facts = json.loads(logs(RUN, "--at", "5", "--to", str(made.out), "--json").stdout)
    assert facts["tree"] == made.odd
    assert facts["record"] == {"seq": 5, "kind": "commit.made", "n": 1}
    assert facts["files"] == len(ODD) + len(LINKS)
    assert logs(RUN, "--at", "5", "--to", str(made.out)).returncode == 100
    assert logs(RUN, "--to", str(made.out)).returncode == 100
    assert logs(RUN, "--at", "5", "--follow").returncode == 100


TELLS = """
import json, os
token = os.environ["INBOUNDS_TOKEN"]
with open("told.txt", "w") as file:
    file.write(token)
print(json.dumps({"type": "result", "ok": True, "said": "my token is " + token}))
"""


@pytest.mark.req("H15")
def test_a_real_run_can_be_read_and_rebuilt_without_the_agents_word(rig: Rig, tmp_path: Path) -> None:
    """What was asked and executed stands in the journal by hash and command; the agent's token never does."""
    import hashlib

    program = tmp_path / "agent.py"
    program.write_text(TELLS)
    program.chmod(0o755)
    found = profile("reference").find(())
    assert found is not None
    install: Install = replace(found, path=str(program), sha256=npm.sha256(program))
    ran = rig.run(script({"text": "unused"}), install=install, limits=limits_of(iterations=1))
    [asked] = ran.data("iteration.started")
    prompt = (ran.run_dir / "logs" / asked["prompt_file"]).read_bytes()
    assert hashlib.sha256(prompt).hexdigest() == asked["prompt_sha256"]
    assert ran.contract.goal.encode() in prompt
    commands = [data["command"] for data in ran.data("jail.started") if data["role"] == "coder"]
    assert commands
    assert commands[0][-2].endswith("reference_agent.py")
    taken = [record for record in ran.records if record.kind == "snapshot.taken"][-1]
    out = tmp_path / "then"
    rebuild.rebuild(rig.home, ran.run_id, taken.seq, out)
    [told] = list(out.rglob("told.txt"))
    token = told.read_text()
    assert len(token) > 20, "the control: it had one, and wrote it down"
    journal = (ran.run_dir / "journal.jsonl").read_text()
    assert token not in journal
    assert [data["text"] for data in ran.data("agent.said")] == ["my token is [token]"]


def limits_of(**texts: Any) -> Any:
    from inbounds.contracts.documents import LimitsText

    return LimitsText(**texts)
