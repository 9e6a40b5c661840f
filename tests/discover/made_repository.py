"""Real repositories for the tests of discover; starts git with nothing of this host's configuration."""

import os
import subprocess
from pathlib import Path

ADA = ("Ada", "ada@example.com")


def run(top: Path, *args: str, author: tuple[str, str] = ADA) -> str:
    """A git command in `top`, in the author's name."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent/inbounds",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": author[0],
        "GIT_AUTHOR_EMAIL": author[1],
        "GIT_COMMITTER_NAME": author[0],
        "GIT_COMMITTER_EMAIL": author[1],
    }
    return subprocess.run(["git", *args], cwd=top, env=env, capture_output=True, text=True, check=True).stdout


def write(top: Path, files: dict[str, str]) -> None:
    """Files below `top`, with the directories that they need."""
    for name, text in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text)


def commit(top: Path, files: dict[str, str], name: str = ADA[0], email: str = ADA[1]) -> str:
    """One commit of these files by that person; its id."""
    write(top, files)
    run(top, "add", "-A")
    run(top, "commit", "-q", "-m", "work", author=(name, email))
    return run(top, "rev-parse", "HEAD").strip()


def repository(top: Path, files: dict[str, str], author: tuple[str, str] = ADA) -> Path:
    """A new repository with one commit."""
    top.mkdir(exist_ok=True)
    run(top, "init", "-q", "-b", "main")
    commit(top, files, *author)
    return top
