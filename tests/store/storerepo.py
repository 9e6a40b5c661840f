"""A real repository to test with: made by plain git, in a directory of the test's own."""

import os
import subprocess
from pathlib import Path

ENV = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "A Person",
    "GIT_AUTHOR_EMAIL": "person@example.com",
    "GIT_COMMITTER_NAME": "A Person",
    "GIT_COMMITTER_EMAIL": "person@example.com",
    "LC_ALL": "C",
}


def git(directory: Path | str, *args: str, check: bool = True) -> str:
    argv = ["git", "-C", str(directory), "-c", "gc.auto=0", *args]  # or it goes on behind the test, in its directory
    done = subprocess.run(argv, env=ENV, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"git {args}: {done.stderr}")
    return (done.stdout if check else done.stdout + done.stderr).strip()


def make(directory: Path, files: dict[str, str | bytes], message: str = "first") -> str:
    """Create the repository with these files in one commit; returns the commit."""
    directory.mkdir(parents=True, exist_ok=True)
    git(directory, "init", "-q", "-b", "main")
    return add(directory, files, message)


def add(directory: Path, files: dict[str, str | bytes], message: str = "more") -> str:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    git(directory, "add", "-A", "-f")
    git(directory, "commit", "-q", "--allow-empty", "-m", message)
    return git(directory, "rev-parse", "HEAD")
