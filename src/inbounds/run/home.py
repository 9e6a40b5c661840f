"""Where inbounds keeps its state: one directory, 0700, with a version; runs, stores, layers, keys and the ledger in it.

The location comes from $INBOUNDS_HOME or the XDG state directory; the environment chooses where, never what is allowed.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inbounds.contracts.errors import HostError, OperatorError
from inbounds.contracts.ids import RUN_ID

STATE_VERSION = 1  # raised with a migration in `_migrate`; a newer one found on disk is refused
_PREFIX = re.compile(r"[0-9a-f-]{2,32}")


@dataclass(frozen=True, slots=True)
class Home:
    """The state directory and the places below it."""

    path: Path

    @property
    def ledger(self) -> Path:
        """The gateway's ledger."""
        return self.path / "ledger.sqlite"

    @property
    def layers(self) -> Path:
        """Dependency layers, one directory per key."""
        return self.path / "layers"

    @property
    def stores(self) -> Path:
        """Trusted git stores, one directory per repository."""
        return self.path / "stores"

    @property
    def keys(self) -> Path:
        """Provider keys (0600 files) where the system has no keyring."""
        return self.path / "keys"

    @property
    def signed(self) -> Path:
        """Signatures over start statements, by the statement's hash."""
        return self.path / "signed"

    def run(self, run_id: str) -> Path:
        """The directory of one run."""
        return self.path / "runs" / run_id

    def runs(self) -> Iterator[str]:
        """Run ids, newest first."""
        try:
            names = os.listdir(self.path / "runs")
        except FileNotFoundError:
            return
        yield from sorted((name for name in names if RUN_ID.fullmatch(name)), reverse=True)

    def find(self, text: str | None) -> str:
        """The run that a person means: an id, an unambiguous part of one, or the latest when nothing is said."""
        runs = list(self.runs())
        if not runs:
            raise OperatorError("there is no run yet", where=str(self.path), fix="inbounds run . --goal … --accept …")
        if text in (None, "", "latest"):
            return runs[0]
        assert text is not None
        if text in runs:
            return text
        hits = [run for run in runs if text in run] if _PREFIX.fullmatch(text) else []
        if len(hits) == 1:
            return hits[0]
        what = f"{text!r} names {len(hits)} runs" if hits else f"no run is named {text!r}"
        raise OperatorError(what, expected="one of: " + ", ".join((hits or runs)[:5]), fix="inbounds status")


def locate() -> Path:
    """The state directory's path, existing or not."""
    explicit = os.environ.get("INBOUNDS_HOME")
    if explicit:
        return Path(explicit).absolute()
    state = os.environ.get("XDG_STATE_HOME")
    base = Path(state) if state and Path(state).is_absolute() else Path.home() / ".local" / "state"
    return base / "inbounds"


def open_home(path: Path | None = None) -> Home:
    """Make or check the state directory; HostError if it is not ours, not private, or of a newer version."""
    path = Path(os.path.realpath(path or locate()))  # a bind source must not pass through a symbolic link
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = path.stat()
        if info.st_uid != os.geteuid():
            raise HostError(
                f"the state directory belongs to uid {info.st_uid}",
                where=str(path),
                expected=f"uid {os.geteuid()}",
                fix="export INBOUNDS_HOME=/a/directory/of/your/own",
            )
        if stat.S_IMODE(info.st_mode) & 0o077:
            path.chmod(0o700)
        for part in ("runs", "layers", "stores", "keys", "signed"):
            (path / part).mkdir(mode=0o700, exist_ok=True)
        _check_version(path)
    except OSError as error:
        raise HostError(
            f"the state directory cannot be used: {error.strerror}",
            where=str(path),
            fix="export INBOUNDS_HOME=/a/directory/of/your/own",
        ) from error
    return Home(path)


def _check_version(path: Path) -> None:
    file = path / "VERSION"
    try:
        text = file.read_bytes().decode("ascii", "replace").strip()
    except FileNotFoundError:
        file.write_text(f"{STATE_VERSION}\n", encoding="ascii")
        return
    if not text.isdigit() or int(text) > STATE_VERSION:
        raise HostError(
            f"the state directory has version {text[:20]!r}",
            where=str(file),
            expected=f"at most {STATE_VERSION}",
            fix="upgrade inbounds: pipx upgrade inbounds",
        )
    if int(text) < STATE_VERSION:
        _migrate(path, int(text))


def _migrate(path: Path, found: int) -> None:
    """Bring an older state directory to this version, step by step; version 0 had no `signed` directory."""
    assert found < STATE_VERSION
    (path / "VERSION").write_text(f"{STATE_VERSION}\n", encoding="ascii")
