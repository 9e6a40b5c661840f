"""The demo's stage: the bundled example repository, committed, with its contracts and an operator's key of its own.

Lies below the state directory; nothing outside it is written, and no key of the person is touched.
"""

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from inbounds.contracts.errors import HostError
from inbounds.journal import sshsig
from inbounds.journal.sshsig import OperatorKey

THREAD = "billing"


@dataclass(frozen=True, slots=True)
class Stage:
    """A place to play on: the repository, its thread, and the key that signs for it."""

    repository: Path
    key: OperatorKey

    @property
    def thread(self) -> Path:
        """The directory that runs are about."""
        return self.repository / THREAD


def build(home: Path) -> Stage:
    """Make a new stage below the state directory."""
    place = home / "demo" / time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    place = place.with_name(f"{place.name}-{os.getpid()}-{secrets.token_hex(2)}")  # two within a second
    repository = place / "repository"
    place.mkdir(mode=0o700, parents=True)
    source = resources.files("inbounds.demo")
    with resources.as_file(source / "example") as example:
        shutil.copytree(example, repository, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    owned = {"HOME": str(place), "PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"}
    key = sshsig.operator_key(place, owned)
    text = {name: (source / "contracts" / name).read_text(encoding="utf-8") for name in CONTRACTS}
    text["policy.yaml"] = text["policy.yaml"].replace("@OPERATOR@", key.principal).replace("@KEY@", key.public)
    for name, path in CONTRACTS.items():
        target = repository / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text[name], encoding="utf-8")
    _commit(repository, owned)
    return Stage(repository, key)


CONTRACTS: Mapping[str, str] = {
    "policy.yaml": ".inbounds/policy.yaml",
    "config.yaml": f"{THREAD}/.inbounds/config.yaml",
    "requirements.yaml": f"{THREAD}/.inbounds/requirements.yaml",
    "WORK_PLAN.json": f"{THREAD}/.inbounds/WORK_PLAN.json",
}


def _commit(repository: Path, env: Mapping[str, str]) -> None:
    person = ["-c", "user.name=The demo's operator", "-c", "user.email=operator@parcel.example"]
    for argv in (
        ["git", "init", "--quiet", "--initial-branch=main"],
        ["git", "add", "--all"],
        ["git", *person, "commit", "--quiet", "--message", "parcel: billing and shipping"],
    ):
        done = subprocess.run(argv, cwd=repository, env=dict(env), capture_output=True, check=False)
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip()[-300:]
            raise HostError(f"git could not make the example repository: {said}", fix="apt-get install git")
