"""The account of a slot: made, known as ours by its mark, removed; and what is left of a number's former owner.

By the system's own tools, which lock its files and keep them whole. Knows nothing of slots' states.
"""

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import subprocess
from collections.abc import Callable, Iterator
from typing import TypeVar

from inbounds.host import groups
from inbounds.host.protocol import uid_of

TOOLS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")
TOOL_SECONDS_MAX = 60  # the tools wait for each other's locks on /etc/passwd, 15 s at most
# Where every user of a host may leave files. A jail can write to none (jailer.py); this is the second look.
SHARED_DIRECTORIES = ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue")  # noqa: S108  # looked at, not written to

Key = TypeVar("Key", str, int)
Entry = TypeVar("Entry")


def tool(name: str, *arguments: str) -> None:
    """Run one of the system's tools; OSError with its own words where it fails or is not there."""
    path = next((f"{place}/{name}" for place in TOOLS if os.access(f"{place}/{name}", os.X_OK)), None)
    if path is None:
        raise OSError(errno.ENOENT, f"this host has no {name}")
    done = subprocess.run(
        [path, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=TOOL_SECONDS_MAX, check=False, env={}
    )
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()[:500]
        raise OSError(errno.EIO, f"{name} {' '.join(arguments)}: {said or done.returncode}")


def name_of(slot: int) -> str:
    """The name of a slot's user and of its group."""
    return f"inbounds-run-{slot}"


def taken(slot: int) -> bool:
    """Whether anybody has the slot's number or name, as a user or as a group."""
    return bool(user_of(slot) or _there(grp.getgrnam, name_of(slot)) or _there(grp.getgrgid, uid_of(slot)))


def user_of(slot: int) -> list[pwd.struct_passwd]:
    """The users that have the slot's number or name."""
    return _there(pwd.getpwnam, name_of(slot)) + _there(pwd.getpwuid, uid_of(slot))


def make(slot: int, mark: str) -> None:
    """A user without home and shell, and a group of the same name and number. EEXIST where anybody has one of these.

    `mark` says whose it is. Whoever has the account has all that the number stands for: groups, rules, processes.
    """
    number, name = str(uid_of(slot)), name_of(slot)
    with _alone():
        if taken(slot):
            raise OSError(errno.EEXIST, f"{name} or {number} is somebody's")
        tool("groupadd", "--system", "--gid", number, name)
        arguments = ["--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin"]
        try:
            tool("useradd", *arguments, "--comment", mark, "--gid", number, "--uid", number, name)
        except OSError:
            tool("groupdel", name)
            raise


def ours(slot: int, mark: str) -> bool:
    """Whether the account is there and carries the mark."""
    return [(user.pw_name, user.pw_gecos) for user in user_of(slot)[:1]] == [(name_of(slot), mark)]


def remove(slot: int, mark: str) -> None:
    """The user and its group are gone; somebody else's stay. Repeatable after a death in between."""
    with _alone():
        if ours(slot, mark):
            tool("userdel", name_of(slot))  # with its group, where the host's settings say so
        if not user_of(slot) and _there(grp.getgrnam, name_of(slot)):
            tool("groupdel", name_of(slot))  # nobody is between making the one and the other


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One service of this host at a time. The file is the account tools' own, and root's alone; their locks differ."""
    fd = os.open("/etc/.pwd.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def leftovers(uid: int) -> list[str]:
    """What is left of a user number's former owner: processes, and files where everybody may write."""
    return [f"process {pid}" for pid in _processes(uid)] + list(_files(uid))


def _processes(uid: int) -> Iterator[str]:
    for name in filter(str.isdigit, os.listdir("/proc")):
        state, uids = groups.status(name)
        if uid in uids and state not in {"", "Z", "X"}:  # one that waits for its parent executes nothing
            yield name


def _files(uid: int) -> Iterator[str]:
    for directory in filter(os.path.isdir, SHARED_DIRECTORIES):
        with os.scandir(directory) as entries:
            for entry in entries:
                try:
                    if entry.stat(follow_symlinks=False).st_uid == uid:
                        yield entry.path
                except FileNotFoundError:
                    continue  # gone meanwhile, as files in such places are


def _there(lookup: Callable[[Key], Entry], key: Key) -> list[Entry]:
    try:
        return [lookup(key)]
    except KeyError:
        return []
