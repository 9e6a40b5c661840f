"""A repository whose .git/config, attributes and objects somebody else wrote: looking at it runs none of it on the host.

`inbounds init` and `inbounds run` look at a repository with git; an archive or an agent's shell may have made it.
"""

import os
import subprocess
from pathlib import Path

import pytest
from made_repository import repository, run

from inbounds.discover.owners import owners_of
from inbounds.discover.repository import look
from inbounds.store.store import Store

SIGNED = """tree {tree}
parent {parent}
author Ada <ada@example.com> 1700000000 +0000
committer Ada <ada@example.com> 1700000000 +0000
gpgsig -----BEGIN PGP SIGNATURE-----
 iQ
 -----END PGP SIGNATURE-----

signed
"""


def looks_changed(file: Path) -> None:
    """Another time than the index has: git must read the file again, through its filter."""
    os.utime(file, (1_000_000_000, 1_000_000_000))


@pytest.fixture
def planted(tmp_path: Path) -> tuple[Path, Path]:
    """A repository that leaves a file in the second directory if git is made to run something of it."""
    caught = tmp_path / "caught"
    caught.mkdir()
    top = repository(tmp_path / "top", {"a.py": "1\n", "b.md": "2\n", "sub/c": "3\n"})
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {caught}/$(basename $0)-ran\nexit 1\n")
    program.chmod(0o755)
    (top / ".gitattributes").write_text("*.py filter=x\n*.md filter=a=b.c\n")
    (top / ".git" / "more").write_text(
        f'[filter "x"]\n\tclean = touch {caught}/clean; cat\n\trequired = true\n'
        f'[filter "a=b.c"]\n\tprocess = touch {caught}/process\n'
        f"[log]\n\tshowSignature = true\n[gpg]\n\tprogram = {program}\n[core]\n\tfsmonitor = {program}\n"
    )
    with (top / ".git" / "config").open("a") as config:
        config.write("[include]\n\tpath = more\n")
    text = SIGNED.format(
        tree=run(top, "rev-parse", "HEAD^{tree}").strip(), parent=run(top, "rev-parse", "HEAD").strip()
    )
    (tmp_path / "commit").write_text(text)
    commit = run(top, "hash-object", "-t", "commit", "-w", str(tmp_path / "commit")).strip()
    run(top, "update-ref", "refs/heads/main", commit)
    for name in ("a.py", "b.md"):
        looks_changed(top / name)
    return top, caught


def test_looking_runs_nothing_of_the_repository(planted: tuple[Path, Path]) -> None:
    top, caught = planted
    looked = look(top)
    owners_of(top, "")
    assert {item.path for item in looked.uncommitted} == {".gitattributes"}
    assert not os.listdir(caught)
    # the control: git as a person would type it runs all three
    subprocess.run(["git", "status"], cwd=top, capture_output=True, check=False)
    subprocess.run(["git", "log", "-1"], cwd=top, capture_output=True, check=False)
    assert {"clean", "program-ran"} <= set(os.listdir(caught))


def test_a_submodule_is_not_entered(tmp_path: Path) -> None:
    caught = tmp_path / "caught"
    inner = repository(tmp_path / "inner", {"a.py": "1\n", ".gitattributes": "*.py filter=x\n"})
    top = repository(tmp_path / "top", {"b": "2\n"})
    run(top, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "inner")
    run(top, "commit", "-q", "-m", "submodule")
    run(top / "inner", "config", "filter.x.clean", f"touch {caught}; cat")
    looks_changed(top / "inner" / "a.py")
    assert look(top).submodules == ("inner",)
    assert not caught.exists()
    subprocess.run(["git", "status"], cwd=top, capture_output=True, check=False)
    assert caught.exists()


def test_no_missing_object_is_fetched_by_a_program_of_the_repository(tmp_path: Path) -> None:
    caught = tmp_path / "caught"
    top = repository(tmp_path / "top", {"a": "1\n"})
    blob = run(top, "rev-parse", "HEAD:a").strip()
    (top / ".git" / "more").write_text(
        f'[remote "origin"]\n\turl = ext::sh -c touch% {caught}\n\tpromisor = true\n[extensions]\n\tpartialClone = origin\n'
        '[protocol "ext"]\n\tallow = always\n'
    )
    run(top, "config", "core.repositoryFormatVersion", "1")
    with (top / ".git" / "config").open("a") as config:
        config.write("[include]\n\tpath = more\n")
    (top / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    store = Store.create(str(tmp_path / "state" / "store.git"))
    with pytest.raises(Exception, match="partial clone"):
        store.fetch(str(top))
    look(top)
    assert not caught.exists()
    subprocess.run(["git", "cat-file", "-p", blob], cwd=top, capture_output=True, check=False)
    assert caught.exists()
