"""`inbounds verify`: exit 0 for evidence that holds, 1 for each way of tampering with it."""

import json
import shutil
import subprocess
from pathlib import Path

import evidence
import pytest

from inbounds.store.store import Store


@pytest.fixture
def stored(home: Path) -> Path:
    """A finished run whose commits and trees are really in a store of this state directory."""
    store = Store.create(str(home / "stores" / "repository-1" / "store.git"))
    tree = subprocess.run(
        ["git", "--git-dir", store.path, "mktree"], input=b"", capture_output=True, check=True
    ).stdout.decode().strip()  # fmt: skip
    commit = store.commit(tree, [], "Plan: PLAN-12\n", "inbounds <inbounds@localhost.invalid>", 0)
    steps = []
    for kind, data in evidence.good_run():
        named = {"store": store.path, "base_commit": commit, "base_tree": tree, "commit": commit, "tree": tree}
        steps.append((kind, {key: named.get(key, value) for key, value in data.items()}))
    return evidence.write(home, steps)


def test_evidence_that_holds(stored: Path, inbounds) -> None:
    done = inbounds("verify")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == f"{stored.name}: verified"
    facts = json.loads(inbounds("verify", "--json").stdout)
    assert facts["ok"] is True
    assert {"chain", "anchors", "ending", "stop sequence", "manifest", "contract", "store"} <= {
        check["name"] for check in facts["checks"]
    }


def replaced(path: Path, old: bytes, new: bytes) -> None:
    raw = path.read_bytes()
    assert old in raw
    path.write_bytes(raw.replace(old, new, 1))


def edit(run: Path) -> None:
    replaced(run / "journal.jsonl", b'"spent_micro_usd":82000', b'"spent_micro_usd":12000')


def drop(run: Path) -> None:
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (run / "journal.jsonl").write_bytes(b"".join(lines[:7] + lines[8:]))


def truncate(run: Path) -> None:
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (run / "journal.jsonl").write_bytes(b"".join(lines[:-2]))


def rewrite(run: Path) -> None:
    records = [(record.at_ms, record.kind, record.data) for record in evidence.read(run)]
    evidence.rechained(run, [record for record in records if record[1] != "denial"])
    evidence.close(run)


def embellish(run: Path) -> None:
    replaced(run / "manifest.json", b'"spent_micro_usd"', b'"spent_micro_eur"')


def loosen(run: Path) -> None:
    replaced(run / "contract.json", b'"budget_micro_usd":5000000', b'"budget_micro_usd":9000000')


def widen(run: Path) -> None:
    (run / "blast_radius.json").write_text("{}")


def lose(run: Path) -> None:
    (run / "manifest.json").unlink()


def forget(run: Path) -> None:
    shutil.rmtree(run.parents[1] / "anchors")


def burn(run: Path) -> None:
    shutil.rmtree(run.parents[1] / "stores")


@pytest.mark.req("H14")
@pytest.mark.parametrize(
    "tamper",
    [edit, drop, truncate, rewrite, embellish, loosen, widen, lose, forget, burn],
    ids=lambda one: one.__name__,
)
def test_each_way_of_tampering_shows(stored: Path, inbounds, tamper) -> None:
    tamper(stored)
    done = inbounds("verify", stored.name)
    assert done.returncode == 1, done.stdout
    assert "FAILS" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("NOT verified")
    assert json.loads(inbounds("verify", "--json").stdout)["ok"] is False


def test_a_journal_cannot_point_git_at_another_place(home: Path, tmp_path: Path, inbounds) -> None:
    trap = Store.create(str(tmp_path / "elsewhere.git"))
    steps = evidence.good_run()
    steps[0][1]["store"] = trap.path
    evidence.write(home, steps)
    facts = json.loads(inbounds("verify", "--json").stdout)
    assert [check["ok"] for check in facts["checks"] if check["name"] == "store"] == [False]


def test_an_exported_copy_needs_its_anchors(stored: Path, tmp_path: Path, inbounds) -> None:
    copy = tmp_path / "export" / stored.name
    shutil.copytree(stored, copy)
    anchors = stored.parents[1] / "anchors" / f"{stored.name}.jsonl"
    assert inbounds("verify", "--dir", str(copy)).returncode == 1
    done = inbounds("verify", "--dir", str(copy), "--anchors", str(anchors))
    assert done.returncode == 0, done.stdout
    assert inbounds("verify", stored.name, "--dir", str(copy)).returncode == 100
    (tmp_path / "junk").write_text("no anchor\n")
    assert inbounds("verify", "--dir", str(copy), "--anchors", str(tmp_path / "junk")).returncode == 100


def test_verifying_changes_nothing(stored: Path, home: Path, inbounds) -> None:
    inbounds("status", "--no-recover")  # makes what a state directory needs

    def snapshot() -> dict[str, tuple[int, int]]:
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in home.rglob("*") if path.is_file()}

    before = snapshot()
    inbounds("verify")
    assert snapshot() == before
