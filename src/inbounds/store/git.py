"""Run one git process so that nothing but its arguments decides what it does.

The environment is built from nothing, hooks, filters, file-system monitors, prompts and transports are off (ATTACKS,
"planted now, executed later"). Knows nothing of trees or runs; the only module that starts git.
"""

import contextlib
import functools
import os
import re
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import IO, Self

from inbounds.contracts.errors import HostError

# The longest plumbing call measured is a first fetch of a large repository; anything slower is a hang.
TIMEOUT_S = 300.0
# A listing of 500,000 paths of 200 bytes is 100 MB; more than this is no answer to a question asked here.
OUTPUT_BYTES_MAX = 256 << 20
# What a person reads of an error; git's own are a few lines.
STDERR_BYTES_MAX = 64 << 10
CHUNK = 1 << 16
CONFIG_BYTES_MAX = 32 << 10  # names of filters in one configuration: a person has a handful, exec's limit is far above
DISK_FULL = ("No space left", "Out of diskspace", "quota exceeded")
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Highest precedence in git (`-c`), so that no repository's own config can undo it.
HARDENED: Mapping[str, str] = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.pager": "cat",
    "core.editor": "false",
    "core.askPass": "false",
    "core.sshCommand": "false",
    "core.protectNTFS": "true",
    "core.protectHFS": "true",
    "core.quotePath": "false",
    "core.symlinks": "true",
    "core.logAllRefUpdates": "false",
    "core.filesRefLockTimeout": "5000",  # ms; runs of one repository share a store and its refs
    "credential.helper": "",
    "diff.external": "",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "commit.gpgSign": "false",
    "log.showSignature": "false",  # it starts the repository's gpg.program
    "protocol.allow": "never",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "uploadpack.packObjectsHook": "",
}


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Every variable that git sees; nothing of the caller's environment is among them."""
    return {
        "PATH": SEARCH,
        "LC_ALL": "C",
        "TZ": "UTC",
        "HOME": "/nonexistent/inbounds",
        "XDG_CONFIG_HOME": "/nonexistent/inbounds",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "false",
        "GIT_PAGER": "cat",
        "GIT_EDITOR": "false",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "none",  # unlike protocol.allow, no repository's own protocol.NAME.allow overrules it
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_DISCOVERY_ACROSS_FILESYSTEM": "0",
        **(extra or {}),
    }


def without_filters(git_dir: str, cwd: str, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables for a command that looks at a work tree: every filter driver of this repository's configuration off.

    `git status` runs "filter.NAME.clean" on a file that looks changed, and a name can't be switched off unseen. By
    variables, not by `-c`, because a name may hold an equals sign.
    """
    args = ["config", "-z", "--name-only", "--get-regexp", r"^filter\."]
    _, out = status(args, git_dir=git_dir, cwd=cwd, env=env, ok=frozenset({0, 1}), limit=CONFIG_BYTES_MAX)
    drivers = dict.fromkeys(key.rpartition(b".")[0] for key in out.split(b"\0") if key)
    pairs = [(os.fsdecode(driver) + end, "") for driver in drivers for end in (".clean", ".smudge", ".process")]
    pairs += [(os.fsdecode(driver) + ".required", "false") for driver in drivers]
    numbered = {
        f"GIT_CONFIG_{part}_{n}": text
        for n, pair in enumerate(pairs)
        for part, text in zip(("KEY", "VALUE"), pair, strict=True)
    }
    return {**(env or {}), **numbered, "GIT_CONFIG_COUNT": str(len(pairs))}


@functools.cache
def program() -> str:
    """The absolute path of git; HostError where there is none."""
    found = shutil.which("git", path=SEARCH) or shutil.which("git")
    if not found:
        raise HostError("git is not installed", expected="git 2.34 or newer", fix="apt-get install git")
    return found


@functools.cache
def version() -> tuple[int, int]:
    """Major and minor version of the installed git."""
    text = run(["version"]).decode("utf-8", "replace")
    match = re.search(r"(\d+)\.(\d+)", text)
    if not match:
        raise HostError(f"git says its version is {text.strip()!r}", expected="git version N.N")
    return int(match[1]), int(match[2])


def command(
    args: Sequence[str], *, git_dir: str | None, work_tree: str | None = None, config: Mapping[str, str] | None = None
) -> list[str]:
    """The full argument vector: program, hardening, the repository named explicitly (no discovery), the command."""
    argv = [program(), "--no-pager"]
    for key, value in {**HARDENED, **(config or {})}.items():
        argv += ["-c", f"{key}={value}"]
    if git_dir is not None:
        argv.append(f"--git-dir={git_dir}")
    if work_tree is not None:
        argv.append(f"--work-tree={work_tree}")
    return [*argv, *args]


def run(
    args: Sequence[str],
    *,
    git_dir: str | None = None,
    work_tree: str | None = None,
    cwd: str = "/",
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    config: Mapping[str, str] | None = None,
    ok: frozenset[int] = frozenset({0}),
    limit: int = OUTPUT_BYTES_MAX,
    cut: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> bytes:
    """Run git to its end and return what it printed.

    `cut` returns the first `limit` bytes instead of failing when there are more. HostError carries git's own words for
    an exit status outside `ok`, for a timeout and for too much output.
    """
    return status(
        args,
        git_dir=git_dir,
        work_tree=work_tree,
        cwd=cwd,
        stdin=stdin,
        env=env,
        config=config,
        ok=ok,
        limit=limit,
        cut=cut,
        timeout_s=timeout_s,
    )[1]


def status(
    args: Sequence[str],
    *,
    git_dir: str | None = None,
    work_tree: str | None = None,
    cwd: str = "/",
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    config: Mapping[str, str] | None = None,
    ok: frozenset[int] = frozenset({0}),
    limit: int = OUTPUT_BYTES_MAX,
    cut: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> tuple[int, bytes]:
    """As `run`, with the exit status before the output, for commands whose status is an answer."""
    argv = command(args, git_dir=git_dir, work_tree=work_tree, config=config)
    with _started(argv, cwd, env) as process:
        out, err, over = _exchange(process, stdin, limit, time.monotonic() + timeout_s)
        if over == "time":
            raise HostError(f"git {args[0]} took longer than {timeout_s:.0f} s", where="git", expected="a local answer")
        if over == "size" and not cut:
            raise HostError(f"git {args[0]} printed more than {limit} bytes", where="git")
        if over:
            return 0, bytes(out[:limit])
        code = process.wait()
    if code not in ok:
        raise failed(args, code, bytes(err))
    return code, bytes(out)


def failed(args: Sequence[str], code: int, stderr: bytes) -> HostError:
    """The error for a git command that ended with a status that nobody asked for."""
    words = stderr.decode("utf-8", "backslashreplace").strip().replace("\n", "; ")[-2000:]
    fix = "free some disk space, then try again" if any(sign in words for sign in DISK_FULL) else ""
    return HostError(f"git {args[0]} ended with status {code}: {words or 'no message'}", where="git", fix=fix)


@contextlib.contextmanager
def _started(argv: Sequence[str], cwd: str, env: Mapping[str, str] | None) -> Iterator["subprocess.Popen[bytes]"]:
    """A git process in a session of its own, which is gone when the block ends, whatever happened in it."""
    process = subprocess.Popen(
        argv,
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
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
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # unsent input of a process that has ended
                    stream.close()


def _exchange(
    process: "subprocess.Popen[bytes]", stdin: bytes, limit: int, deadline: float
) -> tuple[bytearray, bytearray, str]:
    """Feed and read all three pipes at once; the last value is "", "time" or "size"."""
    out, err = bytearray(), bytearray()
    with selectors.DefaultSelector() as selector:
        streams = _pipes(process)
        rest = memoryview(stdin)
        for stream, events in zip(
            streams, (selectors.EVENT_WRITE, selectors.EVENT_READ, selectors.EVENT_READ), strict=True
        ):
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, events)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                return out, err, "time"
            for key, _ in selector.select(left):
                if key.fileobj is streams[0]:
                    rest = _feed(key.fd, rest)
                    done = not rest
                else:
                    piece = os.read(key.fd, CHUNK)
                    done = not piece
                    if key.fileobj is streams[1]:
                        out += piece
                    elif len(err) < STDERR_BYTES_MAX:
                        err += piece
                if len(out) > limit:
                    return out, err, "size"
                if done:
                    selector.unregister(key.fileobj)
                    streams[0].close() if key.fileobj is streams[0] else None
    return out, err, ""


def _pipes(process: "subprocess.Popen[bytes]") -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise HostError("git was started without pipes", where="git")
    return process.stdin, process.stdout, process.stderr


def _feed(descriptor: int, rest: memoryview) -> memoryview:
    """Write what fits; a reader that has gone needs nothing more (its status tells why)."""
    if not rest:
        return rest
    try:
        return rest[os.write(descriptor, rest[:CHUNK]) :]
    except BrokenPipeError:
        return rest[:0]


class Batch:
    """`git cat-file --batch`: many objects through one process, each asked for and read in turn.

    Use as a context manager. An object is returned whole, so its size is limited by the caller.
    """

    def __init__(self, git_dir: str, limit: int, *, buffered: bool = False) -> None:
        """`limit` in bytes per object: a larger one is a HostError. `buffered` is for `read_all` only."""
        self._argv = command(["cat-file", "--batch", *(["--buffer"] if buffered else [])], git_dir=git_dir)
        self._limit = limit

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._argv,
            cwd="/",
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # it has ended already: nothing to tell it
                    stream.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def read(self, name: str) -> bytes:
        """The content of the blob `name` (an object id)."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise HostError("git cat-file was started without pipes", where="git")
        stdin.write(name.encode("ascii") + b"\n")
        stdin.flush()
        return self._next(name, stdout)

    def read_all(self, names: Sequence[str]) -> Generator[bytes, None, None]:
        """The contents of many blobs in order, without a round trip for each: a thread asks while the caller reads."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise HostError("git cat-file was started without pipes", where="git")

        def ask(into: IO[bytes] = stdin) -> None:
            with contextlib.suppress(BrokenPipeError, ValueError):  # the reader found an error and has closed all
                into.write(b"".join(name.encode("ascii") + b"\n" for name in names))
                into.close()

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        try:
            for name in names:
                yield self._next(name, stdout)
        finally:
            if self._process.poll() is None:
                stdout.close()  # an early end: git stops at its next write, and so does the thread
            asking.join()

    def _next(self, name: str, stdout: IO[bytes]) -> bytes:
        header = stdout.readline(256).split()
        if len(header) != 3 or header[1] != b"blob":  # noqa: PLR2004 - id, type, size
            said = b" ".join(header).decode("ascii", "replace")
            raise HostError(f"{said or name} cannot be read from the store", expected=f"blob {name}", where="git")
        size = int(header[2])
        if size > self._limit:
            raise HostError(f"blob {name} has {size} bytes", expected=f"at most {self._limit}", where="git")
        content = stdout.read(size)
        if len(content) != size or stdout.read(1) != b"\n":
            raise HostError(f"git cat-file ended in the middle of {name}", where="git")
        return content
