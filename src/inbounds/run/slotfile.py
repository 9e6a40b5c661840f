"""Which slot of the host service a run has, as its directory keeps it.

The one file by which a slot is found again, by a later supervisor and from outside. Knows nothing of the service.
"""

import json
import os
from contextlib import suppress
from pathlib import Path

from inbounds.contracts.errors import HostError

NUMBER = "slot.json"
NUMBER_BYTES_MAX = 256


def number_of(run_dir: Path) -> int | None:
    """The slot that a run has, held or kept; None where it has none."""
    path = run_dir / NUMBER
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            kept = json.loads(file.read(NUMBER_BYTES_MAX))
        return int(kept["slot"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HostError(f"the run's slot is not known: {error}", where=str(path)) from error


def remember(run_dir: Path, number: int) -> None:
    """Keep it, whole or not at all; it is on the disk when this returns."""
    path = run_dir / NUMBER
    temporary = path.with_suffix(".new")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            json.dump({"slot": number}, file)
            file.flush()
            os.fsync(fd)
        temporary.replace(path)
    except OSError as error:
        raise HostError(f"the slot's number cannot be kept: {error.strerror}", where=str(path)) from error


def forget(run_dir: Path) -> None:
    """The run has no slot any more."""
    with suppress(FileNotFoundError):
        (run_dir / NUMBER).unlink()
