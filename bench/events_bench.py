"""What file events cost: 100,000 opens on a volume without and with them, and how fast they are taken in.

`python bench/events_bench.py [--opens N] [--rounds N] [--json FILE]`, as root. Ratios are of one run, its rounds
interleaved. The watch has a process of its own, as in the host service; its records go to a reader that drops them.
"""

import argparse
import contextlib
import json
import os
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from inbounds.host.events import INCOMPLETE, RECORD, Events, unpack

OPENS, FILES_MAX = 100_000, 20_000
USER = 61_192  # nobody's
CHILD_S_MAX = 600

WORK = """
import os, sys, time
count, files = int(sys.argv[1]), int(sys.argv[2])
names = [f"d{n // 250}/f{n}" for n in range(files)]
names = (names * (count // files + 1))[:count]
began, used = time.perf_counter(), time.process_time()
for name in names: os.close(os.open(name, os.O_RDONLY))
print(time.perf_counter() - began, time.process_time() - used)
"""


@contextlib.contextmanager
def volume(files: int) -> Iterator[Path]:
    """An ext4 of a user of nobody's with so many small files; nothing is left of it."""
    base = Path(tempfile.mkdtemp(prefix="inbounds-bench-", dir="/var/tmp"))
    place = base / "m"
    place.mkdir()
    mounted = False
    try:
        with (base / "image").open("wb") as image:
            image.truncate(512 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-N", str(files * 2), base / "image"], check=True)
        subprocess.run(["mount", "-o", "loop,nosuid,nodev,noexec", base / "image", place], check=True)
        mounted = True
        for number in range(files):
            if number % 250 == 0:
                (place / f"d{number // 250}").mkdir()
            (place / f"d{number // 250}" / f"f{number}").write_bytes(b"x")
        os.chown(place, USER, USER)
        base.chmod(0o755)
        yield place
    finally:
        if mounted:
            subprocess.run(["umount", place], check=True)
        shutil.rmtree(base)


@contextlib.contextmanager
def watched(place: Path) -> Iterator[dict[str, float]]:
    """Events of this volume, read all the time; afterwards how many records there were, and how often it ran over."""
    told: dict[str, float] = {}
    reading, writing = os.pipe()
    watcher = os.fork()
    if not watcher:
        try:
            os.close(reading)
            _watch(place, writing)
        finally:
            os._exit(0)
    os.close(writing)
    reader = subprocess.Popen(
        [sys.executable, "-c", "import sys, shutil; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer, 1 << 16)"],
        stdin=reading,
        stdout=(place.parent / "records").open("wb"),
    )
    os.close(reading)
    time.sleep(0.3)  # for both to be there
    try:
        yield told
    finally:
        os.kill(watcher, signal.SIGTERM)
        _, _, used = os.wait4(watcher, 0)
        reader.wait(CHILD_S_MAX)
        records, rest = unpack((place.parent / "records").read_bytes())
        assert not rest
        told |= {"records": len(records), "ran over": sum(bool(one.what & INCOMPLETE) for one in records)}
        told |= {"CPU s of the watch": used.ru_utime + used.ru_stime, "bytes a record": RECORD.size}


def _watch(place: Path, writing: int) -> None:
    over: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: over.append(number))
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    events = Events(fd, writing)
    os.close(fd)
    while not over:
        if select.select([events.fileno()], [], [], 0.1)[0]:
            events.handle()
    events.close()


def opens(place: Path, count: int, files: int) -> tuple[float, float]:
    """Seconds, and seconds of CPU, that opening and closing so often takes in one process of the volume's user."""
    argv = ["/usr/bin/python3", "-I", "-c", WORK, str(count), str(files)]
    done = subprocess.run(
        argv, cwd=place, user=USER, group=USER, extra_groups=[], capture_output=True, check=True, timeout=CHILD_S_MAX
    )
    wall, used = map(float, done.stdout.split())
    return wall, used


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--opens", type=int, default=OPENS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    files = min(asked.opens, FILES_MAX)
    rows: list[dict[str, float]] = []
    with volume(files) as place:
        opens(place, asked.opens, files)  # warms up
        for _ in range(asked.rounds):
            bare, bare_used = opens(place, asked.opens, files)
            with watched(place) as told:
                wall, used = opens(place, asked.opens, files)
            row = {"without, s": bare, "with, s": wall, "without, CPU s": bare_used, "with, CPU s": used}
            rows.append(row | told)
    middle = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    print(f"{asked.opens} opens of {files} files in one process, {asked.rounds} rounds, medians")
    for name, value in middle.items():
        print(f"{name:24}{value:14.3f}")
    for unit in ("s", "CPU s"):
        bare, seen = middle[f"without, {unit}"], middle[f"with, {unit}"]
        print(
            f"{'with / without, ' + unit:24}{seen / bare:14.2f} x, {(seen - bare) / asked.opens * 1e6:.2f} us an open"
        )
    if asked.json:
        asked.json.write_text(json.dumps({"opens": asked.opens, "files": files, "rounds": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
