"""The hooks of a store: whoever comes from outside, by push or by update-ref, can't move a protected ref (K2, K7).

inbounds' own git runs no hooks at all; only the promoter moves these refs, and it checks for itself.
"""

import os

from inbounds.contracts.errors import HostError

PROTECTED = ("refs/heads/development", "refs/heads/staging", "refs/heads/main")

_TRANSACTION = f"""#!/bin/sh
# Written by inbounds. Git calls this for every change of refs, a push's included, before it takes effect.
[ "$1" = prepared ] || exit 0
refused=0
while read -r old new ref; do
    case "$ref" in
    {"|".join(PROTECTED)})
        echo "inbounds: $ref is protected: only the promotion gate moves it (inbounds promote)" >&2
        refused=1
        ;;
    esac
done
exit $refused
"""

_UPDATE = f"""#!/bin/sh
# Written by inbounds. Git calls this for each ref of a push; the words reach the person who pushes.
case "$1" in
{"|".join(PROTECTED)})
    echo "inbounds: $1 is protected: only the promotion gate moves it (inbounds promote)" >&2
    exit 1
    ;;
esac
exit 0
"""

HOOKS = {"reference-transaction": _TRANSACTION, "update": _UPDATE}


# Git's question whether a repository belongs to its reader (safe.directory) is about repositories that were come upon;
# this project's git only reads those that the operator named, and root may run on a user's.
TRUST = "inbounds-fetch.config"
_TRUST_ALL = "[safe]\n\tdirectory = *\n"


def install(git_dir: str) -> None:
    """Put the hooks in place where they are missing or differ, and what `fetch` reads instead of a user's settings."""
    directory = os.path.join(git_dir, "hooks")
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        for name, text in HOOKS.items():
            _put(os.path.join(directory, name), text, 0o700)
        _put(os.path.join(git_dir, TRUST), _TRUST_ALL, 0o600)
    except OSError as error:
        raise HostError(f"the store's hooks cannot be written: {error}", where=directory) from error


def _put(path: str, text: str, mode: int) -> None:
    """A new file replaces the old one whole: another run may be reading it."""
    if _holds(path, text, mode):
        return
    scratch = f"{path}.{os.getpid()}"
    with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode), "w") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)
    os.rename(scratch, path)


def _holds(path: str, text: str, mode: int) -> bool:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(len(text) + 1) == text and os.fstat(file.fileno()).st_mode & 0o777 == mode
    except (FileNotFoundError, UnicodeDecodeError):
        return False
