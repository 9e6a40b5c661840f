"""Releases of public projects as git histories: sdists by pip, tarballs by npm, one commit a release.

For benches on a host that reaches registries and no forge. Knows nothing of what is measured on them; a release that
cannot be had is left out and named.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

RELEASES_MAX = 15  # consecutive releases of one project, newest last: about two years of most
ARCHIVE_BYTES_MAX = 64 << 20  # unpacked; the projects named here are below 10 MiB
FINAL = re.compile(r"\d+(\.\d+)*")  # pre-releases are left out: they are not what a project calls a change
ENV = {
    **{key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ},
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "A release",
    "GIT_AUTHOR_EMAIL": "release@example.com",
    "GIT_COMMITTER_NAME": "A release",
    "GIT_COMMITTER_EMAIL": "release@example.com",
    "GIT_AUTHOR_DATE": "@0 +0000",
    "GIT_COMMITTER_DATE": "@0 +0000",
}


def history(project: str, place: Path, python: str = sys.executable) -> tuple[Path, list[str]]:
    """A repository at `place`/`project` with a commit a release, and what could not be had.

    `project` is "pypi:NAME" or "npm:NAME". `python` has pip and the projects' build back ends: pip asks them for
    metadata when it downloads an sdist.
    """
    registry, _, name = project.partition(":")
    repository = place / f"{registry}-{name.replace('/', '-')}"
    if (repository / ".git").exists():
        return repository, []
    repository.mkdir(parents=True)
    _git(repository, "init", "-q", "-b", "main")
    missing = []
    for version in (_pypi_versions if registry == "pypi" else _npm_versions)(name, python):
        fetched = place / "fetched" / f"{registry}-{name.replace('/', '-')}-{version}"
        fetched.mkdir(parents=True, exist_ok=True)
        archive = (_pypi if registry == "pypi" else _npm)(name, version, fetched, python)
        if archive is None:
            missing.append(f"{project} {version}")
            continue
        for old in repository.iterdir():
            if old.name != ".git":
                shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        _unpack(archive, repository)
        _git(repository, "add", "-A", "-f")
        _git(repository, "commit", "-q", "--allow-empty", "-m", version)
    return repository, missing


def _pypi_versions(name: str, python: str) -> list[str]:
    said = _run([python, "-m", "pip", "index", "versions", name])
    found = re.search(r"Available versions: (.*)", said)
    return _newest(found[1].split(", ") if found else [])


def _npm_versions(name: str, _: str) -> list[str]:
    return _newest(list(reversed(re.findall(r"'([^']+)'", _run(["npm", "view", name, "versions"], maximum=100_000)))))


def _newest(versions: list[str]) -> list[str]:
    """The newest final releases, oldest of them first."""
    return [version for version in versions if FINAL.fullmatch(version)][:RELEASES_MAX][::-1]


def _pypi(name: str, version: str, into: Path, python: str) -> Path | None:
    if not list(into.glob("*.tar.gz")):
        _run([python, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "--no-build-isolation",
              "-d", str(into), f"{name}=={version}"])  # fmt: skip
    return next(iter(into.glob("*.tar.gz")), None)


def _npm(name: str, version: str, into: Path, _: str) -> Path | None:
    if not list(into.glob("*.tgz")):
        _run(["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", str(into), f"{name}@{version}"])
    return next(iter(into.glob("*.tgz")), None)


def _unpack(archive: Path, into: Path) -> None:
    """Regular files below the archive's one top directory."""
    total = 0
    with tarfile.open(archive) as tar:
        for member in tar:
            _, _, path = member.name.partition("/")
            total += member.size
            if not member.isreg() or not path or ".." in path.split("/") or path.startswith(".git/"):
                continue
            if total > ARCHIVE_BYTES_MAX:
                raise SystemExit(f"{archive.name} unpacks to more than {ARCHIVE_BYTES_MAX} bytes")
            reader = tar.extractfile(member)
            assert reader is not None
            target = into / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(reader.read())
            target.chmod(0o755 if member.mode & 0o100 else 0o644)


def _git(repository: Path, *args: str) -> str:
    return _run(["git", "-C", str(repository), *args], env=ENV)


def _run(argv: list[str], *, env: dict[str, str] | None = None, maximum: int = 10_000_000) -> str:
    """What a command printed; "" where it failed: the release is then missing, and named."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env, timeout=600)
    return done.stdout[:maximum] if done.returncode == 0 else ""
