"""The drill itself: it sees an escape where one is, believes no case without its control, and leaves nothing behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from drillrig import WRITE, Weakened, nothing_required, outside_shown, run, write_case

from inbounds.contracts.errors import HostError, OperatorError
from inbounds.drill import arena as arenas
from inbounds.drill.case import CLASSES, Case, built_in, load
from inbounds.drill.control import control
from inbounds.drill.ground import Ground
from inbounds.drill.mode import choose
from inbounds.drill.runner import Drill
from inbounds.sandbox import layout

CASES = Path(arenas.__file__).parent / "cases"
SECONDS = 60


def own(klass: str, name: str) -> Case:
    return load(CASES / f"{klass}_{name}.py")


# -- an escape is seen


@pytest.mark.req("M9", "M12")
@pytest.mark.parametrize("name", ["absolute_path", "dotdot", "delete_everything", "attributes"])
def test_a_hole_in_the_jail_is_an_escape(name: str) -> None:
    case = own("workspace", name)
    assert run(case).outcome != "ESCAPED"
    holed = run(case, Weakened(outside_shown, choose("rootless", "test")))
    assert (holed.outcome, holed.control) == ("ESCAPED", "proven")


@pytest.mark.req("M9")
def test_a_jail_on_the_hosts_network_is_an_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    case = own("network", "udp")
    assert run(case).outcome == "BLOCKED"
    real = layout._arguments

    def arguments(*args: Any) -> list[str]:
        return [word for word in real(*args) if word != "--unshare-net"]

    monkeypatch.setattr(layout, "_arguments", arguments)
    assert run(case, Weakened(nothing_required, choose("rootless", "test"))).outcome == "ESCAPED"


@pytest.mark.req("M9")
def test_what_the_judges_do_not_see_is_handed_back_and_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    from inbounds.drill import judged

    case = own("planted", "setup_py")
    assert run(case).outcome == "DETECTED"
    monkeypatch.setattr(judged, "findings", lambda *_: [])
    assert run(case).outcome == "ESCAPED"


def test_the_secret_is_known_wherever_it_shows(tmp_path: Path) -> None:
    observe = 'def observe(b, a):\n    return "ESCAPED" if a["leaked"] else "BLOCKED"\n'
    source = 'say(read=outcome(lambda: sys.stderr.write(open(HOST["secret_path"]).read())))'
    case = load(write_case(tmp_path, source, observe=observe, NEEDS=("secret",)))
    assert run(case).outcome == "BLOCKED"

    def shown(spec: Any, scratch: Path) -> Any:
        from dataclasses import replace

        from inbounds.sandbox.spec import Bind

        home = str(scratch.parent / "home")
        return replace(spec, binds=(*spec.binds, Bind(home, home)))

    assert run(case, Weakened(shown, choose("rootless", "test"))).outcome == "ESCAPED"


# -- nothing is believed without its control, or without having been tried


@pytest.mark.req("M9")
@pytest.mark.parametrize(
    ("control_source", "why"),
    [("say(nothing=True)", "BLOCKED"), ("raise RuntimeError('no')", "RuntimeError: no"), ("pass", "said nothing")],
)
def test_an_attack_that_does_not_work_outside_does_not_count(tmp_path: Path, control_source: str, why: str) -> None:
    result = run(write_case(tmp_path, control_source, WRITE))
    assert (result.outcome, result.control, result.counted) == ("NO CONTROL", "NO CONTROL", False)
    assert why in result.observed


@pytest.mark.parametrize(
    ("attack", "why"),
    [
        ("pass", "said nothing"),
        ("say(begun=True)\nundefined_name", "NameError"),
        ("os.kill(os.getpid(), 9)", "said nothing"),
        ("os.close(1); say(x=1)", "Bad file descriptor"),
    ],
)
def test_an_attack_that_was_not_seen_to_be_tried_is_inconclusive(tmp_path: Path, attack: str, why: str) -> None:
    result = run(write_case(tmp_path, WRITE, attack))
    assert (result.outcome, result.control, result.counted) == ("INCONCLUSIVE", "proven", False)
    assert why in result.observed
    assert run(write_case(tmp_path, WRITE)).outcome == "BLOCKED"  # the untouched case is seen


def test_an_observe_that_fails_is_no_pass(tmp_path: Path) -> None:
    observe = 'def observe(b, a):\n    return ("ESCAPED" if a["outside"] != b["outside"] else "FINE"), ""\n'
    result = run(write_case(tmp_path, WRITE, observe=observe))
    assert result.outcome == "INCONCLUSIVE"
    assert "FINE" in result.observed


def test_a_case_that_never_ends_is_ended(tmp_path: Path) -> None:
    attack = f"{WRITE}\ntime.sleep(1000)"
    began = time.monotonic()
    result = run(write_case(tmp_path, WRITE, attack, DEADLINE_S=2))
    assert result.outcome == "BLOCKED"
    assert time.monotonic() - began < SECONDS


def test_a_control_that_never_ends_is_ended_and_is_none(tmp_path: Path) -> None:
    result = run(write_case(tmp_path, "time.sleep(1000)", WRITE, DEADLINE_S=1))
    assert result.outcome == "NO CONTROL"


# -- what a case is given


def test_before_and_after_say_what_the_format_promises(tmp_path: Path) -> None:
    source = """
        subprocess.Popen(["/bin/sh", "-c", "sleep 600 & sleep 600"], start_new_session=True)
        open(WORK + "/made", "w").write("x")
        with socket.create_connection(("127.0.0.1", HOST["port"])) as s:
            s.sendall(b"abc")
            answer = s.recv(100)
        for name in ("socket", "abstract"):
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(HOST[name])
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.sendto(b"abc", HOST["datagram"])
        environment = open(f"/proc/{HOST['victim']}/environ").read()
        say(answer=answer.decode(), environment="INBOUNDS_DRILL_SECRET" in environment, limits=HOST["limits"])
        print("plain", flush=True)
        sys.exit(3)
    """
    needs = ("listener", "socket", "abstract", "secret", "victim")
    case = load(write_case(tmp_path, source, NEEDS=needs, LIMITS={"processes": 77}))
    with Drill(Ground(), choose("rootless", "test")) as drill:
        with drill._arena(case) as arena:
            before, after = control(case, arena, drill.field)
            assert all(f"/{name}" in arena.host[name] for name in ("outside", "home"))
            port = arena.host["port"]
        assert not arena.directory.exists()
    assert after["said"]["limits"]["processes"] == 77
    assert after["said"]["environment"] is True
    assert after["received"] - before["received"] == 1 + 3 + 1 + 1 + 3  # TCP and bytes, two connections, a datagram
    assert after["leaked"], "the listener's answer holds the secret"
    assert after["alive"] >= 2
    assert after["exit"] == {"reason": "exited", "code": 3, "signal": 0}
    assert set(after["work"]) - set(before["work"]) == {"made"}
    assert "plain" in after["stdout"]
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=5):
        pass


def test_listing_sees_content_mode_and_links(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    (tmp_path / "d").mkdir()
    os.symlink("a", tmp_path / "l")
    seen = [arenas.listing(tmp_path)]
    (tmp_path / "a").write_text("2")
    seen.append(arenas.listing(tmp_path))
    (tmp_path / "a").chmod(0o600)
    seen.append(arenas.listing(tmp_path))
    os.unlink(tmp_path / "l")
    os.symlink("d", tmp_path / "l")
    seen.append(arenas.listing(tmp_path))
    os.mkfifo(tmp_path / "d" / "p")
    seen.append(arenas.listing(tmp_path))
    assert len({str(one) for one in seen}) == len(seen)
    assert arenas.listing(tmp_path) == seen[-1]


# -- the cases themselves


def test_every_case_of_the_product_is_one() -> None:
    cases = built_in()
    assert len({case.id for case in cases}) == len(cases)
    for case in cases:
        assert case.path.stem.startswith(f"{case.class_}_"), case.path
        assert re.fullmatch(r"[a-z]+\.[a-z0-9-]+", case.id), case.id
        assert len(case.title) > 20, case.id
    assert {case.class_ for case in cases} == set(CLASSES)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("CONTROL = 'x'\n", "ATTACK is missing"),
        ("CONTROL = ATTACK = 'pass'\n", "observe is missing"),
        ("CONTROL = ATTACK = 'a b'\ndef observe(b, a): pass\n", "no Python"),
        ("CONTROL = ATTACK = 5\ndef observe(b, a): pass\n", "no source"),
        ("this is no python", "no Python"),
        ("raise ValueError('x')", "raised ValueError: x"),
        ("CONTROL = ATTACK = 'pass'\nNEEDS = ('moon',)\ndef observe(b, a): pass\n", "NEEDS"),
        ("CONTROL = ATTACK = 'pass'\nLIMITS = {'moons': 1}\ndef observe(b, a): pass\n", "LIMITS"),
        ("CONTROL = ATTACK = 'pass'\nDEADLINE_S = 10**9\ndef observe(b, a): pass\n", "DEADLINE_S"),
    ],
)
def test_a_file_that_is_no_case_is_the_operators_to_mend(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(OperatorError, match=re.escape(why)) as raised:
        load(path, external=True)
    assert str(path) in raised.value.where


def test_a_mode_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INBOUNDS_HOST_SOCKET", str(tmp_path / "none.sock"))
    with pytest.raises(HostError) as raised:
        choose("hardened", "test")
    assert raised.value.fix


# -- nothing is left, however it ends

MARK = "86399.{:06d}"
LONG = """
subprocess.Popen(["/bin/sh", "-c", "sleep {mark} & sleep {mark}"], start_new_session=True)
say(ready=True)
time.sleep(60)
"""


def processes(mark: str) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                line = Path(f"/proc/{name}/cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in line:
                found.append(int(name))
    return found


def until(condition: Any, seconds: float = SECONDS) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("half", ["control", "attack"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_drill_that_is_ended_leaves_nothing(tmp_path: Path, place: Path, half: str, number: signal.Signals) -> None:
    mark = MARK.format(os.getpid() % 1_000_000)
    long = LONG.replace("{mark}", mark)
    sources = (long, WRITE) if half == "control" else (WRITE, long)
    case = write_case(tmp_path, *sources, NEEDS=("listener", "victim"), DEADLINE_S=100)
    drill = subprocess.Popen(
        [sys.executable, "-m", "inbounds.drill", str(case)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(place)},
        start_new_session=True,
    )
    try:
        assert until(lambda: len(processes(mark)) >= 3), "the case did not begin"
        assert list(place.iterdir())
        drill.send_signal(number)
        assert drill.wait(SECONDS) != 0
        assert until(lambda: not processes(mark)), f"left: {processes(mark)}"
        assert until(lambda: not list(place.iterdir())), f"left: {list(place.rglob('*'))[:20]}"
        # the sweeper, the victim, the warden: each names the scratch directory or is of the drill's session
        assert until(lambda: not processes(str(place))), processes(str(place))
    finally:
        drill.kill()
        drill.wait()
        for pid in processes(mark):
            os.kill(pid, signal.SIGKILL)


def test_a_place_too_long_for_sockets_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(HostError) as raised, Drill(Ground(), choose("rootless", "test")):
        pass
    assert raised.value.fix == "export TMPDIR=/tmp"
    assert not list(deep.iterdir())
