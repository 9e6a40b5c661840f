"""Bundles: the same bytes every time, whole wherever they are unpacked, and no secret in what may be changed."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import evidence
import exported_run
import pytest

from inbounds.contracts.errors import RefusedError
from inbounds.export import audit, bundle, check
from inbounds.export.bundle import Member
from inbounds.journal.signing import Signer

TOKEN = "ghp_" + "aB3dE5fG7hI9jK1lM3nO5pQ7rS9tU1vW3xY5"
PATCH = f"+++ b/billing/src/rounding.py\n+token = '{TOKEN}'\n+x = 1\n".encode()


def source(home: Path, signer: Signer | None, steps: list[tuple[str, dict[str, Any]]] | None = None) -> audit.Source:
    run_dir = evidence.write(home, steps or exported_run.steps())
    files = {name: (run_dir / name).read_bytes() for name in ("journal.jsonl", "manifest.json", "contract.json")}
    files |= {"blast_radius.json": (run_dir / "blast_radius.json").read_bytes(), "diff.patch": PATCH}
    files |= {"report.html": f"<pre>token = &#x27;{TOKEN}&#x27;</pre>".encode()}
    if signer is not None:
        files["keys/journal.pub"] = f"{signer.key}\n".encode()
    return audit.Source(
        run_id=evidence.RUN_ID,
        state="finished",
        files=files,
        facts=exported_run.facts_of(run_dir),
        public=str(signer.key) if signer else "",
        signer=signer,
        unsigned="" if signer else "this state directory has no key that signs",
    )


def packed(made: audit.Made) -> bytes:
    out = io.BytesIO()
    bundle.pack(evidence.RUN_ID, made.members, out)
    return out.getvalue()


def unpacked(made: audit.Made, place: Path) -> Path:
    """As an auditor does it: the system's own tar."""
    place.mkdir()
    subprocess.run(["tar", "xzf", "-", "-C", str(place)], input=packed(made), check=True)
    (directory,) = place.iterdir()
    return directory


@pytest.fixture
def made(tmp_path: Path, signer: Signer) -> audit.Made:
    return audit.compose(source(tmp_path / "home", signer))


@pytest.mark.req("O5")
def test_a_bundle_is_whole_wherever_it_is_unpacked(made: audit.Made, tmp_path: Path) -> None:
    directory = unpacked(made, tmp_path / "elsewhere")
    assert directory.name == f"inbounds-{evidence.RUN_ID}"
    present = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    assert present == {
        *("journal.jsonl", "manifest.json", "contract.json", "blast_radius.json", "diff.patch", "report.html"),
        *("index.json", "README.txt", "SHA256SUMS", "keys/journal.pub"),
        *(f"attestations/{name}.dsse.json" for name in ("run", "tests", "review", "promotion", "bundle")),
    }
    subprocess.run(["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"], cwd=directory, check=True)
    checks = check.attestations(directory)
    assert [(one.name, one.ok) for one in checks] == [
        (name, True) for name in ("bundle", "promotion", "review", "run", "tests")
    ], checks
    done = subprocess.run(
        [sys.executable, "-I", "-m", "inbounds.export.check", "."],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        env={"HOME": str(tmp_path / "no-home"), "PATH": "/usr/bin:/bin"},
    )
    assert (done.returncode, done.stdout.count("holds")) == (0, 5), done


def test_the_same_run_gives_the_same_bytes(made: audit.Made, tmp_path: Path, signer: Signer) -> None:
    again = audit.compose(source(tmp_path / "again", signer))
    assert hashlib.sha256(packed(made)).digest() == hashlib.sha256(packed(again)).digest()
    assert packed(made)[3:8] == bytes(5)  # gzip: no name, no time (RFC 1952)
    with tarfile.open(fileobj=io.BytesIO(packed(made))) as archive:
        heads = [(m.uid, m.gid, m.uname, m.gname, m.mtime, m.mode, m.isreg()) for m in archive]
    assert set(heads) == {(0, 0, "", "", 0, 0o644, True)}


def _link(path: Path) -> Path:
    path.symlink_to("/etc/hostname")
    return path


TAMPERINGS: dict[str, Callable[[Path], object]] = {
    "journal": lambda d: (d / "journal.jsonl").write_bytes((d / "journal.jsonl").read_bytes()[:-1]),
    "report": lambda d: (d / "report.html").write_text("all is well"),
    "added": lambda d: (d / "more.txt").write_text("x"),
    "removed": lambda d: (d / "diff.patch").unlink(),
    "linked": lambda d: os.replace(_link(d.parent / "link"), d / "diff.patch"),
    "statement": lambda d: (d / "attestations/run.dsse.json").write_bytes(
        (d / "attestations/run.dsse.json").read_bytes().replace(b'"sig":"', b'"sig":"AA')
    ),
    "swapped": lambda d: (d / "attestations/run.dsse.json").write_bytes(
        (d / "attestations/review.dsse.json").read_bytes()
    ),
    "key": lambda d: (d / "keys/journal.pub").write_text(f"{Signer(bytes(32)).key}\n"),
    "no key": lambda d: (d / "keys/journal.pub").unlink(),
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_each_tampering_shows(made: audit.Made, tmp_path: Path, tampering: str) -> None:
    directory = unpacked(made, tmp_path / "elsewhere")
    assert all(one.ok for one in check.attestations(directory))
    TAMPERINGS[tampering](directory)
    assert not all(one.ok for one in check.attestations(directory))
    assert check.main([str(directory)]) == 1


def test_a_bundle_made_anew_by_a_forger_does_not_hold_under_the_key_from_elsewhere(
    tmp_path: Path, signer: Signer
) -> None:
    forged = audit.compose(source(tmp_path / "home", Signer(b"\5" * 32)))
    directory = unpacked(forged, tmp_path / "elsewhere")
    known = tmp_path / "known.pub"
    known.write_text(f"{signer.key}\n")
    assert check.main([str(directory)]) == 0  # it is sound in itself
    assert check.main([str(directory), "--key", str(known)]) == 1


@pytest.mark.req("O5")
def test_secrets_in_readable_members_are_replaced_and_the_index_says_so(made: audit.Made) -> None:
    content = {member.name: member.content for member in made.members}
    assert not any(TOKEN.encode() in one for one in content.values())
    assert b"[redacted github-pat " in content["diff.patch"]
    assert b"[redacted github-pat " in content["report.html"]
    index = json.loads(content["index.json"])
    assert index["redacted"] == {"diff.patch": {"github-pat": 1}, "report.html": {"github-pat": 1}}
    assert index["secrets_in_evidence"] == {"count": 0, "listed": []}


def spoken() -> list[tuple[str, dict[str, Any]]]:
    steps = exported_run.steps()
    said = next(data for kind, data in steps if kind == "agent.said")
    said["text"] = f"I found\n\ttoken = '{TOKEN}'\nin the environment"
    return steps


@pytest.mark.req("O5")
def test_evidence_with_a_secret_is_refused_and_with_force_unchanged_and_named(tmp_path: Path, signer: Signer) -> None:
    given = source(tmp_path, signer, spoken())
    with pytest.raises(RefusedError, match=r"journal\.jsonl line") as refusal:
        audit.compose(given)
    assert TOKEN not in str(refusal.value)
    assert "--force" in refusal.value.fix
    made = audit.compose(given, force=True)
    content = {member.name: member.content for member in made.members}
    assert content["journal.jsonl"] == given.files["journal.jsonl"]
    held = made.index["secrets_in_evidence"]
    assert {item["member"] for item in held["listed"]} == {"journal.jsonl", "manifest.json"}
    assert TOKEN not in json.dumps(made.index)


def test_without_a_key_a_bundle_says_that_nothing_is_attested(tmp_path: Path) -> None:
    made = audit.compose(source(tmp_path / "home", None))
    assert made.index["missing"]["attestations/"] == "this state directory has no key that signs"
    directory = unpacked(made, tmp_path / "elsewhere")
    assert check.attestations(directory) == ()
    assert check.main([str(directory)]) == 1


def test_a_journal_that_does_not_hold_is_packed_and_not_attested(tmp_path: Path, signer: Signer) -> None:
    broken = replace(source(tmp_path / "home", signer), facts=None)
    made = audit.compose(broken)
    assert "journal.jsonl" in {member.name for member in made.members}
    assert "does not hold" in made.index["missing"]["attestations/"]
    directory = unpacked(made, tmp_path / "elsewhere")
    assert [one.name for one in check.attestations(directory)] == ["bundle"]


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "a/../b", "..", "a/b/c", "", ".hidden", "a\nb", "a b", "x" * 65, "a/"]
)
def test_no_member_has_a_name_that_leads_elsewhere(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        Member(name, b"", "")


def test_no_run_has_an_id_that_leads_elsewhere() -> None:
    with pytest.raises(ValueError, match="no run"):
        bundle.directory("../x")


def test_a_patch_that_names_foreign_paths_is_a_text_like_any_other(tmp_path: Path, signer: Signer) -> None:
    given = source(tmp_path / "home", signer)
    hostile = b"--- a/../../../../etc/cron.d/x\n+++ b/../../../../etc/cron.d/x\n\xff\xfe\n"
    made = audit.compose(replace(given, files={**given.files, "diff.patch": hostile}))
    directory = unpacked(made, tmp_path / "elsewhere")
    assert (directory / "diff.patch").read_bytes() == hostile
    assert {path.name for path in (tmp_path / "elsewhere").iterdir()} == {directory.name}
