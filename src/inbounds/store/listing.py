"""List a directory with the one program that does it at the price of a stat each: GNU find, its output unparsed.

A line says everything by which a change shows, so lines that two listings share are files that did not change between
them (an agent can't set the change time). Knows nothing of what the paths mean: whoever reads one looks for itself.
"""

import contextlib
import fcntl
import functools
import operator
import os
import re
import selectors
import signal
import stat
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from inbounds.contracts.errors import HostError
from inbounds.store.walk import ABSENT, DIRECTORY, Limits, open_parent

FIND = "/usr/bin/find"
# 100,000 files take 0.3 s of one processor; a caller who waits longer than this is better served by its other way.
TIMEOUT_S = 60.0
LINE_BYTES = 512  # of an entry, on average: a listing with longer paths than that is cut off
# find writes 4 KiB at a time: with a pipe that holds a pause's worth, its reader wakes up for many of these at once.
PIPE_BYTES, PAUSE_S = 1 << 20, 0.002
# Kind, mode, change time in nanoseconds, inode, device, path below the directory. Whatever else is changed about a file
# (bytes, other times, names, owner, attributes) changes the change time; printing it all takes a third longer.
FIELDS = "%y %m %C@ %i %D "
BEFORE_PATH = FIELDS.count(" ")
VERSION_S = 10.0
SHARES_MAX = 4  # processes at work on one listing; beyond this their reader is what takes the time
SHARED_MIN = 20_000  # entries; below, starting a second process takes longer than it saves
NAMES_MAX = 200  # directories handed to one process by its command line
PLAIN = re.compile(rb"[A-Za-z0-9_][A-Za-z0-9_.+-]*")  # a name that find takes for nothing else, nor for a pattern

_FIRST = operator.itemgetter(0)


@dataclass(frozen=True, slots=True)
class Shares:
    """Who lists what: beside the first process, each of the others some directories in `base`; nothing at first."""

    base: str = ""
    names: tuple[tuple[str, ...], ...] = ()


ALONE = Shares()


class Difference(NamedTuple):
    """Lines that only the former of two listings has, and that only the later one has."""

    gone: set[bytes]
    come: set[bytes]

    def kinds(self) -> dict[str, str]:
        """The kind of everything it is about as it is now, "" for what is not there any more."""
        found = dict.fromkeys((kind_and_path(line)[1] for line in self.gone), "")
        found.update((path, kind) for kind, path in map(kind_and_path, self.come))
        return found


@dataclass(frozen=True, slots=True)
class Listing:
    """What is below a directory (itself included, its top-level .git not), a line each, by who listed it."""

    shares: Shares
    parts: tuple[list[bytes], ...]
    _size: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_size", sum(map(len, self.parts)))

    def __len__(self) -> int:
        return self._size

    def seen(self) -> Iterator[tuple[str, str]]:
        """Kind and path of everything, as `kind_and_path`."""
        for line in self.lines():
            yield kind_and_path(line)

    def files(self) -> int:
        """How many of the lines are of no directory."""
        return len(self) - sum(list(map(_FIRST, part)).count(ord("d")) for part in self.parts)

    def since(self, former: "Listing") -> "Difference":
        """What only one of the two has."""
        if former.shares != self.shares:
            before, now = set(former.lines()), set(self.lines())
            return Difference(before - now, now - before)
        gone, come = set[bytes](), set[bytes]()
        for prefix, old, new in zip(_prefixes(self.shares), former.parts, self.parts, strict=True):
            before, now = _unequal(old, new)
            gone.update(_whole(prefix, line) for line in before)
            come.update(_whole(prefix, line) for line in now)
        return Difference(gone - come, come - gone)

    def without(self, come: set[bytes]) -> "Listing":
        """All but these lines of a difference."""
        if not come:
            return self
        parts = [
            [line for line in part if _whole(prefix, line) not in come]
            for prefix, part in zip(_prefixes(self.shares), self.parts, strict=True)
        ]
        return Listing(self.shares, tuple(parts))

    def lines(self) -> Iterator[bytes]:
        """All of them, whoever listed them."""
        for prefix, part in zip(_prefixes(self.shares), self.parts, strict=True):
            yield from (_whole(prefix, line) for line in part) if prefix else part

    def again(self) -> Shares:
        """How to share out the next listing among this host's processors: by where the most entries are."""
        if self.shares.names and max(map(len, self.parts)) * 4 < len(self) * 3:
            return self.shares  # fair enough
        count = min(len(os.sched_getaffinity(0)), SHARES_MAX)
        if count < 2 or len(self) < SHARED_MIN:  # noqa: PLR2004 - nobody to share with
            return ALONE
        return _shares([line.split(b" ", BEFORE_PATH)[BEFORE_PATH] for line in self.lines()], count)


def _unequal(old: list[bytes], new: list[bytes]) -> tuple[set[bytes], set[bytes]]:
    """Lines of only one of the lists. find's order is the directories' own: where nothing came or went, it stays."""
    if len(old) == len(new):
        pairs = [pair for pair in zip(old, new, strict=True) if pair[0] != pair[1]]
        before, now = {one for one, _ in pairs}, {other for _, other in pairs}
    else:
        before, now = set(old), set(new)
    return before - now, now - before


def _prefixes(shares: Shares) -> list[bytes]:
    """What stands before the paths of each part."""
    base = os.fsencode(shares.base) + b"/" if shares.base else b""
    return [b"", *[base for _ in shares.names]]


def _whole(prefix: bytes, line: bytes) -> bytes:
    if not prefix:
        return line
    *fields, path = line.split(b" ", BEFORE_PATH)
    return b" ".join((*fields, prefix + path))


def _shares(paths: list[bytes], count: int) -> Shares:
    base, weights = b"", Counter(path.split(b"/", 1)[0] for path in paths)
    while True:
        name, weight = max(weights.items(), key=lambda item: item[1])
        if weight * count < 2 * len(paths) or not PLAIN.fullmatch(name):
            break  # or else most of it is below this one: share out what is in there
        base += name + b"/"
        own = len(base)
        inside = Counter(path[own:].split(b"/", 1)[0] for path in paths if path.startswith(base))
        if not inside:
            return ALONE
        weights = inside
    groups: list[list[str]] = [[] for _ in range(count)]
    loads = [len(paths) - weights.total(), *(0 for _ in groups[1:])]
    for name, weight in sorted(weights.items(), key=lambda item: (-item[1], item[0])):
        least = loads.index(min(loads))
        apart = least and weight > 1 and PLAIN.fullmatch(name) and len(groups[least]) < NAMES_MAX
        loads[least if apart else 0] += weight
        if apart:
            groups[least].append(os.fsdecode(name))
    return Shares(os.fsdecode(base.rstrip(b"/")), tuple(tuple(sorted(group)) for group in groups[1:] if group))


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


def lines(root: int, limits: Limits, shares: Shares = ALONE) -> Listing | None:
    """What is below the open directory `root`, by as many processes as `shares` says.

    None where this is no complete answer: another find, something unreadable or gone meanwhile, too much, too slow.
    Nothing below the limit's depth is in it: a directory that deep is for the caller to refuse.
    """
    if not available():
        return None
    with contextlib.ExitStack() as started:
        base = _opened(root, shares, started)
        if base is None or shares.base.count("/") + 2 > limits.depth_max:
            shares = ALONE
        there = [_there(root, base, names) for names in shares.names]
        try:
            processes = [
                started.enter_context(_find(*job))
                for job in _jobs(root, base, Shares(shares.base, tuple(there)), limits)
            ]
        except OSError:  # no /proc, or no process to be had
            return None
        said = _read(processes, limits.entries_max * LINE_BYTES)
        if said is None:
            return None
        try:
            if any(process.wait(TIMEOUT_S) for process in processes):
                return None
        except subprocess.TimeoutExpired:
            return None
    parts: list[list[bytes]] = []
    for text in said:
        parts.append(text.split(b"\0"))
        parts[-1].pop()  # behind the last NUL
    # Those who had nothing to list (their directories have gone) have no part of their own: so that parts compare.
    rest = iter(parts[1:])
    return Listing(shares, (parts[0], *(next(rest) if names else [] for names in there)))


def _opened(root: int, shares: Shares, stack: contextlib.ExitStack) -> int | None:
    """The directory in which the other processes start, through no link; None where there is none."""
    if not shares.names:
        return None
    try:
        parent, name = open_parent(root, shares.base or ".")
        stack.callback(os.close, parent)
        handle = os.open(name, DIRECTORY, dir_fd=parent)
    except OSError as error:
        if error.errno not in ABSENT:
            raise
        return None
    stack.callback(os.close, handle)
    return handle if os.fstat(handle).st_dev == os.fstat(root).st_dev else None


def _there(root: int, base: int | None, names: tuple[str, ...]) -> tuple[str, ...]:
    """Which of these are directories of the same file system now: of the others the first process tells."""
    device, found = os.fstat(root).st_dev, []
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            about = os.stat(name, dir_fd=base, follow_symlinks=False)
            if stat.S_ISDIR(about.st_mode) and about.st_dev == device:
                found.append(name)
    return tuple(found)


Job = tuple[int, list[str]]


def _jobs(root: int, base: int | None, shares: Shares, limits: Limits) -> Iterator[Job]:
    """Where each process starts, and with what arguments. A single name in an open directory: it leads nowhere else."""
    prune = ["(", "-path", "./.git"]
    for name in (name for names in shares.names for name in names):
        prune += ["-o", "-path", "./" + (f"{shares.base}/{name}" if shares.base else name)]
    told = [*prune, ")", "-prune", "-o", "-printf", FIELDS + "%P\\0"]
    yield root, [".", "-maxdepth", str(limits.depth_max), "-xdev", *told]
    # Its starting points count as depth 0 there.
    depth = limits.depth_max - 1 - (shares.base.count("/") + 1 if shares.base else 0)
    for names in shares.names:
        if names and base is not None:
            yield base, [*names, "-maxdepth", str(depth), "-xdev", "-printf", FIELDS + "%p\\0"]


@contextlib.contextmanager
def _find(directory: int, args: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """One process, gone when the block ends."""
    process = subprocess.Popen(
        [FIND, *args],
        cwd=f"/proc/self/fd/{directory}",
        env={"LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # its words would be about names of an agent's choice; the status says enough
        start_new_session=True,
        bufsize=0,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it may end between the two calls
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _read(processes: "list[subprocess.Popen[bytes]]", bytes_max: int) -> list[bytes] | None:
    """What each says, to the end of all; None if it is more than so many bytes or takes too long."""
    deadline, size = time.monotonic() + TIMEOUT_S, 0
    pieces: Mapping[int, list[bytes]] = {_pipe(process): [] for process in processes}
    large = all(map(_enlarged, pieces))
    with selectors.DefaultSelector() as selector:
        for pipe in pieces:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            for key, _ in selector.select(left):
                piece = os.read(key.fd, PIPE_BYTES)
                if not piece:
                    selector.unregister(key.fd)
                pieces[key.fd].append(piece)
                size += len(piece)
            if size > bytes_max:
                return None
            if large and selector.get_map():
                time.sleep(PAUSE_S)
    return [b"".join(said) for said in pieces.values()]


def _pipe(process: "subprocess.Popen[bytes]") -> int:
    if process.stdout is None:
        raise HostError("find was started without a pipe", where=FIND)
    return process.stdout.fileno()


def _enlarged(pipe: int) -> bool:
    """Whether the pipe could be made to hold what comes during a pause (a user's pipes have a limit together)."""
    try:
        return fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES) >= PIPE_BYTES
    except OSError:
        return False


def kind_and_path(line: bytes) -> tuple[str, str]:
    """A line's kind (find's letter: f, d, l, ...) and path ("" is the listed directory itself)."""
    fields = line.split(b" ", BEFORE_PATH)
    return fields[0].decode("ascii"), os.fsdecode(fields[BEFORE_PATH])
