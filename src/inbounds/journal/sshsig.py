"""Signatures by a person: `ssh-keygen -Y sign` and `-Y verify` over a statement's bytes (D7, K5, N7).

Runs ssh-keygen and asks git where the person's key is; chain and verifier never import this. Private keys are never
read here: ssh-keygen or the agent reads them.
"""

import getpass
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inbounds.contracts.errors import HostError, OperatorError

# One namespace per kind of statement (PROTOCOL.sshsig): a signature for one can't be replayed as another.
PLAN, APPROVAL = "inbounds-plan", "inbounds-approval"
NAMESPACES = frozenset({PLAN, APPROVAL})

# A person may have to touch a security key or type a passphrase.
SIGN_SECONDS, VERIFY_SECONDS = 120, 20
MESSAGE_BYTES_MAX, SIGNATURE_CHARS_MAX = 1 << 20, 16_384
_PUBLIC = re.compile(r"(?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]{1,60} [A-Za-z0-9+/=]{40,8000}")


@dataclass(frozen=True, slots=True)
class OperatorKey:
    """`path` is what `ssh-keygen -f` takes (a private key, or a public one whose private half is in the agent)."""

    path: Path
    public: str
    principal: str
    source: str


def operator_key(home: Path | None = None, env: Mapping[str, str] | None = None) -> OperatorKey:
    """The operator's signing key: git's, else ~/.ssh/id_ed25519 if usable without asking, else one of our own.

    Our own is `~/.config/inbounds/operator_ed25519`, 0600, made without a passphrase at the first call.
    HostError when ssh-keygen is missing or fails.
    """
    surroundings = dict(os.environ if env is None else env)
    home = home or Path(surroundings.get("HOME") or os.path.expanduser("~"))
    surroundings["HOME"] = str(home)
    name = principal(surroundings)
    configured = _git("user.signingkey", surroundings) if _git("gpg.format", surroundings) == "ssh" else ""
    if configured and not configured.startswith(("key::", "ssh-")):
        path = Path(configured.replace("~", str(home), 1) if configured.startswith("~/") else configured)
        public = _public(path, surroundings)
        if public:
            return OperatorKey(path, public, name, "git config user.signingkey")
    usual = home / ".ssh" / "id_ed25519"
    if usual.is_file():
        if public := _opens_without_asking(usual, surroundings):
            return OperatorKey(usual, public, name, str(usual))
        public = _public(usual, surroundings)
        if public and public in _agent_keys(surroundings):
            return OperatorKey(usual.with_suffix(".pub"), public, name, "ssh-agent")
    return _own_key(home, name, surroundings)


def sign(key: OperatorKey, message: bytes, namespace: str, env: Mapping[str, str] | None = None) -> str:
    """The armoured signature over `message`; OperatorError when the person's key does not sign (declined, locked)."""
    if namespace not in NAMESPACES:
        raise ValueError(f"{namespace!r} is no namespace of this program")
    if len(message) > MESSAGE_BYTES_MAX:
        raise ValueError(f"a statement has at most {MESSAGE_BYTES_MAX} bytes")
    argv = [_ssh_keygen(), "-q", "-Y", "sign", "-f", str(key.path), "-n", namespace]
    done = _run(argv, message, SIGN_SECONDS, env)
    if done.returncode != 0:
        raise OperatorError(
            f"nothing was signed: {_last_line(done.stderr)}",
            expected=f"a signature with {key.path}",
            fix=f"ssh-add {key.path}",
        )
    return done.stdout.decode("ascii")


def verify(message: bytes, signature: str, namespace: str, who: str, signers: Mapping[str, str]) -> bool:
    """Did `who`, whose public key is in `signers` (name to key), sign exactly `message` in `namespace`?

    False for a wrong key, name, namespace, message or malformed signature. HostError when ssh-keygen is missing.
    """
    if who not in signers or namespace not in NAMESPACES or len(signature) > SIGNATURE_CHARS_MAX:
        return False
    if len(message) > MESSAGE_BYTES_MAX:
        return False
    program = _ssh_keygen()
    try:
        allowed = allowed_signers({who: signers[who]}, (namespace,))
    except OperatorError:
        return False
    with tempfile.TemporaryDirectory(prefix="inbounds-verify-") as place:
        names, armour = Path(place) / "allowed_signers", Path(place) / "signature"
        names.write_text(allowed, encoding="utf-8")
        armour.write_text(signature, encoding="utf-8", errors="replace")
        argv = [
            program,
            "-q",
            "-Y",
            "verify",
            "-f",
            str(names),
            "-I",
            identity(who),
            "-n",
            namespace,
            "-s",
            str(armour),
        ]
        return _run(argv, message, VERIFY_SECONDS, None).returncode == 0


def allowed_signers(signers: Mapping[str, str], namespaces: tuple[str, ...] = tuple(sorted(NAMESPACES))) -> str:
    """The text of an allowed_signers file (ssh-keygen(1)): one line per name, its key valid in `namespaces` only.

    OperatorError for a public key that is none, options in front of it among others.
    """
    lines = []
    for name, key in sorted(signers.items()):
        bare = " ".join(key.split()[:2])
        if not _PUBLIC.fullmatch(bare):
            raise OperatorError(
                f"the key of {name!r} is no SSH public key",
                expected="ssh-ed25519 AAAA…",
                fix="ssh-keygen -y -f ~/.ssh/id_ed25519",
            )
        lines.append(f'{identity(name)} namespaces="{",".join(namespaces)}" {bare}\n')
    return "".join(lines)


def identity(name: str) -> str:
    """A name as an ssh principal: no blank, comma, quote or wildcard (allowed_signers takes patterns), and unique."""
    kept = "".join(c if (c.isalnum() and c.isascii()) or c in "@._-" else f"+{ord(c):x}+" for c in name)
    return kept or "nobody"


def principal(env: Mapping[str, str]) -> str:
    """Who signs: git's user.email, else user.name, else the login name (an account may have none: "uid-4242")."""
    named = _git("user.email", env) or _git("user.name", env)
    if named:
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


def _own_key(home: Path, name: str, env: Mapping[str, str]) -> OperatorKey:
    folder = Path(env["XDG_CONFIG_HOME"]) if env.get("XDG_CONFIG_HOME") else home / ".config"
    path = folder / "inbounds" / "operator_ed25519"
    if not path.is_file():
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise HostError(f"cannot make {path.parent}: {error.strerror}", expected="a writable HOME") from error
        argv = [_ssh_keygen(), "-q", "-t", "ed25519", "-N", "", "-C", f"inbounds operator {name}", "-f", str(path)]
        done = _run(argv, b"", VERIFY_SECONDS, env)
        if done.returncode != 0 or not path.is_file():
            raise HostError(f"no key was made: {_last_line(done.stderr)}", where=str(path))
        os.chmod(path, 0o600)
    public = _opens_without_asking(path, env)
    if not public:
        raise HostError("this key cannot be read", expected="a key without a passphrase", where=str(path))
    return OperatorKey(path, public, name, str(path))


def _opens_without_asking(path: Path, env: Mapping[str, str]) -> str:
    """The public key, if the private one needs no passphrase; "" otherwise."""
    done = _run([_ssh_keygen(), "-y", "-P", "", "-f", str(path)], b"", VERIFY_SECONDS, env)
    return _bare(done.stdout) if done.returncode == 0 else ""


def _public(path: Path, env: Mapping[str, str]) -> str:
    beside = path if path.suffix == ".pub" else path.with_name(path.name + ".pub")
    try:
        return _bare(beside.read_bytes()[:16_384])
    except OSError:
        return _opens_without_asking(path, env) if path.is_file() else ""


def _agent_keys(env: Mapping[str, str]) -> set[str]:
    program = shutil.which("ssh-add")
    if program is None or not env.get("SSH_AUTH_SOCK"):
        return set()
    done = _run([program, "-L"], b"", VERIFY_SECONDS, env)
    return {_bare(line) for line in done.stdout.splitlines()} if done.returncode == 0 else set()


def _bare(line: bytes) -> str:
    """Type and key without the comment; "" for anything else."""
    found = " ".join(line.decode("utf-8", "replace").split()[:2])
    return found if _PUBLIC.fullmatch(found) else ""


def _git(name: str, env: Mapping[str, str]) -> str:
    """A value of the person's own configuration; the repository's is not asked: an agent could have written it."""
    program = shutil.which("git")
    if program is None:
        return ""
    done = _run([program, "config", "--global", "--get", name], b"", VERIFY_SECONDS, env)
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else ""


def _ssh_keygen() -> str:
    program = shutil.which("ssh-keygen")
    if program is None:
        raise HostError(
            "ssh-keygen is not installed",
            expected="OpenSSH 8.2 or later, for signatures",
            fix="sudo apt-get install openssh-client",
        )
    return program


def _run(
    argv: list[str], message: bytes, seconds: int, env: Mapping[str, str] | None
) -> "subprocess.CompletedProcess[bytes]":
    name = Path(argv[0]).name
    if name == "ssh-keygen":
        argv = [*_with_an_account(), *argv]
    try:
        return subprocess.run(
            argv,
            input=message,
            capture_output=True,
            timeout=seconds,
            check=False,
            env=None if env is None else dict(env),
        )
    except subprocess.TimeoutExpired:
        raise HostError(f"{name} did not answer within {seconds} s") from None
    except OSError as error:
        raise HostError(f"{name} did not start: {error.strerror}") from error


def _with_an_account() -> tuple[str, ...]:
    """ssh-keygen refuses a uid that has no account (a container started with --user): let it see itself as root.

    In a user namespace of its own, which gives no right that the caller lacks.
    """
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        program = shutil.which("unshare")
        if program is None:
            raise HostError(
                f"ssh-keygen needs an account and uid {os.getuid()} has none",
                expected="an entry in /etc/passwd, or unshare from util-linux",
                fix="sudo apt-get install util-linux",
            ) from None
        return (program, "--user", "--map-root-user", "--")
    return ()


def _last_line(raw: bytes) -> str:
    lines = raw.decode("utf-8", "replace").strip().splitlines()
    return ascii(lines[-1])[1:-1][:300] if lines else "no reason given"
