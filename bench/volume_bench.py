"""What a slot's volume costs: ready, detached, cut under a writer, destroyed; and work on it against a bare directory.

`python bench/volume_bench.py [--files N] [--rounds N] [--json FILE]`, as root. Ratios are of one run, its rounds
interleaved. Knows the image alone: no service, no jail.
"""

import argparse
import contextlib
import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from inbounds.host import fscrypt, handles
from inbounds.host.image import Image

SLOT, OPERATOR = 61191, 64244  # users of nobody's
VOLUME_BYTES, VOLUME_FILES = 5 << 30, 100_000
SPARE_FILES = 20_000  # beside those that are measured: their directories, and git's own
BAR_READY_S = 2.0
BAR_WORK = 1.05
FILES_PER_DIRECTORY = 250
CHILD_S_MAX = 600

OPENS = """
import os, sys, time
names = [name.rstrip("\\n") for name in sys.stdin]
began = time.perf_counter()
for name in names: os.close(os.open(name, os.O_RDONLY))
print(time.perf_counter() - began)
"""
WRITER = """
import os, time
fd = os.open("written", os.O_CREAT | os.O_RDWR, 0o600)
print("writing", flush=True)
try:
    while True: os.pwrite(fd, b"x" * 65536, 0)
except OSError: print(time.monotonic_ns(), flush=True)
"""


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A directory that everybody may pass, on a disk (/tmp may be memory); nothing is left of it or mounted in it."""
    base = Path(tempfile.mkdtemp(prefix="inbounds-bench-", dir="/var/tmp"))
    base.chmod(0o755)
    try:
        yield base
    finally:
        with contextlib.suppress(OSError):  # it may not have been mounted
            handles.unmount(str(base / "plain"), handles.MNT_DETACH)
        opened(base).destroy()
        shutil.rmtree(base)


def opened(base: Path) -> Image:
    """The image of this directory, whatever its state."""
    where = (f"{base}/slot", f"{base}/custody/raw", f"{base}/desk/view")
    return Image.open(*where, uid=SLOT, gid=SLOT, operator_uid=OPERATOR, operator_gid=OPERATOR)


def made(base: Path, *, encrypt: bool = False, files: int = VOLUME_FILES) -> Image:
    """A mounted image for so many files."""
    image = Image.make(
        f"{base}/slot",
        f"{base}/custody/raw",
        f"{base}/desk/view",
        size=VOLUME_BYTES,
        inodes=files,
        uid=SLOT,
        gid=SLOT,
        operator_uid=OPERATOR,
        operator_gid=OPERATOR,
        encrypt=encrypt,
    )
    image.mount()
    return image


@functools.cache
def python() -> list[str]:
    """An interpreter that an ordinary user may execute: the one that runs this may be root's alone."""
    for program in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            subprocess.run([program, "-I", "-c", "import os"], user=OPERATOR, group=OPERATOR, check=True, cwd="/")
            return [program, "-I", "-c"]
    sys.exit("no Python interpreter here may be executed by an ordinary user")


def timed(action: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def life(base: Path, rounds: int, *, encrypt: bool) -> dict[str, float]:
    """Median seconds of each step of an image's life; the first round warms up."""
    taken: dict[str, list[float]] = {
        "ready": [],
        "detach": [],
        "attach": [],
        "last write after the cut": [],
        "destroy": [],
    }
    for _ in range(rounds + 1):
        taken["ready"].append(timed(lambda: made(base, encrypt=encrypt)))
        image = opened(base)
        taken["detach"].append(timed(image.unmount))
        taken["attach"].append(timed(image.mount))
        taken["last write after the cut"].append(cut(image))
        taken["destroy"].append(timed(image.destroy))
    return {name: statistics.median(each[1:]) for name, each in taken.items()}


def cut(image: Image) -> float:
    """Seconds from asking for the cut to the last write of a process that writes without a pause."""
    writer = subprocess.Popen(
        [*python(), WRITER], cwd=image.raw, stdout=subprocess.PIPE, text=True, user=SLOT, group=SLOT
    )
    with writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        began = time.monotonic_ns()
        image.unmount(writers_may_live=True)
        return (int(writer.stdout.readline()) - began) / 1e9


def populate(tree: Path, files: int) -> list[str]:
    """A git repository with so many small files, all committed; their names."""
    names = []
    for number in range(files):
        name = f"d{number // FILES_PER_DIRECTORY}/f{number}"
        if number % FILES_PER_DIRECTORY == 0:
            (tree / name).parent.mkdir(parents=True)
        (tree / name).write_bytes(b"%d\n" % number * 16)
        names.append(name)
    by = ["-c", "user.name=bench", "-c", "user.email=bench@example.invalid"]
    for arguments in (["init", "-q"], ["add", "."], [*by, "commit", "-q", "-m", "tree"], ["repack", "-adq"]):
        subprocess.run(["git", *arguments], cwd=tree, check=True)
    return names


def work(base: Path, files: int, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of git status and of opening every file: bare, on the volume, through the view.

    The fastest round of each, since what else a machine does only ever adds.
    """
    image = made(base, files=2 * (files + SPARE_FILES))
    bare, plain = base / "bare", base / "plain"
    for path in (bare, plain):
        path.mkdir()
    names = populate(bare, files)
    # A tree for each: git's index holds the owner that it sees, so that two owners' turns would have it read all anew.
    for tree in ("volume", "view"):
        subprocess.run(["cp", "-a", str(bare), f"{image.raw}/{tree}"], check=True)
    subprocess.run(["chown", "-R", f"{OPERATOR}:{OPERATOR}", str(bare)], check=True)
    subprocess.run(["chown", "-R", f"{SLOT}:{SLOT}", image.raw], check=True)
    root = image.raw_fd()
    clone = handles.clone_tree(root)
    handles.attach(clone, str(plain))
    os.close(clone)
    os.close(root)
    places = {
        "bare": (str(bare), OPERATOR),
        "volume": (f"{plain}/volume", SLOT),
        "view": (f"{image.view}/view", OPERATOR),
    }
    listing = "\n".join(names)
    found: dict[str, dict[str, list[float]]] = {"git status": {}, f"{files:,} opens": {}}
    for turn in range(rounds + 1):
        for place, (where, user) in places.items():
            figures = (status(where, user), opens(where, user, listing))
            if turn:  # the first fills the caches, and lets git note the new inodes
                for kind, figure in zip(found, figures, strict=True):
                    found[kind].setdefault(place, []).append(figure)
    return {kind: {place: min(each) for place, each in by.items()} for kind, by in found.items()}


def status(path: str, user: int) -> float:
    """Seconds of one git status."""
    argv = ["git", "status", "--porcelain"]
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}

    def run() -> None:
        done = subprocess.run(
            argv, cwd=path, user=user, group=user, extra_groups=[], env=environment, capture_output=True, check=True
        )
        assert not done.stdout, done.stdout[:200]

    return timed(run)


def opens(path: str, user: int, listing: str) -> float:
    """Seconds that opening and closing every one of these files takes in one process."""
    done = subprocess.run(
        [*python(), OPENS],
        input=listing,
        cwd=path,
        user=user,
        group=user,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=CHILD_S_MAX,
        check=True,
    )
    return float(done.stdout)


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=VOLUME_FILES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    with scratch() as base:
        figures["life"] = life(base, asked.rounds, encrypt=False)
        try:
            fscrypt.draw("inbounds-bench")
            fscrypt.forget("inbounds-bench")
            figures["life, encrypted"] = life(base, asked.rounds, encrypt=True)
        except OSError as fault:
            print(f"no encryption on this host: {fault}")
        figures |= work(base, asked.files, asked.rounds)
    for title, row in figures.items():
        print(f"{title:<20}" + "   ".join(f"{name} {1000 * value:.1f} ms" for name, value in row.items()))
    ready = figures["life"]["ready"]
    print(f"ready below {BAR_READY_S} s: {'met' if ready < BAR_READY_S else 'NOT met'}")
    for title in list(figures)[-2:]:
        row = figures[title]
        view, volume = row["view"] / row["volume"], row["volume"] / row["bare"]
        met = "met" if row["view"] / row["bare"] <= BAR_WORK else "NOT met"
        print(
            f"{title}: view against volume {view:.3f} x, volume against bare {volume:.3f} x; at most {BAR_WORK}: {met}"
        )
    if asked.json:
        asked.json.write_text(json.dumps({"files": asked.files, "seconds": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
