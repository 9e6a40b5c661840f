"""Write many blobs, and a tree with them in it, through one git process, and check that git stored what was meant.

Blobs' ids are computed here and compared with git's, so that a caller can name one before it is stored. Knows nothing
of work trees: no file is ever read.
"""

import contextlib
import hashlib
import os
import re
import select
import signal
import subprocess
import tempfile
from collections.abc import Iterable
from types import TracebackType
from typing import IO, Self

from inbounds.contracts.errors import HostError
from inbounds.store import git
from inbounds.store.git import CHUNK

HALF_PACK = re.compile(rb"tmp_pack_[A-Za-z0-9]+")
TREE = re.compile(rb"040000 tree ([0-9a-f]{40}|[0-9a-f]{64})\t\n")
ANSWER_BYTES_MAX = 256


def blob_id(content: bytes, object_format: str) -> str:
    """The id git gives this content: the hash of "blob <size>NUL" and the bytes; `object_format` sha1 or sha256."""
    digest = hashlib.new(object_format, b"blob %d\0" % len(content), usedforsecurity=False)
    digest.update(content)
    return digest.hexdigest()


# A commit is what fast-import makes trees for. The branch is forgotten again at once: no ref is ever written.
SCRATCH = b"refs/inbounds/scratch"
# One pack for all, which git syncs to the disk: as many loose files would be slower, and no power loss must cut them.
# Content that was written a moment ago is not worth git's search for likeness nor its best compression.
CONFIG = {"fastimport.unpackLimit": "0", "pack.compression": "1"}


class ObjectWriter:
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

    def add(self, content: bytes, *, stored: str = "") -> str:
        """Store one content, return its id; `stored` is one that is known to be in the store.

        HostError when git has stopped (a full disk, for one).
        """
        name = blob_id(content, self._format)
        if name == stored or name in self._marks:
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

    def tree(self, base: str, removed: Iterable[str], added: Iterable[tuple[str, int, str]]) -> str:
        """The tree `base` without these paths, then with these (path, mode, blob); stored when the context ends well.

        A file may replace a directory, and the reverse; directories that become empty go. The price is that of the
        directories on the way to what changes. HostError for a blob that is neither in the store nor added.
        """
        stdin = self._stdin()
        lines = [b"commit %s\ncommitter inbounds <> 0 +0000\ndata 0\n" % SCRATCH]
        lines.append(b'M 040000 %s ""\n' % base.encode("ascii"))
        lines += [b"D %s\n" % _quoted(path) for path in removed]
        lines += [b"M %o %s %s\n" % (mode, self._named(blob), _quoted(path)) for path, mode, blob in added]
        lines.append(b'ls ""\nreset %s\n\n' % SCRATCH)
        try:
            stdin.writelines(lines)
            stdin.flush()
        except BrokenPipeError:
            raise self._broken() from None
        return self._answer()

    def _named(self, blob: str) -> bytes:
        return b":%d" % self._marks[blob] if blob in self._marks else blob.encode("ascii")

    def _answer(self) -> str:
        """What `ls` says of a tree: "040000 tree <id>TAB<path>"."""
        process = self._process
        if process is None or process.stdout is None:
            raise HostError("git fast-import was started without a pipe", where="git")
        if not select.select([process.stdout], [], [], git.TIMEOUT_S)[0]:
            raise HostError(f"git fast-import took longer than {git.TIMEOUT_S:.0f} s", where="git")
        said = TREE.fullmatch(process.stdout.readline(ANSWER_BYTES_MAX))
        if said is None:
            raise self._broken()
        return said[1].decode("ascii")

    def _stdin(self) -> IO[bytes]:
        if self._process is None:
            self._scratch = tempfile.mkdtemp(prefix="inbounds-blobs-", dir=self._git_dir)
            args = ["fast-import", "--quiet", "--done", "--depth=0", f"--export-marks={self._scratch}/marks"]
            self._process = subprocess.Popen(
                git.command(args, git_dir=self._git_dir, config=CONFIG),
                cwd="/",
                env=git.environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,  # a line a tree
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
        if process.poll() is None:
            process.kill()
            process.wait()
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
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):  # unsent input of a process that has ended
                        stream.close()
            with contextlib.suppress(FileNotFoundError):  # what git leaves behind when it fails; its words are in ours
                os.unlink(f"{self._git_dir}/fast_import_crash_{process.pid}")
        if self._scratch:
            with contextlib.suppress(FileNotFoundError):  # written at a good end only
                os.unlink(f"{self._scratch}/marks")
            os.rmdir(self._scratch)


def _quoted(path: str) -> bytes:
    """A path as fast-import reads it: in C's quotes, where all but three signs stand for themselves."""
    raw = os.fsencode(path).replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    return b'"' + raw + b'"'
