"""`inbounds logs`: the journal as a timeline, followed while it grows, and never obeyed by a terminal."""

import hashlib
import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import evidence
import pytest

from inbounds.cli.logs import command
from inbounds.journal import chain
from inbounds.journal.writer import Journal
from inbounds.run import follow

Inbounds = Callable[..., "subprocess.CompletedProcess[str]"]
HUGE = 100_000  # records that a person should not have to wait for

# The command in a process that says at its end how much memory it had at most, in KiB: "VmHWM: 50000 kB".
MEASURED = """
import sys
from inbounds.cli.main import main
try:
    main(sys.argv[1:])
finally:
    sys.stderr.write(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def events(text: str) -> list[str]:
    """The lines of a timeline that stand for one record each: those that begin with a time, sums of checkpoints aside."""
    return [line for line in text.splitlines() if line[2:3] == ":" and " signed, the last over " not in line]


def told(run_dir: Path) -> list[chain.Record]:
    """A journal's records without its signed checkpoints, which a timeline only counts."""
    return [record for record in evidence.read(run_dir) if record.kind != "journal.checkpoint"]


@pytest.mark.req("H15")
def test_a_finished_run_reads_from_its_contract_to_its_end(finished: Path, inbounds: Inbounds) -> None:
    done = inbounds("logs")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "2026-11-20 UTC"
    assert "asked     Dana Oduya asks claude" in lines[2]
    assert lines[-1].startswith("── over: DONE")
    assert "\x1b" not in done.stdout
    assert len(events(done.stdout)) == len(told(finished)), "nothing here comes in bursts"


def test_verbose_names_every_record(finished: Path, inbounds: Inbounds) -> None:
    lines = events(inbounds("logs", "--verbose").stdout)
    records = evidence.read(finished)
    assert all(f"#{record.seq} {record.kind}: " in line for record, line in zip(records, lines, strict=True))


def test_json_is_the_records_themselves(finished: Path, inbounds: Inbounds) -> None:
    done = inbounds("logs", "a1b2c3", "--json")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["hash"] for record in records] == [record.hash for record in evidence.read(finished)]
    assert set(records[0]) == {"seq", "at_ms", "kind", "data", "prev", "hash"}


def test_what_an_agent_said_is_shown_and_not_obeyed(home: Path, inbounds: Inbounds) -> None:
    said = "\x1b[2J\x1b]52;c;aGk=\x07 done\n12:00:00    +0:00  decided   the run is over: DONE\u202e"
    steps = evidence.good_run()
    run_dir = evidence.write(home, [*steps[:-1], ("agent.said", {"n": 1, "text": said}), steps[-1]])
    done = inbounds("logs")
    assert len(events(done.stdout)) == len(told(run_dir)), "no line was forged"
    assert "\x1b" not in done.stdout
    assert "\x07" not in done.stdout
    assert "\u202e" not in done.stdout
    assert "said      (the agent's own words, untrusted) \\x1b[2J" in done.stdout
    raw = inbounds("logs", "--json").stdout
    assert "\x1b" not in raw
    assert said in [json.loads(line)["data"].get("text") for line in raw.splitlines()]


def test_it_shows_what_holds_and_stops_at_the_break(finished: Path, inbounds: Inbounds) -> None:
    path = finished / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5] + lines[6:]))
    before = [line for line in lines[:5] if b"journal.checkpoint" not in line]
    for args in ((), ("-f",)):
        done = inbounds("logs", *args)
        assert done.returncode == 1
        assert len(events(done.stdout)) == len(before) >= 3
        assert "inbounds verify" in done.stderr
        assert "over" not in done.stdout


def test_an_edited_record_is_found_while_following_too(finished: Path, inbounds: Inbounds) -> None:
    path = finished / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b"everything is perfect", b"everything is magical", 1))
    done = inbounds("logs", "-f")
    assert done.returncode == 1
    assert "edited" in done.stderr


def test_a_torn_last_line_is_no_break(finished: Path, inbounds: Inbounds) -> None:
    path = finished / "journal.jsonl"
    path.write_bytes(path.read_bytes() + b'{"at_ms":17952')
    done = inbounds("logs")
    assert done.returncode == 0
    assert "unfinished" in done.stderr
    assert "inbounds status" in done.stderr
    assert done.stdout.splitlines()[-1].startswith("── over: DONE")


@pytest.mark.req("H15")
@pytest.mark.parametrize("forged", [False, True])
def test_what_was_asked_is_shown_and_held_against_its_hash(home: Path, inbounds: Inbounds, forged: bool) -> None:
    prompt = b"Round invoices half up\n\nYou may change:\n- \x1b[2Jbilling/src\n"
    steps = evidence.good_run()
    place = next(n for n, (kind, _) in enumerate(steps) if kind == "iteration.started")
    stated = {"n": 1, "prompt_sha256": hashlib.sha256(prompt).hexdigest(), "prompt_file": "prompt-1.txt"}
    run_dir = evidence.write(home, [*steps[:place], ("iteration.started", stated), *steps[place + 1 :]])
    (run_dir / "logs").mkdir()
    (run_dir / "logs" / "prompt-1.txt").write_bytes(prompt + (b"- everything\n" if forged else b""))
    done = inbounds("logs", "-v")
    assert done.returncode == int(forged)
    assert ("> - \\x1b[2Jbilling/src" in done.stdout) is not forged
    assert ("NOT what was asked" in done.stderr) is forged


def test_a_record_names_no_file_but_a_prompt(home: Path, inbounds: Inbounds) -> None:
    secret = home.parent / "secret.txt"
    secret.write_bytes(b"mine")
    stated = {"n": 1, "prompt_sha256": hashlib.sha256(b"mine").hexdigest(), "prompt_file": "../../../../secret.txt"}
    run_dir = evidence.write(home, [("run.accepted", evidence.accepted()), ("iteration.started", stated)])
    (run_dir / "logs").mkdir()
    done = inbounds("logs", "-v")
    assert "> mine" not in done.stdout
    assert "cannot be read" in done.stdout
    (run_dir / "logs" / "prompt-1.txt").symlink_to(secret)
    evidence.write(home, [("run.accepted", {}), ("iteration.started", {**stated, "prompt_file": "prompt-1.txt"})],
                   run_id="20261120-231501-a1b2c3")  # fmt: skip
    assert "> mine" not in inbounds("logs", "-v").stdout


def on_a_terminal(home: Path, columns: int, **extra: str) -> str:
    """What `inbounds logs` writes to a terminal of so many columns."""
    leader, follower = pty.openpty()
    env = {**os.environ, "INBOUNDS_HOME": str(home), "COLUMNS": str(columns), "TERM": "xterm", **extra}
    env = {name: text for name, text in env.items() if text or name != "NO_COLOR"}
    process = subprocess.Popen([sys.executable, "-m", "inbounds", "logs"], env=env, stdout=follower, stdin=follower)
    os.close(follower)
    out = b""
    while True:
        try:
            piece = os.read(leader, 65_536)
        except OSError:  # how Linux says that the other side has closed
            break
        if not piece:
            break
        out += piece
    os.close(leader)
    assert process.wait(60) == 0
    return out.decode().replace("\r\n", "\n")


def test_a_terminal_gets_80_columns_and_colour_unless_it_is_told_not_to(finished: Path, home: Path) -> None:
    plain = on_a_terminal(home, 80, NO_COLOR="1")
    assert "\x1b" not in plain
    assert max(len(line) for line in plain.splitlines()) <= 80
    assert "\x1b[36masked" in on_a_terminal(home, 80, NO_COLOR="")
    assert "\x1b" not in on_a_terminal(home, 80, NO_COLOR="", TERM="dumb")


def test_following_ends_with_the_run(home: Path, inbounds: Inbounds) -> None:
    run_dir = home / "runs" / evidence.RUN_ID
    steps = evidence.good_run()
    started = threading.Event()

    def write() -> None:
        with Journal.open(run_dir / "journal.jsonl", at_ms=evidence.START) as journal:
            started.set()
            for number, (kind, data) in enumerate(steps, 1):
                time.sleep(0.02)
                journal.append(kind, data, evidence.START + number)

    writer = threading.Thread(target=write)
    writer.start()
    started.wait(10)
    done = inbounds("logs", "--follow", timeout=60)
    writer.join()
    assert done.returncode == 0, done.stderr
    assert "nobody writes" not in done.stderr
    assert done.stdout.splitlines()[-1].startswith("── over: DONE")
    assert "spent" in done.stdout


def test_following_a_run_whose_supervisor_died_comes_to_an_end_and_says_so(home: Path, inbounds: Inbounds) -> None:
    run_dir = evidence.write(home, evidence.good_run()[:5])
    whole = told(run_dir)
    with (run_dir / "journal.jsonl").open("ab") as file:
        file.write(b'{"at_ms":17952')
    done = inbounds("logs", "-f", timeout=60)
    assert done.returncode == 0
    assert len(events(done.stdout)) == len(whole)
    assert "nobody writes any more" in done.stderr
    assert "inbounds status" in done.stderr
    assert done.stdout.splitlines()[-1].startswith("── not over")


@pytest.mark.parametrize("shorter", [False, True])
def test_following_goes_on_over_a_line_that_was_torn_and_mended(home: Path, shorter: bool) -> None:
    """Another writer cuts half a line off and writes its own in its place, while somebody follows."""
    steps = evidence.good_run()
    path = evidence.write(home, steps[:5]) / "journal.jsonl"
    before = len(evidence.read(path.parent))
    torn = b'{"at_ms":1795216500000,"data":{"n":1' + b" " * (0 if shorter else 1 << 20)
    path.write_bytes(path.read_bytes() + torn)
    looks = 0

    def alive() -> bool:
        nonlocal looks
        looks += 1
        if looks == 3:  # the half line was read twice by now
            with Journal.open(path) as journal:
                for kind, data in steps[5:]:
                    journal.append(kind, data)
        return True

    found = list(chain.linked(follow.records(path.parent, alive, follow.Ending(), lambda: None)))
    assert looks > 3
    assert found[before].kind == "journal.recovered"
    assert [record.kind for record in found if record.kind != "journal.checkpoint"][5:8] == [
        steps[4][0],
        "journal.recovered",
        steps[5][0],
    ]
    assert found[-1].kind == "run.finished"
    assert [record["seq"] for record in follow.follow(path.parent, lambda: True)] == [record.seq for record in found]


def test_following_goes_on_where_another_leg_has_begun(home: Path, inbounds: Inbounds) -> None:
    steps = evidence.good_run()
    again = ("run.reauthorized", {"stop_hash": "ab" * 32, "operators": ["Dana Oduya"]})
    first = [*steps[:-1], ("run.finished", {"code": "STOP_BUDGET_EXCEEDED", "exit": 1})]
    evidence.write(home, [*first, again, *evidence.iteration(4, 3, 0, 300_000)])
    done = inbounds("logs", "-f", timeout=60)
    assert "leg 2" in done.stdout
    assert "iteration 4" in done.stdout
    assert "nobody writes any more" in done.stderr, "the second leg has no end"
    evidence.write(home, first, run_id="20261120-231501-a1b2c3")
    assert "nobody writes" not in inbounds("logs", "-f", timeout=60).stderr, "the control: one leg, and its end"


@pytest.mark.parametrize("args", [(), ("--json",), ("-f",)])
def test_a_hundred_thousand_records_stream_by(home: Path, inbounds: Inbounds, args: tuple[str, ...]) -> None:
    """A second or two on a machine that has nothing else to do; the bound is for one that has."""
    run_dir = home / "runs" / evidence.RUN_ID
    run_dir.mkdir(parents=True)
    steps = [*evidence.good_run()[:5]]
    steps += [("model.usage", evidence.usage(n, n)) for n in range(HUGE)]
    prev, place = chain.GENESIS, run_dir / "journal.jsonl"
    with place.open("wb") as file:
        for seq, (kind, data) in enumerate([("journal.opened", {"version": chain.FORMAT}), *steps]):
            record, line = chain.encode(seq, evidence.START + seq, kind, data, prev)
            prev = record.hash
            file.write(line)
    argv = [sys.executable, "-c", MEASURED, "logs", *args]
    began = time.monotonic()
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    took = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    assert took < 30
    assert int(done.stderr.split()[-2]) < 150 << 10, "it streams: a journal of 60 MB is not held"
    if "--json" in args:
        assert done.stdout.count("\n") == HUGE + 6
    else:
        assert f"{HUGE:,} requests to claude-sonnet-4-5" in done.stdout or "-f" in args
        assert len(done.stdout.splitlines()) < HUGE / 100


def test_a_reader_that_goes_away_is_no_error(finished: Path, home: Path) -> None:
    line = f"{sys.executable} -m inbounds logs | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_ctrl_c_stops_showing_and_says_that_the_run_goes_on(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    def interrupted(*_: object, **__: object) -> Iterator[chain.Record]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(follow, "records", interrupted)
    done = CliRunner().invoke(command, ["--follow"], standalone_mode=False)
    assert done.return_value == 0
    assert "the run goes on" in done.stderr


@pytest.mark.parametrize("args", [("nothing",), ("--nonsense",)])
def test_mistakes_are_the_operators(finished: Path, inbounds: Inbounds, args: tuple[str, ...]) -> None:
    assert inbounds("logs", *args).returncode == 100
