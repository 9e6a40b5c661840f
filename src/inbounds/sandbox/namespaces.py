"""Whether the jail's user may make user namespaces on this host, by trying; and if not, why, and the one command.

Knows nothing of jails.
"""

import os
import subprocess
from dataclasses import dataclass

from inbounds.sandbox.host import jail_python
from inbounds.sandbox.identity import Identity

TRY_SECONDS_MAX = 60  # it takes milliseconds; a machine full of somebody's processes gives no turn for seconds
CLONE_NEWUSER = 0x10000000

# Makes a user namespace and maps itself into it: AppArmor lets the first succeed and takes the rights away, so both.
# An interpreter below root's HOME must have loaded all that it needs before it drops; and a change of user makes a
# process non-dumpable and its /proc/self root's, which is no fact about namespaces.
ATTEMPT = f"""
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
uid, gid = int(sys.argv[1]), int(sys.argv[2])
if os.getuid() != uid:
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    libc.prctl(4, 1, 0, 0, 0)
if libc.unshare({CLONE_NEWUSER}) == -1:
    sys.exit(os.strerror(ctypes.get_errno()))
try:
    open("/proc/self/uid_map", "w").write(f"{{uid}} {{uid}} 1")
except OSError as error:
    sys.exit(error.strerror)
if libc.unshare(0x40000000) == -1:
    sys.exit(os.strerror(ctypes.get_errno()))
"""

# (the kernel's switch, the value that forbids, the command that allows)
SWITCHES = (
    ("user/max_user_namespaces", "0", "sudo sysctl -w user.max_user_namespaces=15000"),
    ("kernel/unprivileged_userns_clone", "0", "sudo sysctl -w kernel.unprivileged_userns_clone=1"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)
IN_CONTAINER = "start the container with --security-opt seccomp=unconfined --security-opt apparmor=unconfined"


@dataclass(frozen=True, slots=True)
class Forbidden:
    """Why user namespaces can't be made, and the one command (for root) that allows them."""

    why: str
    fix: str


def _switch() -> Forbidden | None:
    for name, forbids, fix in SWITCHES:
        try:
            with open(f"/proc/sys/{name}") as file:
                value = file.read(64).strip()
        except OSError:
            continue  # this kernel has no such switch
        if value == forbids:
            return Forbidden(f"{name.replace('/', '.')} is {value}", fix)
    return None


def namespaces_forbidden(identity: Identity) -> Forbidden | None:
    """None where `identity` can make a user namespace with a network namespace in it; else why not."""
    argv = [jail_python(), "-I", "-S", "-c", ATTEMPT, str(identity.uid), str(identity.gid)]
    try:
        tried = subprocess.run(
            argv, capture_output=True, timeout=TRY_SECONDS_MAX, check=False, stdin=subprocess.DEVNULL, cwd="/", env={}
        )
    except subprocess.TimeoutExpired:
        return Forbidden(f"making one took more than {TRY_SECONDS_MAX} s", "uptime; and try again when it is quieter")
    if tried.returncode == 0:
        return None
    why = tried.stderr.decode("utf-8", "replace").strip()[:200]
    known = _switch()
    if known:
        return Forbidden(f"{known.why} ({why})", known.fix)
    container = os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv")
    return Forbidden(why, IN_CONTAINER if container else SWITCHES[0][2])
