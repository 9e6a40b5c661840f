"""Try whether a file system shows every writing in a file's change time, the one through a new memory map included.

ext4, xfs and btrfs do; a file system without writeback (tmpfs) shows none behind the first reading of a page. Knows
nothing of what is stored there.
"""

import contextlib
import os
import subprocess
import sys

TIMEOUT_S = 20.0
# Its own process: a page that can't be written (a full disk, a broken one) ends it with SIGBUS.
# Four ticks of 10 ms (HZ=100) lie between the looks, so that the clock has moved.
_PROBE = """
import mmap, os, sys, time
handle = int(sys.argv[1])
os.pwrite(handle, bytes(mmap.PAGESIZE), 0)
page = mmap.mmap(handle, mmap.PAGESIZE)
page[0]
before = os.fstat(handle).st_ctime_ns
time.sleep(0.04)
page[0] = 1
sys.exit(0 if os.fstat(handle).st_ctime_ns != before else 3)
"""


def tell(directory: str, device: int) -> bool:
    """Whether the times of files on `device` tell, tried in `directory` of ours; False where it can't be tried there.

    No process that has had a file mapped since its last reading may be alive: to its map, the first writing is over.
    """
    path = os.path.join(directory, f"filetimes-{os.getpid()}")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(FileNotFoundError):  # of a process of this number that was killed
        os.unlink(path)
    try:
        handle = os.open(path, flags, 0o600)
    except OSError:  # full, or read-only
        return False
    try:
        if os.fstat(handle).st_dev != device:
            return False
        argv = [sys.executable, "-I", "-S", "-c", _PROBE, str(handle)]
        try:
            done = subprocess.run(
                argv, env={}, cwd="/", pass_fds=[handle], timeout=TIMEOUT_S, check=False,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0
    finally:
        os.close(handle)
        os.unlink(path)
