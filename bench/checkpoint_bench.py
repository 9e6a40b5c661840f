"""What a checkpoint and a rollback of a workspace cost, against `cp -a` of the same files, and how the store grows.

`python bench/checkpoint_bench.py [--files N] [--bytes N] [--rounds N] [--checkpoints N] [--json FILE]`. Ratios are of
one run, its rounds interleaved. No jail: the volume alone, which is the same in both modes.
"""

import argparse
import functools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from inbounds.sandbox.volume import Volume
from inbounds.store.descent import delete_tree
from inbounds.store.store import Store

FILES, CHANGED, FILES_PER_DIRECTORY = 100_000, 100, 100
SMALL_BYTES = 400  # a file of the small tree
LARGE_BYTES = 5 << 30  # the large tree in all
BAR_RATIO, BAR_S = 20.0, 0.5
ENV = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}


def timed(action: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def repository(top: Path, files: int, size: int) -> list[str]:
    """A repository of so many files of so many bytes, which don't compress; returns their names in its thread."""
    names = [f"d{n // FILES_PER_DIRECTORY // 40}/d{n // FILES_PER_DIRECTORY}/f{n}" for n in range(files)]
    for name in names:
        path = top / "t" / name
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True)
        path.write_bytes(os.urandom(size))
    fast = ["-c", "core.bigFileThreshold=1", "-c", "core.compression=0", "-c", "user.name=b", "-c", "user.email=b@b"]
    for args in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "start"]):
        subprocess.run(["git", *fast, *args], cwd=top, env=ENV, check=True)
    return names


def change(root: Path, names: list[str], turn: int, count: int = CHANGED) -> None:
    """Append to so many files, spread over the whole tree, others every time."""
    step = max(1, len(names) // count)
    for n in range(count):
        with open(root / names[(n * step + turn) % len(names)], "ab") as file:
            file.write(b"%d\n" % turn)


def stored(store: Store) -> int:
    """Bytes of the store's objects."""
    return sum(os.lstat(os.path.join(at, name)).st_size for at, _, all_ in os.walk(store.path) for name in all_)


def measure(files: int, size: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round: a checkpoint and a rollback with 100 files changed, and a copy."""
    top = Path(tempfile.mkdtemp(prefix="inbounds-bench-", dir="/var/tmp"))  # a disk: /tmp may be memory
    try:
        names = repository(top / "source", files, size)
        store = Store.create(str(top / "store.git"))
        tree = store.tree_of(store.fetch(str(top / "source")))
        delete_tree(str(top / "source"))
        found: dict[str, list[float]] = {name: [] for name in ("checkpoint", "rollback", "no change", "cp -a")}
        volume = Volume.prepare(store, tree, "t", (), str(top / "ws"))
        snapshot = functools.partial(volume.snapshot, alive=False)  # as at an iteration's end
        root, last = Path(volume.root), snapshot().tree
        for turn in range(rounds):
            change(root, names, 2 * turn)
            found["checkpoint"].append(timed(snapshot))
            found["no change"].append(timed(snapshot))
            kept = snapshot().tree
            change(root, names, 2 * turn + 1)
            last = (last, kept)[turn % 2]
            found["rollback"].append(timed(functools.partial(volume.restore, last)))
            taken = snapshot()
            assert taken.complete and taken.tree == last, "a rollback did not end at its tree"  # noqa: PT018 - one claim
            found["cp -a"].append(timed(lambda: subprocess.run(["cp", "-a", str(root), str(top / "copy")], check=True)))
            delete_tree(str(top / "copy"))
        return found
    finally:
        shutil.rmtree(top)


def many(checkpoints: int) -> dict[str, float]:
    """So many checkpoints of 1,000 files, ten changed each time: the first ones, the last ones, the growth."""
    top = Path(tempfile.mkdtemp(prefix="inbounds-bench-", dir="/var/tmp"))
    try:
        names = repository(top / "source", 1_000, SMALL_BYTES)
        store = Store.create(str(top / "store.git"))
        tree = store.tree_of(store.fetch(str(top / "source")))
        volume = Volume.prepare(store, tree, "t", (), str(top / "ws"))
        snapshot = functools.partial(volume.snapshot, alive=False)
        before, taken = stored(store), []
        for turn in range(checkpoints):
            change(Path(volume.root), names, turn, 10)
            taken.append(timed(snapshot))
        return {
            "checkpoints": checkpoints,
            "first_s": round(statistics.median(taken[:10]), 4),
            "last_s": round(statistics.median(taken[-10:]), 4),
            "store_kib_each": round((stored(store) - before) / 1024 / checkpoints, 1),
            "content_kib_each": round(volume.stored / 1024 / checkpoints, 1),
        }
    finally:
        shutil.rmtree(top)


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--bytes", type=int, default=LARGE_BYTES, help="of the large tree; 0 leaves it out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--checkpoints", type=int, default=200)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    before = os.getloadavg()[0]
    figures: dict[str, dict[str, float]] = {}
    for tree, size in (("small", SMALL_BYTES), ("large", asked.bytes // asked.files)):
        if not size:
            continue
        found = measure(asked.files, size, asked.rounds)
        copies = found["cp -a"]
        for name, each in found.items():
            middle = statistics.median(each)
            ratio = statistics.median(copy / own for copy, own in zip(copies, each, strict=True))
            figures[f"{tree}: {name}"] = {"s": round(middle, 3), "times_faster": round(ratio, 1)}
            met = "met" if ratio >= BAR_RATIO and middle < BAR_S else "NOT met"
            bar = "" if name == "cp -a" else f"{ratio:6.1f} x faster than cp -a   ≥ {BAR_RATIO:g} x, < {BAR_S} s: {met}"
            print(f"{asked.files} files of {size} bytes   {name:<10} {middle:7.3f} s   {bar}")
    figures["many"] = many(asked.checkpoints)
    print("many checkpoints:", ", ".join(f"{name} {value}" for name, value in figures["many"].items()))
    load = [before, os.getloadavg()[0]]
    print(f"load (1 minute) before and after: {load[0]:.1f}, {load[1]:.1f}; {os.cpu_count()} CPUs; user {os.getuid()}")
    if asked.json:
        head = {"python": sys.version.split()[0], "kernel": platform.release(), "load": load}
        asked.json.write_text(json.dumps({**head, "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
