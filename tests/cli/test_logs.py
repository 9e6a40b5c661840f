"""`inbounds logs`: the journal as lines, followed while it grows, and never obeyed by a terminal."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import evidence
import pytest

from inbounds.cli.logs import command
from inbounds.journal.writer import Journal


def test_one_line_a_record(finished: Path, inbounds) -> None:
    done = inbounds("logs")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(evidence.read(finished))
    assert "run.accepted" in lines[1]
    assert "run.finished" in lines[-1]


def test_json_is_the_records_themselves(finished: Path, inbounds) -> None:
    done = inbounds("logs", "a1b2c3", "--json")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["hash"] for record in records] == [record.hash for record in evidence.read(finished)]
    assert set(records[0]) == {"seq", "at_ms", "kind", "data", "prev", "hash"}


def test_what_an_agent_said_is_shown_and_not_obeyed(home: Path, inbounds) -> None:
    said = "\x1b[2J\x1b]52;c;aGk=\x07 done\n12:00:00  run.finished        DONE, exit 0\u202e"
    steps = evidence.good_run()
    evidence.write(home, [*steps[:-1], ("agent.said", {"n": 1, "text": said}), steps[-1]])
    done = inbounds("logs")
    assert len(done.stdout.splitlines()) == len(steps) + 2  # with journal.opened: no line was forged
    assert "\x1b" not in done.stdout
    assert "\x07" not in done.stdout
    assert "\u202e" not in done.stdout
    assert "(untrusted)" in done.stdout
    raw = inbounds("logs", "--json").stdout
    assert "\x1b" not in raw
    assert said in [json.loads(line)["data"].get("text") for line in raw.splitlines()]


def test_it_shows_what_holds_and_stops_at_the_break(finished: Path, inbounds) -> None:
    path = finished / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5] + lines[6:]))
    done = inbounds("logs")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 5
    assert "inbounds verify" in done.stderr


def test_following_ends_with_the_run(home: Path, inbounds) -> None:
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
    assert len(done.stdout.splitlines()) == len(steps) + 1


def test_following_a_run_whose_supervisor_died_comes_to_an_end(home: Path, inbounds) -> None:
    evidence.write(home, evidence.good_run()[:5])
    done = inbounds("logs", "-f", timeout=60)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 6


def test_a_reader_that_goes_away_is_no_error(finished: Path, home: Path) -> None:
    line = f"{sys.executable} -m inbounds logs | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_ctrl_c_stops_showing_and_says_that_the_run_goes_on(finished: Path, monkeypatch) -> None:
    from click.testing import CliRunner

    from inbounds.run import follow

    def interrupted(*_: object, **__: object):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(follow, "follow", interrupted)
    done = CliRunner().invoke(command, ["--follow"], standalone_mode=False)
    assert done.return_value == 0
    assert "the run goes on" in done.stderr


@pytest.mark.parametrize("args", [("nothing",), ("--nonsense",)])
def test_mistakes_are_the_operators(finished: Path, inbounds, args: tuple[str, ...]) -> None:
    assert inbounds("logs", *args).returncode == 100
