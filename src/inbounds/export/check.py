"""Do an unpacked bundle's attestations hold? Signatures, members' hashes, and that they are about this journal.

`python3 -I -m inbounds.export.check DIR [--key FILE]`. Standard library; beside `inbounds verify --dir`, which checks
the journal itself. Trusts the key that it is given, by default the bundle's own.
"""

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from inbounds.export import bundle, dsse, statement
from inbounds.journal import note


class Check(NamedTuple):
    """One question and its answer."""

    name: str
    ok: bool
    detail: str


def attestations(directory: Path, public: bytes | None = None) -> tuple[Check, ...]:
    """Check every envelope below `attestations/`; () where a bundle has none, which its index explains."""
    place = directory / "attestations"
    if not place.is_dir():
        return ()
    try:
        public = public or note.parse_key(_read(directory / bundle.PUBLIC).decode("ascii", "replace")).public
    except (OSError, ValueError) as error:
        return (Check(bundle.PUBLIC, False, str(error)),)
    return tuple(_one(directory, path, public) for path in sorted(place.iterdir())) or (
        Check("attestations", False, "the directory is empty"),
    )


def _one(directory: Path, path: Path, public: bytes) -> Check:
    name = path.name.removesuffix(".dsse.json")
    try:
        found = dsse.opened(_read(path), public)
        if found.get("_type") != statement.STATEMENT:
            raise dsse.EnvelopeError("no in-toto Statement v1")
        subjects = {str(one["name"]): dict(one["digest"]) for one in found["subject"]}
    except (OSError, ValueError, TypeError, KeyError) as error:
        return Check(name, False, str(error)[:300])
    kind = str(found.get("predicateType"))
    files = {one: digest["sha256"] for one, digest in subjects.items() if "sha256" in digest}
    faults = [f"{one} {why}" for one, digest in sorted(files.items()) if (why := _differs(directory, one, digest))]
    if kind == statement.BUNDLE:
        stray = _stray(directory, set(files))
        faults += [f"{one} is in no list" for one in stray]
    if faults:
        return Check(name, False, "; ".join(faults[:5])[:300])
    return Check(name, True, f"signed, {kind}, about {', '.join(sorted(subjects))}"[:300])


def _differs(directory: Path, name: str, digest: object) -> str:
    try:
        bundle.Member(name, b"", "")  # no name that leads elsewhere is opened
        found = hashlib.sha256(_read(directory / name)).hexdigest()
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}"
    return "" if found == digest else "is not the file that was attested"


def _stray(directory: Path, listed: set[str]) -> list[str]:
    """Files that no statement covers, other than the list itself and what is made over it."""
    known = listed | {bundle.SEALED, bundle.SUMS}
    present = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if not path.is_dir()}
    return sorted(present - known)


def _read(path: Path) -> bytes:
    if path.is_symlink():
        raise ValueError(f"{path.name} is a link")
    with path.open("rb") as file:
        content = file.read(bundle.MEMBER_BYTES_MAX + 1)
    if len(content) > bundle.MEMBER_BYTES_MAX:
        raise ValueError(f"{path.name} is longer than {bundle.MEMBER_BYTES_MAX} bytes")
    return content


def main(argv: Sequence[str] | None = None) -> int:
    """One line a check; 0 if all hold, 1 if one does not or there is nothing to check."""
    parser = argparse.ArgumentParser(prog="inbounds.export.check", description="Check a bundle's attestations.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--key", type=Path, help="the journal's public key from elsewhere (default: the bundle's own)")
    chosen = parser.parse_args(argv)
    try:
        key = note.parse_key(chosen.key.read_text("ascii")).public if chosen.key else None
    except (OSError, ValueError) as error:
        parser.error(f"--key: {error}")
    found = attestations(chosen.directory, key)
    for check in found:
        print(f"{'holds' if check.ok else 'FAILS'}  {check.name}: {ascii(check.detail)[1:-1]}")
    if not found:
        print("this bundle has no attestations; its index.json says why")
    return 0 if found and all(check.ok for check in found) else 1


if __name__ == "__main__":
    sys.exit(main())
