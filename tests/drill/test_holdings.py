"""What an arena holds in the kernel is there while it is wanted, and gone afterwards, whoever removes it."""

import ctypes
import os
import secrets
from pathlib import Path

import pytest

from inbounds.drill.holdings import BOOK, NEEDS, Holdings, release

libc = ctypes.CDLL(None, use_errno=True)


def there(offers: dict[str, object]) -> list[str]:
    """Which of them the kernel still has."""
    found = []
    if libc.shmget(offers["shared_memory"], 0, 0) != -1:
        found.append("shared memory")
    if libc.msgget(offers["queue"], 0) != -1:
        found.append("queue")
    if os.path.exists(str(offers["shared_memory_file"])):
        found.append("file")
    if os.path.exists(str(offers["terminal"])):
        found.append("terminal")
    with open("/proc/keys") as keys:
        key = offers["key"]
        assert isinstance(key, int)
        if any(line.startswith(f"{key:08x} ") and "I--Q---" in line for line in keys):
            found.append("key")
    return found


@pytest.mark.parametrize("ended", ["in order", "killed"])
def test_nothing_is_left(tmp_path: Path, ended: str) -> None:
    token, secret = secrets.token_hex(8), "inbounds-drill-secret"
    held = Holdings(NEEDS, tmp_path, token, secret)
    missing = {"shared_memory", "shared_memory_file", "queue", "key", "terminal"} - set(held.offers)
    if missing:
        held.close()
        pytest.skip(f"this host has no {', '.join(sorted(missing))}")
    assert there(held.offers) == ["shared memory", "queue", "file", "terminal", "key"]
    assert os.environ[f"INBOUNDS_DRILL_{token}"] == secret
    with open(str(held.offers["terminal"]), "wb", buffering=0) as terminal:
        terminal.write(b"four")
    assert held.received == 4
    if ended == "killed":  # what the sweeper does; terminal and environment end with their process
        release(tmp_path / BOOK)
        assert there(held.offers) == ["terminal"]
    held.close()
    assert there(held.offers) == []
    assert f"INBOUNDS_DRILL_{token}" not in os.environ
    assert not (tmp_path / BOOK).exists()


def test_only_what_is_asked_for_is_made(tmp_path: Path) -> None:
    held = Holdings(("terminal",), tmp_path, secrets.token_hex(8), "secret")
    assert set(held.offers) == {"terminal"}
    held.close()
