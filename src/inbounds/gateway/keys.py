"""Where the operator's provider keys live: the system's keyring, 0600 files, or the environment. Never printed.

Used by the command line, which hands what it finds to the gateway and forgets it. Knows nothing of upstreams.
"""

import contextlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inbounds.contracts.errors import HostError, OperatorError

SERVICE = "inbounds"
ENVIRONMENT = {"anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY"}
KEY_BYTES_MAX = 4_096  # the longest tokens in use have about a thousand
SHOWN_CHARS = 4
SHOWABLE_CHARS_MIN = 16  # of a shorter key, four characters would be too large a part
KEYRING_PRIORITY_MIN = 1  # keyring's own mark for a recommended backend; its null and plain-text ones are below
_PROVIDER = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_SUBSCRIPTION = ("sk-ant-oat", "sk-ant-ort")  # tokens of a Claude login, bound to its own client by its terms


@dataclass(frozen=True, slots=True)
class KeyFact:
    """A key that is there: whose, where it lies, and its last characters (empty for a short one)."""

    provider: str
    where: str
    last: str


class KeyStore:
    """The operator's keys below one directory ($INBOUNDS_HOME/keys), with keyring and environment beside it."""

    def __init__(self, directory: Path, environment: Mapping[str, str] | None = None) -> None:
        """`environment` is os.environ unless a caller hands over another."""
        self._directory = directory
        self._environment = os.environ if environment is None else environment

    def add(self, provider: str, key: str) -> KeyFact:
        """Keep a key, in the keyring where there is a real one; OperatorError where it can't be a key."""
        _named(provider)
        key = _checked(provider, key.strip())
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        keyring = _keyring()
        if keyring is not None:
            keyring.set_password(SERVICE, provider, key)
            self._write(self._marker(provider), b"")  # a keyring can't be listed
            return KeyFact(provider, "keyring", _last(key))
        self._write(self._file(provider), key.encode())
        return KeyFact(provider, str(self._file(provider)), _last(key))

    def get(self, provider: str) -> str | None:
        """The key in use: a stored one before the environment's; None where there is none."""
        found = self._find(provider)
        return None if found is None else found[1]

    def list(self) -> tuple[KeyFact, ...]:
        """Every provider with a key, and where the one in use lies."""
        names = {name for name, variable in ENVIRONMENT.items() if self._environment.get(variable)}
        with contextlib.suppress(FileNotFoundError):
            names |= {name.removesuffix(".keyring") for name in os.listdir(self._directory)}
        found = [(name, self._find(name)) for name in sorted(names) if _PROVIDER.fullmatch(name)]
        return tuple(KeyFact(name, held[0], _last(held[1])) for name, held in found if held)

    def remove(self, provider: str) -> bool:
        """Forget a stored key; False where none was stored (the environment is not ours to change)."""
        _named(provider)
        removed = False
        if self._marker(provider).exists():
            keyring = _keyring()
            if keyring is None:
                raise HostError(f"the key of {provider} is in a keyring that can't be reached", fix="unlock it")
            with contextlib.suppress(keyring.errors.PasswordDeleteError):  # gone already, which is what was asked
                keyring.delete_password(SERVICE, provider)
            self._marker(provider).unlink()
            removed = True
        with contextlib.suppress(FileNotFoundError):
            self._file(provider).unlink()
            removed = True
        return removed

    def _find(self, provider: str) -> tuple[str, str] | None:
        _named(provider)
        if self._marker(provider).exists() and (keyring := _keyring()) is not None:
            held = keyring.get_password(SERVICE, provider)
            if held:
                return "keyring", _checked(provider, str(held))
        stored = _read(self._file(provider))
        if stored is not None:
            return str(self._file(provider)), _checked(provider, stored)
        variable = ENVIRONMENT.get(provider, "")
        held = self._environment.get(variable, "").strip()
        return (f"${variable}", _checked(provider, held)) if held else None

    def _file(self, provider: str) -> Path:
        return self._directory / provider

    def _marker(self, provider: str) -> Path:
        return self._directory / f"{provider}.keyring"

    def _write(self, path: Path, content: bytes) -> None:
        """Replace a file at once, 0600 from its first byte."""
        part = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError as error:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()
            raise HostError(f"the key can't be kept: {error.strerror}", where=str(path)) from None


def _named(provider: str) -> None:
    if not _PROVIDER.fullmatch(provider):
        raise OperatorError(f"provider {provider!r}", expected="a name such as anthropic or openai")


def _checked(provider: str, key: str) -> str:
    if not key or len(key) > KEY_BYTES_MAX or not key.isascii() or not key.isprintable() or " " in key:
        raise OperatorError(
            f"the key of {provider} is empty, too long or not plain text", fix=f"inbounds key add {provider}"
        )
    if key.startswith(_SUBSCRIPTION):
        raise OperatorError(
            f"the key of {provider} is a subscription login",
            expected="an API key: a subscription can't be metered, and is bound to its own client",
            fix=f"inbounds key add {provider}",
        )
    return key


def _last(key: str) -> str:
    return key[-SHOWN_CHARS:] if len(key) >= SHOWABLE_CHARS_MIN else ""


def _read(path: Path) -> str | None:
    """A stored key; HostError where others could have read or replaced it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(f"a key can't be read: {error.strerror}", where=str(path)) from None
    with os.fdopen(descriptor, "rb") as file:
        held = os.fstat(file.fileno())
        if held.st_uid != os.geteuid() or stat.S_IMODE(held.st_mode) & 0o077 or not stat.S_ISREG(held.st_mode):
            raise HostError(
                "a key that others can reach",
                expected="a file of yours, mode 0600",
                where=str(path),
                fix=f"chmod 600 {path}",
            )
        return file.read(KEY_BYTES_MAX + 1).decode("ascii", "replace").strip()


def _keyring() -> Any:
    """The keyring module where it is installed and has a real backend; None otherwise."""
    try:
        import keyring
        import keyring.errors

        backend = keyring.get_keyring()
        return keyring if getattr(backend, "priority", 0) >= KEYRING_PRIORITY_MIN else None
    except ImportError:
        return None
    except RuntimeError:  # keyring's word for "no backend can work here"
        return None
