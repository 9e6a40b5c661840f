"""`inbounds shell … -- COMMAND` over a visit that was prepared before: found, checked and entered in few imports.

What is kept (run/kept.py writes it) is used only if it is this user's alone and each thing that it was made from is as
it was: HEAD, the contracts' bytes, policy's mode, the layer, inbounds itself, bubblewrap, the interpreter, the kernel.
Anything else is None: the caller goes the long way. Decides nothing that a long visit would decide otherwise.
"""

from __future__ import annotations

import fcntl
import marshal
import os
import stat
import sys

from inbounds import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from inbounds.sandbox.short import Short
    from inbounds.store.twin import Listed

FORMAT = 1
VISITS, META, TREE = "visits", "meta", "tree"
META_BYTES_MAX = 32 << 20  # 200 bytes for each of twenty thousand files, and the contracts
ROLES = ("coder", "tester")
PREFIX, UNLOCKED, LOCK = "inbounds-shell-", "inbounds-new-shell-", "lock"
LEFT_MAX = 3  # directories of other visits; with more, the long way looks whose they are, and deletes
SIGNAL_BASE = 128  # a shell's own convention for a command that a signal ended
INTERRUPTED, KILLED = SIGNAL_BASE + 2, 9
LEVELS_MAX = 64  # as in discover/repository.py
REF_BYTES_MAX, PACKED_BYTES_MAX = 4_096, 64 << 20
SERVICE = "INBOUNDS_HOST_SOCKET"  # as hardened.PLACE
DOCUMENT_BYTES_MAX = 1 << 20
DIGITS = frozenset("0123456789abcdef")
CONTRACTS = ".inbounds"
POLICY = ("policy.yaml",)
THREAD = ("config.yaml", "requirements.yaml", "WORK_PLAN.json")


class OddError(Exception):
    """Not the ordinary case: the long way knows what to say of it."""


def visit(words: list[str]) -> int | None:
    """The exit code of `shell WORDS`, or None where nothing was run and the long way is to be gone."""
    made = Quick()
    try:
        try:
            made.prepare(words)
        except (OddError, OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return made.run()
    finally:
        made.close()


def parse(words: list[str]) -> tuple[str, str, list[str]]:
    """DIRECTORY, role and command, where the line has just these; OddError, or ValueError where there is no --."""
    at = words.index("--")
    before, argv = words[:at], words[at + 1 :]
    role = "coder"
    if len(before) >= 2 and before[-2] == "--role":  # noqa: PLR2004  # an option and its value
        role, before = before[-1], before[:-2]
    if not argv or len(before) > 1 or any(word.startswith("-") for word in before) or role not in ROLES:
        raise OddError(before)
    return (before[0] if before else "."), role, argv


# -- what this visit would be of


def locate() -> str:
    """The state directory, ours and private, as home.open_home would have it; OddError where it is anything else."""
    path = os.environ.get("INBOUNDS_HOME") or ""
    if not path:
        state = os.environ.get("XDG_STATE_HOME") or ""
        path = os.path.join(state if state.startswith("/") else os.path.expanduser("~/.local/state"), "inbounds")
    path = os.path.realpath(path)
    _ours(path, stat.S_IFDIR)
    return path


def place(directory: str) -> tuple[str, str]:
    """The repository's top, which has a plain .git directory, and the thread's path in it."""
    here = os.path.realpath(directory, strict=True)
    top = here
    for _ in range(LEVELS_MAX):
        try:
            about = os.lstat(os.path.join(top, ".git"))
        except FileNotFoundError:
            if top == "/":
                break
            top = os.path.dirname(top)
            continue
        if stat.S_ISDIR(about.st_mode):
            return top, os.path.relpath(here, top)
        break
    raise OddError(directory)


def head(top: str) -> str:
    """The commit that HEAD stands at, read as git keeps it in the ordinary case: a loose ref, or a packed one."""
    git = os.path.join(top, ".git")
    text = _read(os.path.join(git, "HEAD"), REF_BYTES_MAX).decode("ascii")
    if text.startswith("ref: "):
        ref = text[5:].strip()
        if not ref.startswith("refs/heads/") or ".." in ref or "//" in ref or os.path.lexists(f"{git}/commondir"):
            raise OddError(ref)
        try:
            text = _read(os.path.join(git, ref), REF_BYTES_MAX).decode("ascii")
        except FileNotFoundError:
            text = _packed(git, ref)
    commit = text.strip()
    if len(commit) not in (40, 64) or not DIGITS.issuperset(commit):
        raise OddError(commit)
    return commit


def _packed(git: str, ref: str) -> str:
    wanted = f" {ref}".encode()
    for line in _read(os.path.join(git, "packed-refs"), PACKED_BYTES_MAX).split(b"\n"):
        if line.endswith(wanted) and not line.startswith((b"#", b"^")):
            return line[: -len(wanted)].decode("ascii")
    raise OddError(ref)


def found(home: str, top: str, thread: str, role: str) -> dict[str, Any]:
    """Everything that must be the same, but for what is looked at file by file."""
    about = os.stat(os.path.join(top, thread))
    system = os.uname()
    return {
        "format": FORMAT,
        "version": __version__,
        "python": (sys.version, sys.executable, sys.base_prefix, getattr(sys, "_base_executable", "")),
        "system": (system.sysname, system.release, system.version, system.machine),
        "user": (os.getuid(), os.geteuid(), os.getgid(), os.getegid()),
        "home": (home, _read(os.path.join(home, "VERSION"), REF_BYTES_MAX)),
        "service": os.environ.get(SERVICE) or "",
        "top": top,
        "thread": thread,
        "place": (about.st_dev, about.st_ino),
        "role": role,
        "commit": head(top),
        "documents": documents(top, thread),
    }


def documents(top: str, thread: str) -> dict[str, bytes | None]:
    """The contract files' bytes by path; None for one that is not there. A link among them is odd."""
    wanted = [(top, POLICY), (os.path.normpath(os.path.join(top, thread)), THREAD)]
    read: dict[str, bytes | None] = {}
    for directory, names in wanted:
        contracts = os.path.join(directory, CONTRACTS)
        if not stat.S_ISDIR(os.lstat(contracts).st_mode):
            raise OddError(contracts)
        for name in names:
            path = os.path.join(contracts, name)
            try:
                read[path] = _read(path, DOCUMENT_BYTES_MAX)
            except FileNotFoundError:
                read[path] = None
    return read


def name_of(facts: dict[str, Any]) -> str:
    """The directory's name of what is kept for these; a wrong hit does no harm, all of them are compared."""
    device, inode = facts["place"]
    return f"{facts['commit'][:16]}-{facts['role']}-{device:x}-{inode:x}"


def state(path: str) -> tuple[Any, ...] | None:
    """What tells a file, link or directory from a later one at its path; None for what is not there."""
    try:
        about = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISLNK(about.st_mode):
        return (about.st_mode, os.readlink(path))
    identity = (about.st_mode, about.st_uid, about.st_dev, about.st_ino)
    if stat.S_ISDIR(about.st_mode):
        return identity
    return (*identity, about.st_size, about.st_mtime_ns, about.st_ctime_ns)


# -- what is kept


def load(entry: str, facts: dict[str, Any]) -> dict[str, Any]:
    """What is kept, if it is ours alone and made of these facts; OddError where it is not."""
    for path in (os.path.dirname(entry), entry, os.path.join(entry, TREE)):
        _ours(path, stat.S_IFDIR)
    path = os.path.join(entry, META)
    raw = _read(path, META_BYTES_MAX)
    _ours(path, stat.S_IFREG)
    kept = marshal.loads(raw)  # noqa: S302  # written by this user in a directory that is nobody else's
    if not isinstance(kept, dict) or kept["facts"] != facts:
        raise OddError(entry)
    for watched, was in kept["watched"].items():
        if state(watched) != was:
            raise OddError(watched)
    os.utime(path)  # the one that was used longest ago goes first
    return kept


def _ours(path: str, kind: int) -> None:
    """OddError unless it is of this kind, belongs to this user, and nobody else can enter or read it."""
    about = os.lstat(path)
    if stat.S_IFMT(about.st_mode) != kind or about.st_uid != os.geteuid() or stat.S_IMODE(about.st_mode) & 0o077:
        raise OddError(path)


def _read(path: str, most: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb", buffering=0) as file:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode) or about.st_size > most:
            raise OddError(path)
        return file.read(most)


# -- the visit


class Quick:
    """One visit; `prepare` says by an exception that it can't be one, `close` leaves nothing."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.scratch, self.lock = "", -1
        self.jail: Short | None = None
        self.output_max = 0

    def prepare(self, words: list[str]) -> None:
        """Everything up to the sealed jail; nothing of the command has run."""
        asked = parse(words)
        for standard in (0, 1, 2):
            os.fstat(standard)
        home = locate()
        facts = found(home, *place(asked[0]), asked[1])
        entry = os.path.join(home, VISITS, name_of(facts))
        kept = load(entry, facts)
        from inbounds.sandbox import short
        from inbounds.store import twin

        uid, gid = _user()
        self.scratch, self.lock = _scratch(home)
        workspace = os.path.join(self.scratch, "workspace")
        os.mkdir(workspace, 0o700)
        self.output_max = kept["jail"]["output_bytes"]
        try:
            _fill(entry, workspace, kept, uid, gid)
            sources = tuple(os.path.join(workspace, path) if ours else path for ours, path in kept["sources"])
            self.jail = short.Short(kept["jail"], tuple(asked[2]), sources, uid, gid)
            self.jail.await_seal()
        except (twin.OtherError, short.NotNowError) as error:
            raise OddError from error

    def run(self) -> int:
        """Let the command start, and pass its exit code on."""
        from inbounds.sandbox.short import number

        assert self.jail is not None
        try:
            words, written = self.jail.run((1, 2))
        except KeyboardInterrupt:
            return INTERRUPTED
        except BrokenPipeError:
            return 1
        if words.get("end") != "exited":
            why = words.get("detail") or "ended by its limits"
            sys.stderr.write(f"inbounds: the jail {words.get('end') or 'failed'}: {why}\n")
        if (lost := max(written) - self.output_max) > 0:
            sys.stderr.write(f"inbounds: {lost} bytes of output were not kept\n")
        ended_by = number(words.get("signal", "0")) if words else KILLED
        return number(words.get("code", "0")) or (SIGNAL_BASE + ended_by if ended_by else 0)

    def close(self) -> None:
        """End the jail and delete the checkout."""
        if self.jail is not None:
            self.jail.close()
        if self.scratch:
            _delete(self.scratch)
            os.close(self.lock)


def _user() -> tuple[int, int]:
    """Whose the jail is: this user's own, or as root a number that is nobody's."""
    if os.getuid() != 0:
        return os.getuid(), os.getgid()
    from inbounds.sandbox.numbers import first_free, turned

    number = first_free(turned(os.getpid()))
    if not number:
        raise OddError("every user number is taken")
    return number, number


def _scratch(home: str) -> tuple[str, int]:
    """A directory of this visit's own, and its lock; as scratch.Scratch makes it."""
    if sum(name.startswith(PREFIX) for name in os.listdir(home)) > LEFT_MAX:
        raise OddError("visits that were killed")
    name = f"{os.getpid()}-{os.urandom(6).hex()}"
    made, path = os.path.join(home, UNLOCKED + name), os.path.join(home, PREFIX + name)
    os.mkdir(made, 0o700)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    lock = os.open(os.path.join(made, LOCK), flags, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.rename(made, path)
    return path, lock


def _fill(entry: str, workspace: str, kept: dict[str, Any], uid: int, gid: int) -> None:
    """A checkout of the visit's own."""
    from inbounds.store import twin

    files: list[Listed] = kept["files"]
    given = (uid, gid) if os.getuid() == 0 else (-1, -1)
    made = twin.copy(os.path.join(entry, TREE), workspace, files, *given)
    index, below = kept["index"]
    if not twin.true_index(os.path.join(workspace, index), len(kept["facts"]["commit"]), below, made):
        raise OddError(index)


def _delete(path: str) -> None:
    """Delete it; nobody writes there any more. What is deeper or stranger than usual is for those who know how."""
    try:
        _empty(path)
        os.rmdir(path)
    except (OSError, RecursionError):
        from inbounds.store.descent import delete_tree

        delete_tree(path)


def _empty(path: str) -> None:
    with os.scandir(path) as entries:
        inside = list(entries)
    for entry in inside:
        if entry.is_dir(follow_symlinks=False):
            _empty(entry.path)
            os.rmdir(entry.path)
        else:
            os.unlink(entry.path)
