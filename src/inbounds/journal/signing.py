"""The key that signs a journal's checkpoints: made, kept, handed over by descriptor, used (ADR 9).

The only part of the journal that needs `cryptography`, imported when a key is used; chain, tree, notes and verifier
do without. Knows nothing of records: it signs the text that it is given.
"""

import os
import secrets
import stat
from pathlib import Path

from inbounds.contracts.errors import HostError
from inbounds.journal import note
from inbounds.journal.note import VerifierKey

KEY_BYTES = 32
PUBLIC_CHARS_MAX = 512  # a verifier key of ours has 80 characters


class Signer:
    """Signs texts with one Ed25519 key; `key` is what verifies them."""

    def __init__(self, secret: bytes) -> None:
        """Take the raw private key (32 bytes). HostError where `cryptography` can't be loaded."""
        if len(secret) != KEY_BYTES:
            raise ValueError(f"a private key has {KEY_BYTES} bytes, not {len(secret)}")
        try:
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        except ImportError as error:
            raise HostError(
                f"the library that signs cannot be loaded: {error}",
                expected="the package cryptography, which inbounds depends on",
                fix="pip install cryptography",
            ) from None
        self._private = Ed25519PrivateKey.from_private_bytes(secret)
        public = self._private.public_key().public_bytes_raw()
        self.key = VerifierKey(note.key_name(public), public)

    @classmethod
    def from_fd(cls, fd: int) -> "Signer":
        """The signer of a key that came by descriptor (a sealed memory file), which is closed; HostError for no key."""
        try:
            try:
                secret = os.pread(fd, KEY_BYTES + 1, 0)
            finally:  # whatever came of it: no later program may inherit the key
                os.close(fd)
        except OSError as error:
            raise HostError(f"descriptor {fd}, where the signing key is due: {error.strerror}") from error
        if len(secret) != KEY_BYTES:
            raise HostError(f"descriptor {fd} holds {len(secret)} bytes", expected=f"a signing key of {KEY_BYTES}")
        return cls(secret)

    @property
    def name(self) -> str:
        """The key's name, as notes and envelopes state it."""
        return self.key.name

    def sign(self, text: str) -> str:
        """The signed note over `text`, which ends with a newline."""
        return note.write(text, self.key, self.sign_raw(text.encode()))

    def sign_raw(self, message: bytes) -> bytes:
        """RFC 8032's 64 bytes over a message, for other forms than notes (DSSE)."""
        return self._private.sign(message)


def open_signer(keys: Path) -> Signer:
    """The signer of a state directory, for whoever runs as its owner; HostError as `read_key`."""
    return Signer(read_key(keys))


def read_key(keys: Path) -> bytes:
    """The raw key of a state directory, `keys/journal.key`, made with its `journal.pub` if there is none.

    HostError, with what to type, if the file is not ours alone, not a key, or cannot be read or made.
    """
    path = keys / "journal.key"
    try:
        try:
            secret = _read(path)
        except FileNotFoundError:
            keys.mkdir(mode=0o700, parents=True, exist_ok=True)
            _place(path, secrets.token_bytes(KEY_BYTES), 0o600)
            secret = _read(path)  # perhaps that of another process, which was first
        _publish(keys / "journal.pub", Signer(secret).key)
    except OSError as error:
        raise HostError(
            f"the key that signs journals cannot be used: {error.strerror or error}",
            expected="a file that its owner alone can read",
            fix=f"ls -la {keys}",
            where=str(path),
        ) from error
    return secret


def public_key(keys: Path) -> VerifierKey:
    """The verifier key in `keys/journal.pub`; HostError if there is none or it is none."""
    path = keys / "journal.pub"
    try:
        return _public(path)
    except (OSError, note.NoteError) as error:
        raise HostError(
            f"no key to verify journals with: {error}", expected="a verifier key of one line", where=str(path)
        ) from None


def _read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(fd)
        mode = stat.S_IMODE(found.st_mode)
        if not stat.S_ISREG(found.st_mode) or found.st_size != KEY_BYTES:
            raise HostError(
                "it is no signing key",
                expected=f"a file of {KEY_BYTES} bytes",
                fix=f"mv {path} {path}.broken",
                where=str(path),
            )
        if found.st_uid != os.geteuid():
            raise HostError(
                f"the signing key belongs to uid {found.st_uid}",
                expected=f"uid {os.geteuid()}, who runs this",
                fix=f"chown {os.geteuid()} {path}",
                where=str(path),
            )
        if mode & 0o077:
            raise HostError(
                f"the signing key has mode {mode:04o}: others can read or change it",
                expected="mode 0600",
                fix=f"chmod 600 {path}",
                where=str(path),
            )
        return os.read(fd, KEY_BYTES)
    finally:
        os.close(fd)


def _publish(path: Path, key: VerifierKey) -> None:
    try:
        found = str(_public(path))
    except FileNotFoundError:
        _place(path, f"{key}\n".encode(), 0o644)
        found = str(_public(path))
    except note.NoteError as error:
        found = str(error)
    if found != str(key):
        raise HostError(
            f"it is not the public half of journal.key: {found}", expected=str(key), fix=f"rm {path}", where=str(path)
        )


def _public(path: Path) -> VerifierKey:
    with path.open("rb") as file:
        content = file.read(PUBLIC_CHARS_MAX + 1)
    try:
        return note.parse_key(content.decode())
    except UnicodeDecodeError:
        raise note.NoteError("it is no text") from None


def _place(path: Path, content: bytes, mode: int) -> None:
    """Make the file whole or not at all, and never over another: two processes may want the first key at once."""
    new = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, mode)
            file.write(content)
            file.flush()
            os.fsync(fd)
        try:
            os.link(new, path)
        except FileExistsError:
            return
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        new.unlink()
