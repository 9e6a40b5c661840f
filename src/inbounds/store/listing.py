"""List a directory with the one program that does it at the price of a stat each: GNU find, its output unparsed.

A line says everything by which a change shows, so lines that two listings share are files that did not change between
them (an agent can't set the change time). Knows nothing of what the paths mean: whoever reads one looks for itself.
"""

import contextlib
import functools
import os
import selectors
import signal
import subprocess
import time

from inbounds.contracts.errors import HostError
from inbounds.store.walk import Limits

FIND = "/usr/bin/find"
# 100,000 files take 0.2 s on an idle machine; a caller who waits longer than this is better served by its other way.
TIMEOUT_S = 60.0
LINE_BYTES = 512  # of an entry, on average: a listing with longer paths than that is cut off
CHUNK = 1 << 16  # what a pipe holds
# Kind, mode, change time in nanoseconds, inode, device, path below the directory. Whatever else is changed about a file
# (bytes, other times, names, owner, attributes) changes the change time; printing it all takes a third longer.
FIELDS = "%y %m %C@ %i %D %P\\0"
BEFORE_PATH = FIELDS.count(" ")
VERSION_S = 10.0


@functools.cache
def available() -> bool:
    """Whether this host's find is GNU's: others have no -printf."""
    try:
        done = subprocess.run(
            [FIND, "--version"], env={"LC_ALL": "C"}, cwd="/", capture_output=True, timeout=VERSION_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and b"GNU findutils" in done.stdout


def lines(root: int, limits: Limits) -> set[bytes] | None:
    """What is below the open directory `root` (itself included, its top-level .git not), a line each.

    None where this is no complete answer: another find, something unreadable or gone meanwhile, too much, too slow.
    Nothing below the limit's depth is in it: a directory that deep is for the caller to refuse.
    """
    if not available():
        return None
    argv = [
        FIND,
        ".",
        "-maxdepth",
        str(limits.depth_max),
        "-xdev",
        "-path",
        "./.git",
        "-prune",
        "-o",
        "-printf",
        FIELDS,
    ]
    try:
        process = subprocess.Popen(
            argv,
            cwd=f"/proc/self/fd/{root}",
            env={"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # its words would be about names of an agent's choice; the status says enough
            start_new_session=True,
            bufsize=0,
        )
    except OSError:  # no /proc, or no process to be had
        return None
    try:
        said = _read(process, limits.entries_max * LINE_BYTES)
        if said is None or process.wait(TIMEOUT_S):
            return None
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it may end between the two calls
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
    found = set(said.split(b"\0"))
    found.discard(b"")
    return found


def _read(process: "subprocess.Popen[bytes]", bytes_max: int) -> bytes | None:
    if process.stdout is None:
        raise HostError("find was started without a pipe", where=FIND)
    pieces: list[bytes] = []
    deadline, size = time.monotonic() + TIMEOUT_S, 0
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not selector.select(left):
                return None
            piece = os.read(process.stdout.fileno(), CHUNK)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)
            size += len(piece)
            if size > bytes_max:
                return None
    return None


def kind_and_path(line: bytes) -> tuple[str, str]:
    """A line's kind (find's letter: f, d, l, ...) and path ("" is the listed directory itself)."""
    fields = line.split(b" ", BEFORE_PATH)
    return fields[0].decode("ascii"), os.fsdecode(fields[BEFORE_PATH])
