"""Decoys are noticed from the host when a jailed process opens one, and only then."""

import base64
import struct
import time
from pathlib import Path

import pytest
from jailrig import Rig

from inbounds.sandbox.decoys import Decoys


@pytest.fixture
def opened(rig: Rig) -> list[str]:
    return []


def test_opening_one_is_an_event_and_listing_is_none(rig: Rig, opened: list[str]) -> None:
    decoys = Decoys(rig.scratch / "decoys", rig.identity, opened.append)
    try:
        ended = rig.run("sh", "-c", "ls -laR ~ >/dev/null; stat ~/.aws/credentials >/dev/null", decoys=decoys.files)
        assert ended.end.exit_code == 0, ended.stderr
        time.sleep(0.1)
        assert opened == []
        script = "cat ~/.aws/credentials; cat ~/.kube/config; echo x > ~/.ssh/id_ed25519; rm ~/.ssh/id_ed25519"
        ended = rig.run("sh", "-c", script, decoys=decoys.files)
    finally:
        decoys.close()
    assert set(opened) == {".aws/credentials", ".kube/config"}
    assert decoys.markers[".aws/credentials"] in ended.stdout
    assert "Permission denied" in ended.stderr or "Read-only" in ended.stderr
    assert not any(Path(path).exists() for path in decoys.files.values())


def test_each_run_has_its_own_and_they_look_real(rig: Rig, opened: list[str]) -> None:
    first = Decoys(rig.scratch / "a", rig.identity, opened.append)
    second = Decoys(rig.scratch / "b", rig.identity, opened.append)
    try:
        assert not set(first.markers.values()) & set(second.markers.values())
        for name, marker in first.markers.items():
            assert marker in Path(first.files[name]).read_text()
        body = Path(first.files[".ssh/id_ed25519"]).read_text().splitlines()[1:-1]
        raw = base64.b64decode("".join(body))
        assert raw.startswith(b"openssh-key-v1\0")
        assert struct.pack(">I", 11) + b"ssh-ed25519" in raw
    finally:
        first.close()
        second.close()
