"""Write many blobs through one git process, and check that git stored what was meant.

Object ids are computed here and compared with git's, so that a caller can name a blob before it is stored. Knows
nothing of paths or trees.
"""

import contextlib
import hashlib
import os
import re
import signal
import subprocess
import tempfile
from types import TracebackType
from typing import IO, Self

from inbounds.contracts.errors import HostError
from inbounds.store import git
from inbounds.store.git import CHUNK

HALF_PACK = re.compile(rb"tmp_pack_[A-Za-z0-9]+")


def blob_id(content: bytes, object_format: str) -> str:
    """The id git gives this content: the hash of "blob <size>NUL" and the bytes; `object_format` sha1 or sha256."""
    digest = hashlib.new(object_format, b"blob %d\0" % len(content), usedforsecurity=False)
    digest.update(content)
    return digest.hexdigest()


class BlobWriter:
    """A context in which `add` stores contents; they are in the store, verified, when the context ends well.

    git fast-import starts at the first addition: storing nothing costs nothing.
    """

    def __init__(self, git_dir: str, object_format: str) -> None:
        """`git_dir` is the store's own directory."""
        self._git_dir, self._format = git_dir, object_format
        self._marks: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch = ""

    def __enter__(self) -> Self:
        return self

    def add(self, content: bytes) -> str:
        """Store one content, return its id. HostError when git has stopped (a full disk, for one)."""
        name = blob_id(content, self._format)
        if name in self._marks:
            return name
        stdin = self._stdin()
        self._marks[name] = len(self._marks) + 1
        try:
            stdin.write(b"blob\nmark :%d\ndata %d\n" % (self._marks[name], len(content)))
            stdin.write(content)
            stdin.write(b"\n")
        except BrokenPipeError:
            raise self._broken() from None
        return name

    def _stdin(self) -> IO[bytes]:
        if self._process is None:
            self._scratch = tempfile.mkdtemp(prefix="inbounds-blobs-", dir=self._git_dir)
            args = ["fast-import", "--quiet", "--done", f"--export-marks={self._scratch}/marks"]
            self._process = subprocess.Popen(
                git.command(args, git_dir=self._git_dir),
                cwd="/",
                env=git.environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,  # a few lines with --quiet, read at the end; no file: the disk may be full
                start_new_session=True,
            )
        if self._process.stdin is None:
            raise HostError("git fast-import was started without a pipe", where="git")
        return self._process.stdin

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None and self._process is not None:
                self._finish(self._process)
        finally:
            self._close()

    def _finish(self, process: "subprocess.Popen[bytes]") -> None:
        try:
            self._stdin().write(b"done\n")
            self._stdin().close()
        except BrokenPipeError:
            raise self._broken() from None
        try:
            if process.wait(git.TIMEOUT_S):
                raise self._broken()
        except subprocess.TimeoutExpired:
            raise HostError(f"git fast-import took longer than {git.TIMEOUT_S:.0f} s", where="git") from None
        with open(f"{self._scratch}/marks", encoding="ascii") as file:
            stored = {words[1]: int(words[0][1:]) for words in (line.split() for line in file)}
        if stored != self._marks:
            raise HostError("git stored other objects than were given to it", expected="equal object ids", where="git")

    def _broken(self) -> HostError:
        process = self._process
        if process is None or process.stderr is None:
            return HostError("git fast-import did not start", where="git")
        with contextlib.suppress(subprocess.TimeoutExpired):  # its words are worth more than its status
            process.wait(10)
        words = os.read(process.stderr.fileno(), CHUNK)
        for name in set(HALF_PACK.findall(words)):  # git leaves it, and it may be what fills the disk
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self._git_dir, "objects", "pack", os.fsdecode(name)))
        return git.failed(["fast-import"], process.returncode or 0, words)

    def _close(self) -> None:
        process = self._process
        if process is not None:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):  # it may end between the two calls
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            for stream in (process.stdin, process.stderr):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):  # unsent input of a process that has ended
                        stream.close()
            with contextlib.suppress(FileNotFoundError):  # what git leaves behind when it fails; its words are in ours
                os.unlink(f"{self._git_dir}/fast_import_crash_{process.pid}")
        if self._scratch:
            with contextlib.suppress(FileNotFoundError):  # written at a good end only
                os.unlink(f"{self._scratch}/marks")
            os.rmdir(self._scratch)
