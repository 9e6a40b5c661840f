"""Signatures with the real ssh-keygen, git and ssh-agent, in HOMEs of their own."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from inbounds.contracts.errors import HostError, OperatorError
from inbounds.journal import sshsig

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    home = tmp_path / "home"
    home.mkdir()
    return {"HOME": str(home), "PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1"}


def run_keygen(*arguments: str) -> None:
    subprocess.run([*sshsig._with_an_account(), "ssh-keygen", "-q", *arguments], check=True)


def keygen(path: Path, phrase: str = "") -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    run_keygen("-t", "ed25519", "-N", phrase, "-f", str(path))


def git(env: dict[str, str], name: str, value: str) -> None:
    subprocess.run(["git", "config", "--global", name, value], env=env, check=True)


def test_a_signature_holds_for_its_message_name_key_and_namespace_only(env: dict[str, str]) -> None:
    key = sshsig.operator_key(env=env)
    signature = sshsig.sign(key, b"tree 1a1a", sshsig.APPROVAL, env)
    signers = {"Dana Oduya": key.public}

    def holds(message: bytes = b"tree 1a1a", space: str = sshsig.APPROVAL, who: str = "Dana Oduya") -> bool:
        return sshsig.verify(message, signature, space, who, signers)

    assert holds()
    assert not holds(message=b"tree 2b2b")
    assert not holds(space=sshsig.PLAN)
    assert not holds(space="git")
    assert not holds(who="Somebody")
    other = Path(env["HOME"]) / "other"
    keygen(other)
    assert not sshsig.verify(
        b"tree 1a1a", signature, sshsig.APPROVAL, "Dana Oduya", {"Dana Oduya": other.with_suffix(".pub").read_text()}
    )
    assert not sshsig.verify(b"tree 1a1a", signature.replace("A", "B"), sshsig.APPROVAL, "Dana Oduya", signers)
    assert not sshsig.verify(b"tree 1a1a", "", sshsig.APPROVAL, "Dana Oduya", signers)
    assert not sshsig.verify(b"tree 1a1a", "x" * 10**6, sshsig.APPROVAL, "Dana Oduya", signers)


def test_our_own_key_is_made_once_and_private(env: dict[str, str]) -> None:
    first, second = sshsig.operator_key(env=env), sshsig.operator_key(env=env)
    assert first == second
    assert first.path == Path(env["HOME"]) / ".config" / "inbounds" / "operator_ed25519"
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(first.path.parent.stat().st_mode) == 0o700


def test_gits_signing_key_comes_first(env: dict[str, str]) -> None:
    path = Path(env["HOME"]) / "keys" / "sign"
    keygen(path)
    keygen(Path(env["HOME"]) / ".ssh" / "id_ed25519")
    git(env, "user.signingkey", "~/keys/sign.pub")
    git(env, "user.email", "dana@example.org")
    assert sshsig.operator_key(env=env).source.endswith("id_ed25519"), "gpg.format is not ssh yet"
    git(env, "gpg.format", "ssh")
    key = sshsig.operator_key(env=env)
    assert (key.source, key.principal) == ("git config user.signingkey", "dana@example.org")
    signature = sshsig.sign(key, b"plan", sshsig.PLAN, env)
    assert sshsig.verify(b"plan", signature, sshsig.PLAN, key.principal, {key.principal: key.public})


def test_a_key_with_a_passphrase_is_used_through_the_agent_only(env: dict[str, str], agent: str) -> None:
    path = Path(env["HOME"]) / ".ssh" / "id_ed25519"
    keygen(path, "secret phrase")
    assert "inbounds" in sshsig.operator_key(env=env).source, "it could not be used unattended"
    env["SSH_AUTH_SOCK"] = agent
    bare = Path(env["HOME"]) / "bare"
    shutil.copy(path, bare)
    run_keygen("-p", "-P", "secret phrase", "-N", "", "-f", str(bare))
    subprocess.run(["ssh-add", "-q", str(bare)], env=env, check=True)
    key = sshsig.operator_key(env=env)
    assert key.source == "ssh-agent"
    signature = sshsig.sign(key, b"x", sshsig.APPROVAL, env)
    assert sshsig.verify(b"x", signature, sshsig.APPROVAL, "me", {"me": key.public})


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    if shutil.which("ssh-agent") is None:
        pytest.skip("ssh-agent is not installed")
    address = f"/tmp/inbounds-test-agent-{os.getpid()}"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", address], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield address
    finally:
        process.kill()
        process.wait()
        Path(address).unlink(missing_ok=True)


def test_a_key_file_that_is_none_is_an_error_in_words(env: dict[str, str]) -> None:
    broken = sshsig.OperatorKey(Path(env["HOME"]) / "missing", "", "me", "")
    with pytest.raises(OperatorError, match="nothing was signed"):
        sshsig.sign(broken, b"x", sshsig.PLAN, env)


def test_without_ssh_keygen_the_line_to_type_is_said(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(HostError, match="apt-get install openssh-client"):
        sshsig.operator_key(env=env)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a uid without an account")
def test_a_uid_without_an_account_signs_and_verifies() -> None:
    """A container started with --user: ssh-keygen by itself says "No user exists for uid"."""
    script = """
import os, sys
os.setgroups([]); os.setgid(4242); os.setuid(4242)
from inbounds.journal import sshsig
env = {"HOME": sys.argv[1], "PATH": os.environ["PATH"]}
key = sshsig.operator_key(env=env)
signature = sshsig.sign(key, b"x", sshsig.PLAN, env)
assert sshsig.verify(b"x", signature, sshsig.PLAN, "me", {"me": key.public})
assert not sshsig.verify(b"y", signature, sshsig.PLAN, "me", {"me": key.public})
"""
    # Importing comes before the drop: the interpreter may be where only root can read.
    script = "from inbounds.journal import sshsig\nimport pwd, shutil, subprocess, tempfile\n" + script
    home = Path(tempfile.mkdtemp(prefix="inbounds-test-home-"))
    try:
        os.chown(home, 4242, 4242)
        done = subprocess.run([sys.executable, "-c", script, str(home)], capture_output=True, text=True, check=False)
        if "unshare failed" in done.stderr:
            pytest.skip("user namespaces are forbidden here: such an account cannot sign")
        assert done.returncode == 0, done.stderr
        assert (home / ".config" / "inbounds" / "operator_ed25519").stat().st_uid == 4242
    finally:
        shutil.rmtree(home)


def test_a_home_that_cannot_be_written_is_the_hosts_fault(env: dict[str, str]) -> None:
    env["HOME"] = "/proc/nowhere"
    with pytest.raises(HostError, match="cannot make"):
        sshsig.operator_key(env=env)


@pytest.mark.parametrize(
    "key", ["", "cert-authority ssh-ed25519 " + "A" * 60, "ssh-ed25519 short", 'x" ssh-ed25519 ' + "A" * 60]
)
def test_a_signers_line_cannot_carry_options(key: str) -> None:
    with pytest.raises(OperatorError):
        sshsig.allowed_signers({"me": key})


def test_a_name_cannot_be_a_pattern_or_a_second_line(env: dict[str, str]) -> None:
    key = sshsig.operator_key(env=env)
    signature = sshsig.sign(key, b"x", sshsig.PLAN, env)
    names = ["*", "a,b", 'x" y', "two\nlines", "!me", "Zoë Ångström"]
    assert len({sshsig.identity(name) for name in names}) == len(names)
    for name in names:
        assert "\n" not in sshsig.identity(name)
        assert sshsig.verify(b"x", signature, sshsig.PLAN, name, {name: key.public})
