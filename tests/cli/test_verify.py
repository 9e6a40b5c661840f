"""`inbounds verify`: exit 0 for evidence that holds, 1 for each way of tampering with it."""

import json
import shutil
import subprocess
from pathlib import Path

import evidence
import pytest
import tampering

from inbounds.gateway import schema
from inbounds.journal import anchor
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


def test_an_exported_copy_needs_its_anchors_and_a_key(stored: Path, tmp_path: Path, inbounds) -> None:
    copy = tmp_path / "export" / stored.name
    shutil.copytree(stored, copy)
    anchors, key = stored.parents[1] / "anchors" / f"{stored.name}.jsonl", stored.parents[1] / "keys" / "journal.pub"
    assert inbounds("verify", "--dir", str(copy)).returncode == 1
    keyless = inbounds("verify", "--dir", str(copy), "--anchors", str(anchors))
    assert keyless.returncode == 1
    assert keyless.stdout.splitlines()[-1].endswith("not verified: not all checked")
    done = inbounds("verify", "--dir", str(copy), "--anchors", str(anchors), "--key", str(key))
    assert done.returncode == 0, done.stdout
    assert inbounds("verify", "--dir", str(copy), "--key", str(anchors)).returncode == 100
    assert inbounds("verify", stored.name, "--dir", str(copy)).returncode == 100
    (tmp_path / "junk").write_text("no anchor\n")
    assert inbounds("verify", "--dir", str(copy), "--anchors", str(tmp_path / "junk")).returncode == 100


@pytest.fixture
def clone(stored: Path, tmp_path: Path) -> Path:
    """A clone of the agent branch: one commit of the run, whose message names the journal's head of then."""
    commit = next(record for record in evidence.read(stored) if record.kind == "commit.made")
    head = evidence.read(stored)[commit.seq - 1]
    return commits(tmp_path / "clone", f"one\n\nPlan: PLAN-12\nRun: {stored.name}\nJournal: {head.seq}:{head.hash}\n")


def commits(place: Path, *messages: str) -> Path:
    def git(*args: str) -> None:
        person = ["-c", "user.name=a", "-c", "user.email=a@example.invalid"]
        subprocess.run(["git", "-C", str(place), *person, *args], check=True, capture_output=True)

    place.mkdir(exist_ok=True)
    git("init", "-q")
    for message in messages:
        git("commit", "-q", "--allow-empty", "-m", message)
    return place


def check(done: "subprocess.CompletedProcess[str]", name: str) -> dict[str, object]:
    found: dict[str, object] = next(one for one in json.loads(done.stdout)["checks"] if one["name"] == name)
    return found


@pytest.mark.req("H14")
def test_a_clone_is_a_witness_that_this_account_does_not_keep(stored: Path, clone: Path, inbounds) -> None:
    assert "only an outside one counts" in inbounds("verify").stdout
    good = inbounds("verify", stored.name, "--from", str(clone), "--json")
    assert good.returncode == 0, good.stdout
    assert "1 in the clone's commits" in str(check(good, "anchors")["detail"])
    assert json.loads(good.stdout)["notes"] == []
    # All of it rewritten, by somebody who has the key and every file of this state directory:
    found = tampering.steps(stored)
    found[tampering.at(stored, "denial")][2]["detail"] = "example.invalid"
    found[tampering.at(stored, "iteration.started")][2]["n"] = 7
    tampering.resigned(stored, found, evidence.SIGNER)
    last = evidence.read(stored)[-1]
    tampering.anchors(stored).write_bytes(anchor.Anchor(last.seq, last.hash, "").line())
    assert inbounds("verify").returncode == 0, "nothing of its own finds that"
    bad = inbounds("verify", "--from", str(clone), "--json")
    assert bad.returncode == 1
    assert check(bad, "anchors")["kind"] == "fork"


def test_a_promotion_names_the_head_alone(stored: Path, tmp_path: Path, inbounds) -> None:
    head = evidence.read(stored)[-3].hash
    text = "Promote\n\nInbounds-Plan: PLAN-12\nInbounds-Run: {}\nInbounds-Journal-Head: {}\n"
    good = commits(tmp_path / "good", text.format(stored.name, head))
    assert "1 in the clone's commits" in inbounds("verify", "--from", str(good)).stdout
    bad = commits(tmp_path / "bad", text.format(stored.name, "5e" * 32))
    done = inbounds("verify", "--from", str(bad), "--json")
    assert check(done, "anchors")["kind"] == "rewritten"
    of_another_run = commits(tmp_path / "other", text.format("20261120-000000-ffffff", "5e" * 32))
    assert inbounds("verify", "--from", str(of_another_run)).returncode == 0


def test_a_clone_is_read_without_doing_what_it_says(stored: Path, clone: Path, tmp_path: Path, inbounds) -> None:
    trap = tmp_path / "trap"
    for hook in ("post-checkout", "pre-commit", "reference-transaction"):
        (clone / ".git" / "hooks" / hook).write_text(f"#!/bin/sh\ntouch {trap}\n")
        (clone / ".git" / "hooks" / hook).chmod(0o755)
    with (clone / ".git" / "config").open("a") as config:
        config.write(f"[core]\n\tfsmonitor = touch {trap}\n\tpager = touch {trap}\n\tsshCommand = touch {trap}\n")
        config.write(
            f"[log]\n\tshowSignature = true\n[gpg]\n\tprogram = touch {trap}\n[diff]\n\texternal = touch {trap}\n"
        )
    assert inbounds("verify", "--from", str(clone)).returncode == 0
    assert not trap.exists()
    assert inbounds("verify", "--from", str(tmp_path)).returncode == 100, "no repository"


@pytest.mark.req("H14")
def test_the_ledger_is_a_witness(stored: Path, home: Path, inbounds) -> None:
    heads = evidence.read(stored)
    ledger = schema.open_ledger(str(home / "ledger.sqlite"))
    ledger.execute("PRAGMA foreign_keys = OFF")  # the run itself is not in it: no gateway ever ran here
    row = "INSERT INTO anchors (run_id, seq, hash, size, root, note, at_ms) VALUES (?, ?, ?, 0, '', '', 0)"
    ledger.execute(row, (stored.name, heads[20].seq, heads[20].hash))
    ledger.commit()
    good = inbounds("verify", "--json")
    assert good.returncode == 0, good.stdout
    assert "1 in the ledger" in str(check(good, "anchors")["detail"])
    ledger.execute(row, (stored.name, 30, "5e" * 32))
    ledger.commit()
    ledger.close()
    bad = inbounds("verify", "--json")
    assert bad.returncode == 1
    assert "the ledger has seen" in str(check(bad, "anchors")["detail"])


def test_verifying_changes_nothing(stored: Path, home: Path, inbounds) -> None:
    inbounds("status", "--no-recover")  # makes what a state directory needs

    def snapshot() -> dict[str, tuple[int, int]]:
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in home.rglob("*") if path.is_file()}

    before = snapshot()
    inbounds("verify")
    assert snapshot() == before
