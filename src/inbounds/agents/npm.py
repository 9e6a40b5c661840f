"""Where npm, and the installers that imitate it, put a command, its package and its native program.

Reads file names and package.json only; runs nothing but a found program's own --version.
"""

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

# Where global packages end up besides what is on the search path; ~ is the operator's.
GLOBAL_PLACES = (
    "/usr/local/bin",
    "/usr/bin",
    "~/.npm-global/bin",
    "~/.local/bin",
    "~/.local/share/pnpm",
    "~/.bun/bin",
    "~/.volta/bin",
    "/opt/homebrew/bin",
)
VERSION_SECONDS_MAX = 20
MANIFEST_BYTES_MAX = 1 << 20
_VERSION = re.compile(r"\d+\.\d+\.\d+[\w.+-]*")


def architecture() -> str:
    """This machine as npm names it; anything unknown is passed on and simply not found."""
    return {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def commands(name: str, search_path: Sequence[Path]) -> Iterator[Path]:
    """Give every place that has this command, project-local ones first, links resolved."""
    places = [found for base in search_path for found in (base, base / "node_modules" / ".bin")]
    places += [Path(place).expanduser() for place in GLOBAL_PLACES]
    seen: set[Path] = set()
    for place in places:
        try:
            found = (place / name).resolve(strict=True)
        except OSError:
            continue
        if found.is_file() and found not in seen:
            seen.add(found)
            yield found


def package_of(program: Path, package: str) -> Path | None:
    """Give the directory of the npm package that a command belongs to."""
    return next((above for above in program.parents if manifest(above).get("name") == package), None)


def manifest(package: Path) -> dict[str, object]:
    """Read a package.json; empty when there is none that can be read."""
    try:
        with (package / "package.json").open("rb") as held:
            made = json.loads(held.read(MANIFEST_BYTES_MAX))
    except (OSError, ValueError):
        return {}
    return made if isinstance(made, dict) else {}


def beside(package: Path, name: str) -> Iterator[Path]:
    """Give the places of a package's dependency: its own node_modules, then its neighbours'."""
    yield package / "node_modules" / name
    for above in package.parents:
        if above.name == "node_modules":
            yield above / name


def is_native(program: Path) -> bool:
    """Whether it is a program for the kernel and not a script (ELF, as the native installers place)."""
    try:
        with program.open("rb") as held:
            return held.read(4) == b"\x7fELF"
    except OSError:
        return False


def version_of(program: Path, package: Path | None) -> str:
    """Give the version from package.json, from the file's own name, or from the program itself."""
    declared = manifest(package).get("version") if package else None
    if isinstance(declared, str):
        return declared
    if _VERSION.fullmatch(program.name):
        return program.name
    try:
        done = subprocess.run(
            [str(program), "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=VERSION_SECONDS_MAX,
            check=False,
            stdin=subprocess.DEVNULL,
            env={"HOME": "/nonexistent", "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    found = _VERSION.search(done.stdout)
    return found[0] if found else "unknown"


def sha256(*programs: Path) -> str:
    """Hash one program, or the list of several with their names."""
    sums = []
    for program in programs:
        with program.open("rb") as held:
            sums.append(hashlib.file_digest(held, "sha256").hexdigest())
    if len(sums) == 1:
        return sums[0]
    listed = "".join(f"{one}  {program.name}\n" for one, program in zip(sums, programs, strict=True))
    return hashlib.sha256(os.fsencode(listed)).hexdigest()
