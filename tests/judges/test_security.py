import base64
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from inbounds.contracts.job import Job, JobResult
from inbounds.contracts.verdict import Outcome, Verdict
from inbounds.judges import bandit, secrets
from inbounds.judges.added import Added, added
from inbounds.judges.toolbox import Toolbox, toolbox

RunJob = Callable[[Job, Path], JobResult]
TREE = "0" * 40
DECOY = b"inbounds-decoy-7f3a9c55d1e84b20aa61"


def token(seed: str) -> str:
    """A credential by form, made at run time so that this file holds none."""
    return secrets.sample(hashlib.sha256(seed.encode()).hexdigest(), 1)


def tools_here() -> Toolbox:
    """The toolbox with its directories as the host has them: no jail moves them in these tests."""
    tools = toolbox()
    host = {jail: path for path, jail in tools.binds}
    return replace(tools, sys_path=tuple(host.get(path, path) for path in tools.sys_path))


@pytest.fixture
def scan(run_job_unboxed: RunJob, tmp_path: Path) -> Callable[..., Verdict]:
    def run(text: bytes, **change: object) -> Verdict:
        material = secrets.Material(added("src/a.py", None, text), {"aws": DECOY}, 1)
        material = replace(material, **change)  # type: ignore[arg-type]  # fields by name
        nonce = os.urandom(16).hex()
        job = secrets.plan(material, tools_here(), TREE, nonce)
        return secrets.judge(material, nonce, run_job_unboxed(job, tmp_path) if job else None)

    return run


def rules(verdict: Verdict) -> set[str]:
    return {finding.rule for finding in verdict.findings}


@pytest.mark.req("N3")
def test_a_planted_credential_is_found_with_its_line_and_never_repeated(scan: Callable[..., Verdict]) -> None:
    secret = token("x")
    verdict = scan(f"one\ntwo\nkey = '{secret}'\n".encode())
    assert verdict.outcome is Outcome.FAIL
    assert rules(verdict) == {"secrets.github-pat"}
    assert verdict.findings[0].line == 3
    assert secret not in json.dumps(verdict.as_json())
    assert verdict.facts["control"] == "found"


def test_ordinary_code_passes_with_the_control_found(scan: Callable[..., Verdict]) -> None:
    verdict = scan(Path(secrets.__file__).read_bytes())
    assert verdict.outcome is Outcome.PASS, verdict
    assert verdict.facts["control"] == "found"


@pytest.mark.parametrize(
    "text",
    [
        "key = '{}'  # gitleaks:allow\n",
        "key = '{}'  # betterleaks:allow\n",
        "x\0\nkey = '{}'\n",
        "# betterleaks: allow\nkey = '{}'\n",
    ],
)
def test_the_scanner_can_not_be_told_to_look_away(text: str, scan: Callable[..., Verdict]) -> None:
    assert "secrets.github-pat" in rules(scan(text.format(token("y")).encode()))


def test_base64_of_a_credential_is_found(scan: Callable[..., Verdict]) -> None:
    coded = base64.b64encode(f"token = '{token('z')}'\n".encode()).decode()
    verdict = scan(f"a\nb\nblob = '{coded}'\n".encode())
    assert rules(verdict) == {"secrets.github-pat"}
    assert verdict.findings[0].line == 3


def test_bare_key_ids_and_bearer_headers_are_found(scan: Callable[..., Verdict]) -> None:
    key_id = "AKIA" + "Q3EGSX7T5LPWBZN4"
    assert "secrets.aws-key-id" in rules(scan(f"k = '{key_id}'\n".encode()))
    header = f"Authorization: Bearer {token('b')[4:]}"
    assert "secrets.bearer-header" in rules(scan(header.encode()))
    assert scan(b"Authorization: Bearer your-token-placeholder-goes-here\n").outcome is Outcome.PASS


@pytest.mark.parametrize(
    "shape",
    [
        DECOY,
        b"x" + base64.b64encode(b"a" + DECOY + b"tail"),
        base64.urlsafe_b64encode(b"ab" + DECOY),
        base64.b64encode(b"abc" + DECOY + b"z"),
        DECOY.hex().encode(),
        b"'" + DECOY[:10] + b"' +\n    '" + DECOY[10:] + b"'",
        DECOY[::-1],
    ],
)
def test_the_content_of_a_decoy_is_critical_in_any_shape(shape: bytes, scan: Callable[..., Verdict]) -> None:
    verdict = scan(b"x = " + shape + b"\n")
    assert "secrets.decoy" in rules(verdict)
    assert DECOY.decode() not in json.dumps(verdict.as_json())


@pytest.mark.without("secrets-control")
def test_a_scanner_that_sees_nothing_is_inconclusive(
    run_job_unboxed: RunJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind = tmp_path / "blind"
    blind.mkdir()
    (blind / "betterleaks.py").write_text(
        "__version__ = __upstream_version__ = '2'\ndef scan_string(text):\n    return []\n"
    )
    tools = replace(tools_here(), sys_path=(str(blind),))
    material = secrets.Material((Added("a", 1, f"k = '{token('q')}'\n".encode()),), {}, 1)
    nonce = os.urandom(16).hex()
    if os.environ.get("INBOUNDS_TEST_WITHOUT") == "secrets-control":
        monkeypatch.setattr(secrets, "sample", lambda *_: "")
        monkeypatch.setattr(secrets, "_heard", lambda *_: secrets._Heard([], {}))
    job = secrets.plan(material, tools, TREE, nonce)
    assert job is not None
    verdict = secrets.judge(material, nonce, run_job_unboxed(job, tmp_path))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "planted sample" in verdict.summary


def test_nothing_to_scan_is_said_or_inconclusive(scan: Callable[..., Verdict]) -> None:
    assert scan(b"", added=(), changed=0).outcome is Outcome.PASS
    assert scan(b"", added=(), changed=2).outcome is Outcome.INCONCLUSIVE
    only_removed = scan(b"")
    assert only_removed.outcome is Outcome.PASS
    assert only_removed.facts["control"] == "found"
    assert scan(b"x = 1\n", skipped=("big.bin",)).outcome is Outcome.INCONCLUSIVE
    material = secrets.Material((Added("a", 1, b"x"),), {}, 1)
    dead = JobResult("killed", -1, 9, b"", b"", {}, 1)
    assert secrets.judge(material, "ab" * 16, dead).outcome is Outcome.INCONCLUSIVE
    for answer in (b"", b"[]", b'{"version": "2", "items": "x", "found": []}', b"[" * 100_000):
        odd = JobResult("exited", 0, 0, b"", b"", {secrets.OUTPUT: answer}, 1)
        assert secrets.judge(material, "ab" * 16, odd).outcome is Outcome.INCONCLUSIVE


def test_the_control_is_of_a_form_that_the_scanner_always_knows() -> None:
    import betterleaks

    for seed in range(300):
        text = f"token = '{secrets.sample(hashlib.sha256(str(seed).encode()).hexdigest(), seed)}'\n"
        assert [hit.rule_id for hit in betterleaks.scan_string(text)] == ["github-pat"], seed


def test_added_lines_are_those_that_the_old_blob_lacked() -> None:
    old, new = b"a\nb\nc\n", b"a\nx\ny\nc\nb\nz"
    assert [(block.line, block.text) for block in added("p", old, new)] == [(2, b"x\ny\n"), (6, b"z")]
    assert list(added("p", old, new)[0].lines) == [2, 3]
    assert added("p", old, old) == added("p", None, b"") == added("p", old, b"") == (Added("p", 1, b""),)
    assert list(added("p", old, old)[0].lines) == []
    assert added("p", b"a\n", b"a\na\n")[0].line == 2


BAD = "import subprocess\n\ndef run(c):\n    return subprocess.call(c, shell=True)\n"


@pytest.fixture
def review(run_job_unboxed: RunJob, tmp_path: Path) -> Callable[[dict[str, tuple[str | None, str]]], Verdict]:
    def run(files: dict[str, tuple[str | None, str]], tools: Toolbox | None = None) -> Verdict:
        checkout = tmp_path / "checkout"
        blocks: list[Added] = []
        for name, (old, new) in files.items():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            (checkout / name).write_text(new)
            blocks += added(name, old.encode() if old is not None else None, new.encode())
        job = bandit.plan(blocks, tools or tools_here(), TREE)
        result = run_job_unboxed(job, checkout) if job else None
        if result:
            print(result.stderr.decode()[-2000:])
        return bandit.judge(blocks, result, work=str(checkout))

    return run


def test_a_grave_finding_on_a_new_line_fails(review: Callable[..., Verdict]) -> None:
    verdict = review({"src/a.py": (None, BAD), "-x.py": (None, "x = 1\n")})
    assert verdict.outcome is Outcome.FAIL, verdict
    grave = verdict.findings[0]
    assert (grave.rule, grave.path, grave.line) == ("bandit.B602", "src/a.py", 4)
    assert verdict.facts["version"] == importlib.metadata.version("bandit")


@pytest.mark.req("H8")
def test_the_scanners_version_is_its_own_word(review: Callable[..., Verdict]) -> None:
    blocks = added("a.py", None, b"x = 1\n")
    clean = {"results": [], "errors": [], "metrics": {"/work/a.py": {}}}
    outputs = {bandit.OUTPUT: json.dumps(clean).encode()}
    for said, kept in ((b"1.2.3\n", {"version": "1.2.3"}), (b"", {}), (b"9" * 500, {"version": "9" * 80})):
        result = JobResult("exited", 0, 0, b"", b"", {**outputs, bandit.VERSION: said}, 1)
        verdict = bandit.judge(blocks, result)
        assert verdict.outcome is Outcome.PASS
        assert {key: value for key, value in verdict.facts.items() if key == "version"} == kept
    assert "version" not in bandit.judge(blocks, JobResult("exited", 0, 0, b"", b"", outputs, 1)).facts
    assert "version" not in review({"a.txt": (None, "x\n")}).facts  # nothing was run


def test_what_was_there_before_does_not_count(review: Callable[..., Verdict]) -> None:
    verdict = review({"src/a.py": (BAD, BAD + "\nx = 1\n")})
    assert verdict.outcome is Outcome.PASS
    assert verdict.facts["old_findings"] >= 1


@pytest.mark.parametrize(
    "files",
    [
        {"src/a.py": (None, BAD.replace("True)", "True)  # nosec"))},
        {"src/a.py": (None, BAD), ".bandit": (None, "[bandit]\nskips: B602\nexclude: src\n")},
        {".tox/a.py": (None, BAD)},
        {
            "src/a.py": (None, BAD),
            "bandit.py": (None, "raise SystemExit(0)\n"),
            "yaml.py": (None, "raise SystemExit(0)\n"),
        },
    ],
    ids=["nosec", "configuration", "excluded-directory", "shadowed-modules"],
)
def test_the_repository_can_not_switch_the_review_off(
    files: dict[str, tuple[None, str]], review: Callable[..., Verdict]
) -> None:
    assert review(files).outcome is Outcome.FAIL


def test_what_bandit_can_not_read_is_inconclusive(review: Callable[..., Verdict], tmp_path: Path) -> None:
    assert review({"src/a.py": (None, "def (:\n")}).outcome is Outcome.INCONCLUSIVE
    lacking = replace(tools_here(), sys_path=(str(tmp_path),), python="/usr/bin/false")
    blocks = added("a.py", None, b"x = 1\n")
    assert bandit.plan(blocks, lacking, TREE) is not None
    assert bandit.judge(blocks, JobResult("exited", 2, 0, b"", b"", {}, 1)).outcome is Outcome.INCONCLUSIVE
    empty = JobResult("exited", 0, 0, b"", b"", {bandit.OUTPUT: b'{"results": [], "errors": [], "metrics": {}}'}, 1)
    assert bandit.judge(blocks, empty).outcome is Outcome.INCONCLUSIVE


def test_an_empty_module_and_removed_lines_are_clean(review: Callable[..., Verdict]) -> None:
    verdict = review({"src/__init__.py": (None, ""), "src/a.py": ("x = 1\ny = 2\n", "x = 1\n")})
    assert verdict.outcome is Outcome.PASS, verdict


def test_no_python_is_said(review: Callable[..., Verdict]) -> None:
    verdict = review({"a.js": (None, "eval(x)\n")})
    assert verdict.outcome is Outcome.PASS
    assert "no Python changed" in verdict.facts["note"]
