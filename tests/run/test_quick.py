"""`inbounds shell … -- COMMAND` over a visit that was kept: the same jail as the long way's, and none of a former state."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from runrig import Rig

from inbounds.run import kept, quick
from inbounds.sandbox.hardened import PLACE
from inbounds.sandbox.host import bubblewrap, jail_python

SECONDS = 120
QUICK = "import sys; from inbounds.run import quick; code = quick.visit(sys.argv[1:]); sys.exit(77 if code is None else code)"
LONG = "from inbounds.cli.main import main; main()"
NOT_KEPT = 77  # said by QUICK where the long way is to be gone

Ended = subprocess.CompletedProcess[str]


def python(code: str, rig: Rig, *words: str, thread: Path | None = None) -> Ended:
    env = {**os.environ, "INBOUNDS_HOME": str(rig.home.path)}
    return subprocess.run(
        [sys.executable, "-c", code, *words], cwd=thread or rig.stage.thread, env=env, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip


def fast(rig: Rig, *argv: str, role: str = "coder") -> Ended:
    return python(QUICK, rig, str(rig.stage.thread), "--role", role, "--", *argv)


def long(rig: Rig, *argv: str, role: str = "coder") -> Ended:
    return python(LONG, rig, "shell", str(rig.stage.thread), "--role", role, "--", *argv)


def entries(rig: Rig) -> list[Path]:
    visits = rig.home.path / quick.VISITS
    about = rig.stage.thread.stat()
    mine = f"-{about.st_dev:x}-{about.st_ino:x}"
    return [path for path in visits.iterdir() if path.name.endswith(mine)] if visits.exists() else []


def scratches(rig: Rig) -> list[str]:
    return [name for name in os.listdir(rig.home.path) if "shell" in name]


def git(rig: Rig, *words: str) -> None:
    env = {"HOME": str(rig.home.path), "PATH": os.environ["PATH"]}
    who = ["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "safe.directory=*"]
    subprocess.run(["git", *who, *words], cwd=rig.stage.repository, env=env, check=True, capture_output=True)


@pytest.fixture
def visited(rig: Rig) -> Rig:
    """A thread that was visited before: the visit is kept, and the next one is quick."""
    before = fast(rig, "true")
    assert before.returncode == NOT_KEPT, before
    ended = long(rig, "true")
    assert ended.returncode == 0, ended.stderr
    assert len(entries(rig)) == 1
    ended = fast(rig, "true")  # the control of all that say: not with this change
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert scratches(rig) == []
    return rig


SEE = """
import os, subprocess, sys
print(os.getuid(), os.getcwd(), sorted(os.environ.items()), sorted(os.listdir('/proc/self/fd')))
wanted = ('NoNewPrivs', 'Seccomp', 'Cap', 'Groups', 'Uid', 'Gid')
print([line.split() for line in open('/proc/self/status') if line.startswith(wanted)])
mounts = [(w[4], w[5], w[w.index('-') + 1]) for w in map(str.split, open('/proc/self/mountinfo'))]
for mount in sorted(mounts):
    if not mount[0].startswith('/usr/'):  # what the host mounts below /usr comes and goes
        print(mount)
for kind in range(16):
    import resource
    print(kind, resource.getrlimit(kind))
for top, names, files in os.walk('/work'):
    if '/objects' in top: continue
    for name in sorted([*names, *files]):
        about = os.lstat(os.path.join(top, name))
        print(top, name, oct(about.st_mode), about.st_uid, about.st_size if name in files else '')
for words in (['status'], ['diff-files'], ['log', '--format=%H %an %s'], ['config', '-l', '--local'], ['fsck']):
    done = subprocess.run(['git', *words], capture_output=True, text=True)
    print(words, done.returncode, done.stdout, done.stderr)
def tried(path):
    try:
        with open(path, 'a'): return 'written'
    except OSError as error: return error.strerror
for path in ('/work/billing/invoice.py', '/work/billing/.inbounds/config.yaml', '/work/.git/config', '/etc/passwd', '/usr/x'):
    print(path, tried(path))
try: import socket; socket.create_connection(('127.0.0.1', 9), 1)
except OSError as error: print(error)
try: os.kill(1, 9); print(open('/proc/1/environ').read())
except OSError as error: print(error)
"""


@pytest.mark.req("C1")
@pytest.mark.parametrize("role", ["coder", "tester"])
def test_the_jail_is_the_long_ways_in_everything_that_can_be_seen_inside(rig: Rig, role: str) -> None:
    time.sleep(0.2)  # what is as young as the visit itself is not kept
    slow = long(rig, "python3", "-c", SEE, role=role)
    assert slow.returncode == 0, slow.stderr
    assert "'NoNewPrivs:', '1'" in slow.stdout
    quicker = fast(rig, "python3", "-c", SEE, role=role)
    assert quicker.returncode == 0, quicker.stderr
    assert quicker.stdout.splitlines() == slow.stdout.splitlines()
    assert "['diff-files'] 0  \n" in quicker.stdout  # git's index is true for the files that were copied


@pytest.mark.req("C1")
def test_what_a_command_writes_is_gone_with_it_and_reaches_nothing_that_is_kept(visited: Rig) -> None:
    [entry] = entries(visited)
    before = {path: path.read_bytes() for path in (entry / quick.TREE).rglob("*") if path.is_file()}
    spoil = "echo spoilt >> invoice.py; touch new; rm -rf .git tests; mkdir -p a/b; chmod 0 a/b a; echo x > $HOME/y"
    assert fast(visited, "sh", "-c", spoil).returncode == 0
    assert scratches(visited) == []
    seen = fast(visited, "sh", "-c", "git status --porcelain && ls && ls -A $HOME")
    assert (seen.returncode, seen.stderr) == (0, "")
    assert "new" not in seen.stdout.split()
    assert "y" not in seen.stdout.split()
    assert {path: path.read_bytes() for path in (entry / quick.TREE).rglob("*") if path.is_file()} == before


def commit(rig: Rig) -> None:
    (rig.stage.thread / "invoice.py").write_text("other = 1\n")
    git(rig, "commit", "-qam", "other")


def branch(rig: Rig) -> None:
    git(rig, "checkout", "-q", "-b", "other")
    git(rig, "commit", "-q", "--allow-empty", "-m", "other")


def append(name: str, text: str = "\n# changed\n") -> Callable[[Rig], None]:
    def change(rig: Rig) -> None:
        with (rig.stage.repository / name).open("a") as file:
            file.write(text)

    return change


def touch_layer(rig: Rig) -> None:
    for path in (rig.home.path / "layers").glob("*/layer.json"):
        os.utime(path)


def link_contracts(rig: Rig) -> None:
    directory = rig.stage.thread / ".inbounds"
    directory.rename(directory.with_name("elsewhere"))
    directory.symlink_to("elsewhere")


CHANGES: dict[str, Callable[[Rig], None]] = {
    "a commit": commit,
    "another branch": branch,
    "policy": append(".inbounds/policy.yaml"),
    "policy asks for more": append(".inbounds/policy.yaml", "\nenforcement: {mode: hardened}\n"),
    "the thread's config": append("billing/.inbounds/config.yaml"),
    "the thread's requirements": append("billing/.inbounds/requirements.yaml"),
    "the layer": touch_layer,
    "contracts behind a link": link_contracts,
    "a host service": lambda rig: Path(os.environ[PLACE]).touch(),
}


@pytest.mark.req("C1", "F10")
@pytest.mark.parametrize("what", CHANGES)
def test_what_has_changed_is_never_answered_from_what_was_kept(visited: Rig, what: str) -> None:
    try:
        CHANGES[what](visited)
        assert fast(visited, "true").returncode == NOT_KEPT
    finally:
        Path(os.environ[PLACE]).unlink(missing_ok=True)


def test_a_commit_that_is_gone_back_to_is_quick_again_wherever_git_keeps_its_ref(visited: Rig) -> None:
    commit(visited)
    assert fast(visited, "true").returncode == NOT_KEPT
    assert "other" in long(visited, "cat", "invoice.py").stdout
    assert fast(visited, "cat", "invoice.py").stdout == "other = 1\n"
    git(visited, "pack-refs", "--all")
    assert fast(visited, "cat", "invoice.py").stdout == "other = 1\n"
    git(visited, "checkout", "-q", "--detach", "HEAD~1")
    ended = fast(visited, "cat", "invoice.py")
    assert ended.returncode == 0
    assert "other" not in ended.stdout


OTHER_SYSTEM = "type('U', (), dict.fromkeys(('sysname', 'release', 'version', 'machine'), 'x'))"
FACTS = [
    "quick.__version__ = 'other'",
    "sys.version += 'x'",
    f"os.uname = lambda: {OTHER_SYSTEM}",
    "os.environ['INBOUNDS_HOST_SOCKET'] += 'x'",
]


@pytest.mark.parametrize("change", FACTS)
def test_another_product_interpreter_kernel_or_service_makes_its_own(visited: Rig, change: str) -> None:
    code = QUICK.replace("; code", f"; import os; {change}; code")
    ended = python(code, visited, ".", "--", "true")
    assert ended.returncode == NOT_KEPT, ended


def test_every_program_that_shapes_the_jail_is_looked_at_each_time(visited: Rig) -> None:
    [entry] = entries(visited)
    code = "import marshal, sys, json; print(json.dumps(sorted(marshal.loads(open(sys.argv[1], 'rb').read()[4:])['watched'])))"
    ended = subprocess.run([sys.executable, "-c", code, str(entry / quick.META)], capture_output=True, check=True)
    watched = set(json.loads(ended.stdout))
    package = Path(quick.__file__).parents[1]
    modules = {str(path) for name in ("sandbox", "store", "contracts") for path in (package / name).glob("*.py")}
    assert modules >= {str(package / "sandbox/pid1.py"), str(package / "sandbox/layout.py")}
    assert watched >= modules
    assert {bubblewrap().path, jail_python(), "/etc/ssl/certs", "/lib", os.environ[PLACE]} <= watched


def test_a_watched_file_counts_by_everything_that_a_writer_leaves(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one")
    was = quick.state(str(path))
    about = path.stat()
    assert quick.state(str(path)) == was  # the control
    time.sleep(0.05)
    path.write_text("two")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))  # the writer puts the time back
    assert quick.state(str(path)) != was
    path.unlink()
    assert quick.state(str(path)) is None
    path.symlink_to("elsewhere")
    assert quick.state(str(path)) not in (None, was)


def loose(path: Path) -> None:
    path.chmod(0o755 if path.is_dir() else 0o644)


def linked(path: Path) -> None:
    moved = path.rename(path.with_name(f"{path.name}-moved"))
    path.symlink_to(moved)


def spoil(entry: Path) -> None:
    (entry / quick.TREE / "rw/billing/invoice.py").write_text("spoilt")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


ODD: dict[str, Callable[[Path], None]] = {
    "others may enter": loose,
    "others may read": lambda entry: loose(entry / quick.META),
    "a link": linked,
    "a linked file": lambda entry: linked(entry / quick.META),
    "cut": lambda entry: cut(entry / quick.META),
    "a bit that flipped": lambda entry: flip(entry / quick.META),
    "empty": lambda entry: os.truncate(entry / quick.META, 0),
    "a file that was written to": spoil,
    "a file that is gone": lambda entry: (entry / quick.TREE / "rw/billing/invoice.py").unlink(),
    "contracts that were written to": lambda entry: (entry / quick.TREE / "ro/billing/.inbounds/config.yaml").touch(),
}


@pytest.mark.parametrize("what", ODD)
def test_what_is_kept_counts_only_as_it_was_written_and_for_this_user_alone(visited: Rig, what: str) -> None:
    [entry] = entries(visited)
    ODD[what](entry)
    assert fast(visited, "true").returncode == NOT_KEPT
    assert scratches(visited) == []
    ended = long(visited, "cat", "invoice.py")
    assert ended.returncode == 0, ended.stderr
    assert "spoilt" not in ended.stdout


def test_exit_codes_signals_and_both_streams_are_passed_on(visited: Rig) -> None:
    ended = fast(visited, "sh", "-c", "echo out; echo err >&2; exit 9")
    assert (ended.returncode, ended.stdout, ended.stderr) == (9, "out\n", "err\n")
    assert fast(visited, "sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM
    many = fast(visited, "sh", "-c", "yes 0123456789abcde | head -n 300000")
    assert many.stdout == "0123456789abcde\n" * 300_000
    lacking = fast(visited, "no-such-program")
    assert lacking.returncode == long(visited, "no-such-program").returncode
    assert "no-such-program" in lacking.stderr


def test_a_reader_that_goes_away_ends_the_jail(visited: Rig) -> None:
    words = [sys.executable, "-c", QUICK, ".", "--", "yes"]
    with subprocess.Popen(words, cwd=visited.stage.thread, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(4) == b"y\ny\n"
        process.stdout.close()
        assert process.wait(SECONDS) == 1
    assert scratches(visited) == []


def _of(text: str) -> list[str]:
    """Processes of this host with these words on their command line."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{name}/cmdline").read_bytes()
        except OSError:
            continue
        if text.encode() in line.split(b"\0"):
            found.append(name)
    return found


@pytest.mark.req("E10")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nothing_of_the_jail_survives_who_started_it(visited: Rig, how: signal.Signals) -> None:
    mark = f"{os.getpid()}{how:d}.5"
    words = [sys.executable, "-c", QUICK, ".", "--", "sh", "-c", f"sleep {mark} & setsid sleep {mark} & echo up; wait"]
    with subprocess.Popen(words, cwd=visited.stage.thread, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        until = time.monotonic() + SECONDS
        while len(_of(mark)) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        assert len(_of(mark)) == 2  # the control
        process.send_signal(how)
        code = process.wait(SECONDS)
    assert code == (quick.INTERRUPTED if how == signal.SIGINT else -signal.SIGKILL)
    until = time.monotonic() + SECONDS
    while _of(mark) and time.monotonic() < until:
        time.sleep(0.02)
    assert _of(mark) == []
    if how == signal.SIGKILL:
        assert len(scratches(visited)) == 1
        assert long(visited, "true").returncode == 0  # it clears away what nobody holds
    assert scratches(visited) == []


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for number in range(kept.KEPT_MAX + 3):
        entry = tmp_path / f"entry-{number:02}"
        entry.mkdir()
        (entry / quick.META).touch()
        os.utime(entry / quick.META, (number, number))
    (tmp_path / f"{kept.NEW}now").mkdir()
    (tmp_path / f"{kept.OLD}before").mkdir()
    os.utime(tmp_path / f"{kept.OLD}before", (0, 0))
    kept.evict(tmp_path)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [f"{kept.NEW}now", *(f"entry-{number:02}" for number in range(3, kept.KEPT_MAX + 3))]


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        (". -- true", (".", "coder", ["true"])),
        ("-- ls -la", (".", "coder", ["ls", "-la"])),
        ("a --role tester -- ls -- x", ("a", "tester", ["ls", "--", "x"])),
        ("--role coder -- ls", (".", "coder", ["ls"])),
    ],
)
def test_a_line_in_the_usual_form(line: str, asked: tuple[str, str, list[str]]) -> None:
    assert quick.parse(line.split()) == asked


@pytest.mark.parametrize("line", ["", ".", ". --", "--help", ". ls", "--role other -- ls", "a b -- ls", "--role -- ls"])
def test_any_other_line_is_for_the_real_parser(line: str) -> None:
    with pytest.raises((quick.OddError, ValueError)):
        quick.parse(line.split())
