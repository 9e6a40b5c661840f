"""The signing key on a real file system: made once, whole, for its owner alone, and handed over by descriptor."""

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from inbounds.contracts.errors import HostError
from inbounds.journal import ed25519, note, signing


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def test_the_key_is_made_once_and_for_its_owner_alone(keys: Path) -> None:
    old = os.umask(0)
    try:
        secret = signing.read_key(keys)
    finally:
        os.umask(old)
    assert len(secret) == signing.KEY_BYTES
    assert signing.read_key(keys) == secret
    assert (keys / "journal.key").read_bytes() == secret
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    assert stat.S_IMODE((keys / "journal.key").stat().st_mode) == 0o600
    assert sorted(os.listdir(keys)) == ["journal.key", "journal.pub"]
    signer = signing.open_signer(keys)
    assert signing.public_key(keys) == signer.key == note.parse_key((keys / "journal.pub").read_text())
    assert ed25519.verify(signer.key.public, b"text", signer.sign_raw(b"text"))


def test_two_state_directories_have_two_keys(tmp_path: Path) -> None:
    assert signing.read_key(tmp_path / "a") != signing.read_key(tmp_path / "b")


def test_many_who_want_the_first_key_at_once_get_one(keys: Path) -> None:
    script = """
import sys
from pathlib import Path
from inbounds.journal import signing
print("ready", flush=True)
sys.stdin.readline()
print(signing.read_key(Path(sys.argv[1])).hex())
"""
    command = [sys.executable, "-c", script, str(keys)]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=0) for _ in range(5)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        found = {child.communicate("go\n", timeout=30)[0] for child in children}
    finally:
        for child in children:
            child.kill()
            child.wait()
    assert found == {f"{signing.read_key(keys).hex()}\n"}
    assert sorted(os.listdir(keys)) == ["journal.key", "journal.pub"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_a_key_that_others_can_reach_is_not_used(keys: Path, mode: int) -> None:
    signing.read_key(keys)
    (keys / "journal.key").chmod(mode)
    with pytest.raises(HostError, match="others can read or change it") as caught:
        signing.read_key(keys)
    assert caught.value.fix == f"chmod 600 {keys / 'journal.key'}"
    (keys / "journal.key").chmod(0o600)
    signing.read_key(keys)


def test_a_key_of_somebody_else_is_not_used(keys: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    signing.read_key(keys)
    os.chown(keys / "journal.key", 65_533, -1)
    with pytest.raises(HostError, match="belongs to uid 65533"):
        signing.read_key(keys)


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_what_is_no_key_is_said_and_not_replaced(keys: Path, content: bytes) -> None:
    keys.mkdir()
    (keys / "journal.key").write_bytes(content)
    (keys / "journal.key").chmod(0o600)
    with pytest.raises(HostError, match="no signing key"):
        signing.read_key(keys)
    assert (keys / "journal.key").read_bytes() == content


def test_a_link_a_pipe_and_a_directory_in_its_place_are_no_keys(keys: Path, tmp_path: Path) -> None:
    signing.read_key(tmp_path / "other")
    keys.mkdir()
    path = keys / "journal.key"
    path.symlink_to(tmp_path / "other" / "journal.key")
    with pytest.raises(HostError, match="cannot be used"):
        signing.read_key(keys)
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(HostError, match="no signing key"):
        signing.read_key(keys)
    path.unlink()
    path.mkdir()
    with pytest.raises(HostError, match="no signing key"):
        signing.read_key(keys)


def test_a_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="cannot be used") as caught:
        signing.read_key(tmp_path / "file")
    assert caught.value.fix.startswith("ls -la ")


def test_a_public_half_of_another_key_is_said(keys: Path, tmp_path: Path) -> None:
    signing.read_key(keys)
    other = str(signing.open_signer(tmp_path / "other").key)
    for content in (other, "no key", "\xff"):
        (keys / "journal.pub").write_text(content, encoding="latin-1")
        with pytest.raises(HostError, match="not the public half"):
            signing.read_key(keys)
    with pytest.raises(HostError, match="no key to verify"):
        signing.public_key(keys)
    (keys / "journal.pub").unlink()
    with pytest.raises(HostError, match="no key to verify"):
        signing.public_key(keys)
    signing.read_key(keys)
    assert signing.public_key(keys) == signing.open_signer(keys).key


def memory(content: bytes) -> int:
    fd = os.memfd_create("inbounds-test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, content)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


def test_a_key_comes_by_descriptor_and_the_descriptor_is_gone(keys: Path) -> None:
    fd = memory(signing.read_key(keys))
    assert signing.Signer.from_fd(fd).key == signing.public_key(keys)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_a_descriptor_without_a_key_is_said_and_closed(content: bytes) -> None:
    fd = memory(content)
    with pytest.raises(HostError, match="signing key"):
        signing.Signer.from_fd(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    with pytest.raises(HostError, match="Bad file descriptor"):
        signing.Signer.from_fd(fd)


def test_the_library_is_loaded_when_a_key_is_used_and_its_absence_is_said() -> None:
    script = """
import sys
from inbounds.contracts.errors import HostError
from inbounds.journal import anchor, chain, merkle, note, signing
assert "cryptography" not in sys.modules
sys.modules["cryptography"] = None
try:
    signing.Signer(bytes(32))
except HostError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "the library that signs cannot be loaded" in done.stdout
