"""A session that leaves something on the machine fails and says what and whose test; a clean one passes.

Sessions of their own, in which the plugin is the only thing of ours; knows nothing of what the product makes.
"""

import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import leftovers
import pytest

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 120
START = """
import os, subprocess, sys, tempfile
def sleeper(**more):
    done = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)
    print("PID", done.pid, file=open(os.environ["NOTE"], "a"))
    return done
"""
ORPHAN = """
def orphan(**more):
    if os.fork() == 0:
        sleeper(start_new_session=True, **more)
        os._exit(0)
    os.wait()
"""


class Inner:
    """One session over one file of tests, as somebody who runs it would see it; what it made is taken away after."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.note = place / "note"
        (place / "tmp").mkdir()
        (place / "conftest.py").write_text(
            f"import sys\nsys.path.insert(0, {str(ROOT / 'tools')!r})\nimport leftovers\n"
            "def pytest_configure(config):\n    config.pluginmanager.register(leftovers.Leftovers(config))\n"
        )

    def run(self, body: str) -> tuple[int, str]:
        (self.place / "test_inner.py").write_text(f"{START}{ORPHAN}\n{textwrap.dedent(body)}")
        done = subprocess.run(
            [
                *f"{sys.executable} -m pytest -q -p no:cacheprovider -p no:randomly -c /dev/null test_inner.py --rootdir={self.place}".split(),
                f"--basetemp={self.place / 'base'}",
            ],
            cwd=self.place,
            env={**os.environ, "TMPDIR": str(self.place / "tmp"), "NOTE": str(self.note)},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def tidy(self) -> None:
        for line in self.note.read_text().splitlines() if self.note.exists() else ():
            what, _, value = line.partition(" ")
            if what == "PID" and os.path.exists(f"/proc/{value}"):
                os.kill(int(value), 9)
            if what == "SHM":
                subprocess.run(["ipcrm", "-m", value], check=False)


@pytest.fixture
def inner(tmp_path: Path) -> Iterator[Inner]:
    made = Inner(tmp_path)
    yield made
    made.tidy()


def left(out: str) -> list[str]:
    return re.findall(r"^LEFT (.*)$", out, re.MULTILINE)


def test_a_clean_session_passes(inner: Inner) -> None:
    """It makes a bit of everything, and takes it away."""
    code, out = inner.run("""
        def test_it(tmp_path):
            with tempfile.TemporaryDirectory(prefix="inbounds-test-"):
                one = sleeper(start_new_session=True)
                one.kill(), one.wait()
            (tmp_path / "inbounds-kept-by-pytest").mkdir()
    """)
    assert (code, left(out)) == (0, []), out


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (
            'def test_it(): tempfile.mkdtemp(prefix="inbounds-test-")',
            r"file .*/tmp/inbounds-test-\w+: made in test_inner",
        ),
        ("def test_it(): sleeper()", r"process \d+ .*: a descendant of this process"),
        ("def test_it(): orphan()", r"process \d+ .*: started by this session \(test_inner.py::test_it\)"),
        ("def test_it(tmp_path): orphan(cwd=tmp_path, env={})", r"process \d+ .*: works below /"),
        ("def test_it(tmp_path): orphan(cwd='/', env={})", ""),
    ],
)
def test_what_is_left_fails_the_session_and_is_named(inner: Inner, body: str, what: str) -> None:
    code, out = inner.run(body)
    if not what:  # nothing whatever tells: the one that cannot be caught, so that nobody thinks it is
        assert (code, left(out)) == (0, []), out
        return
    assert code == 1, out
    assert [bool(re.match(what, line)) for line in left(out)] == [True], out


def test_what_nobody_tells_the_maker_of_fails_only_where_nobody_else_was_at_work(inner: Inner) -> None:
    """This very session is somebody else at work beside the inner one: a warning, that names both."""
    code, out = inner.run("""
        import pathlib
        def test_it(): pathlib.Path(tempfile.gettempdir(), "inbounds-somebodys").mkdir()
    """)
    assert (code, left(out)) == (0, []), out
    assert re.search(r"^warning: file .*/inbounds-somebodys: .*may be somebody else's", out, re.MULTILINE), out
    assert "at work: process" in out


def test_alone_the_same_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = leftovers.Leftovers.__new__(leftovers.Leftovers)
    plugin.config = None  # type: ignore[assignment]  # has no directory of its own
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(leftovers, "GRACE_SECONDS", 0.0)
    plugin.session = leftovers.Session()
    monkeypatch.setattr(plugin.session, "_others", lambda: None)
    (tmp_path / "inbounds-x").mkdir()
    ended = type("Ended", (), {"exitstatus": pytest.ExitCode.OK})()
    plugin.pytest_sessionfinish(ended, pytest.ExitCode.OK)
    assert ended.exitstatus == pytest.ExitCode.TESTS_FAILED
    assert any(f"file {tmp_path}/inbounds-x" in what for what in plugin.left.unknown)
    (tmp_path / "inbounds-x").rmdir()
    ended.exitstatus = pytest.ExitCode.OK
    plugin.pytest_sessionfinish(ended, pytest.ExitCode.OK)
    assert not any(str(tmp_path) in what for what in plugin.left.unknown)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make groups, packet filters and mounts on this machine")
def test_what_root_can_leave_is_seen(tmp_path: Path) -> None:
    name = f"inbounds-test-left-{os.getpid()}"
    group = next((b for b in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup") if os.path.exists(f"{b}/cgroup.procs")), "")
    volume = tmp_path / name
    volume.mkdir()
    steps = [
        ("mount", ["mount", "-t", "tmpfs", name, str(volume)], ["umount", str(volume)]),
        ("nft table", ["nft", "add", "table", "inet", name], ["nft", "delete", "table", "inet", name]),
        ("cgroup", ["mkdir", f"{group}/{name}"], ["rmdir", f"{group}/{name}"]),
        ("file", ["mkdir", f"/dev/shm/{name}"], ["rmdir", f"/dev/shm/{name}"]),
        ("group", ["groupadd", "--system", name], ["groupdel", name]),
    ]
    session, seen = leftovers.Session(), {}
    for kind, make, undo in steps:
        if subprocess.run(make, capture_output=True, check=False).returncode == 0:
            try:
                found = (leftovers.things() | leftovers.tables()) - session.before
                seen[kind] = any(thing.kind == kind and name in thing.name for thing in found)
            finally:
                subprocess.run(undo, capture_output=True, check=True)
    assert {"mount", "file"} <= seen.keys(), "these can be made by any root"
    assert all(seen.values()), seen
    gone = (leftovers.things() | leftovers.tables()) - session.before
    assert not any(name in thing.name for thing in gone)


def test_a_system_v_segment_is_seen(inner: Inner) -> None:
    if not Path("/proc/sysvipc/shm").exists():
        pytest.skip("this kernel has no System V memory")
    code, out = inner.run("""
        import ctypes
        def test_it():
            number = ctypes.CDLL(None).shmget(0, 4096, 0o600)
            print("SHM", number, file=open(os.environ["NOTE"], "a"))
    """)
    assert code == 1, out
    assert re.match(r"System V shm \d+ of process \d+: made by this very process", left(out)[0]), out


def test_it_costs_next_to_nothing() -> None:
    """Under 0.3 s in a session of 150 files on a quiet machine; here, with others at work, five times that."""
    session = leftovers.Session()
    for number in range(150):
        session.look(f"file {number}")
    assert session.spent < 1.5, session.spent
