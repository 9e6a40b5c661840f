"""Static analysis of the Python that a run changed (N2): bandit in the reviewer's jail, findings on new lines only.

Pure. A file that bandit could not read, or did not mention, makes the answer INCONCLUSIVE. Knows Python only, and says
so where nothing of it changed.
"""

import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any

from inbounds.contracts.job import OUT, WORK, Job, JobResult
from inbounds.contracts.verdict import Finding, Outcome, Severity, Verdict
from inbounds.judges.added import Added
from inbounds.judges.scope import shown
from inbounds.judges.tests import JOB
from inbounds.judges.toolbox import Toolbox

JUDGE = "bandit"
OUTPUT = "bandit.json"
VERSION = "bandit.version"
VERSION_CHARS_MAX = 80
FILES_MAX = 2_000  # as arguments; a plan that changes more Python files than that is no plan
FINDINGS_MAX = 200
_CLEAN, _FOUND = 0, 1  # bandit's exit codes; anything else is an error
_GRADE = {"HIGH": 2, "MEDIUM": 1, "LOW": 0}


def scanned(added: Sequence[Added]) -> tuple[str, ...]:
    """The changed Python files, by name."""
    return tuple(dict.fromkeys(block.path for block in added if block.path.endswith((".py", ".pyi", ".pyw"))))


def plan(added: Sequence[Added], tools: Toolbox, tree: str) -> Job | None:
    """Bandit over the changed Python files; None where there is none, or more than FILES_MAX."""
    files = scanned(added)
    if not files or len(files) > FILES_MAX:
        return None
    # --ignore-nosec: a comment is the agent's word. No configuration of the repository is read: an empty one of ours,
    # and an exclusion that fits nothing instead of bandit's list of directory names.
    args = [
        "--ignore-nosec",
        "--ini",
        f"{JOB}/bandit.ini",
        "-x",
        "/nowhere/at/all",
        "-f",
        "json",
        "-o",
        f"{OUT}/{OUTPUT}",
    ]
    spec = {
        "sys_path": list(tools.sys_path),
        "args": [*args, *[f"{WORK}/{path}" for path in files]],
        "version_out": f"{OUT}/{VERSION}",
    }
    source = importlib.resources.files("inbounds.judges").joinpath("bandit_scan.py").read_bytes()
    return Job(
        judge=JUDGE,
        role="reviewer",
        argv=(tools.python, "-I", "-B", f"{JOB}/bandit_scan.py", f"{JOB}/spec.json"),
        tree=tree,
        files={"bandit_scan.py": source, "bandit.ini": b"[bandit]\n", "spec.json": json.dumps(spec).encode()},
        outputs=(OUTPUT, VERSION),
        deadline_ms=300_000,
    )


def judge(added: Sequence[Added], result: JobResult | None, *, work: str = WORK) -> Verdict:
    """FAIL on a finding of high severity and high confidence on a new line; lesser ones are listed and do not fail.

    `result` is None only where `plan` was; `work` is the root that the job saw. facts: files, new_findings,
    old_findings, errors, version (as the scanner said itself; absent where it said none).
    """
    files = scanned(added)
    if not files:
        facts: dict[str, Any] = {"files": 0, "note": "nothing to scan: no Python changed"}
        return Verdict(JUDGE, Outcome.PASS, "nothing to scan: no Python changed", (), facts)
    if len(files) > FILES_MAX:
        return _unclear(f"{len(files)} Python files changed, at most {FILES_MAX} are scanned", len(files))
    if result is None or result.reason != "exited" or result.exit_code not in {_CLEAN, _FOUND}:
        why = "was not run" if result is None else f"ended as {result.reason} with exit code {result.exit_code}"
        return _unclear(f"bandit {why}", len(files))
    try:
        answer = json.loads(result.outputs.get(OUTPUT, b""))
        hits = [_hit(entry, work) for entry in answer["results"]]
        errors = [shown(str(entry["filename"])[:300]) for entry in answer["errors"]]
        seen = {str(name).removeprefix(work + "/") for name in answer["metrics"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return _unclear(f"bandit's answer is unreadable: {type(error).__name__}", len(files))
    unseen = [shown(path) for path in files if path not in seen]
    new_lines: dict[str, set[int]] = {}
    for block in added:
        new_lines.setdefault(block.path, set()).update(block.lines)
    fresh = [finding for path, finding, lines in hits if lines & new_lines.get(path, set())]
    facts = {
        **_version(result),
        "files": len(files),
        "new_findings": len(fresh),
        "old_findings": len(hits) - len(fresh),
        "errors": errors[:FINDINGS_MAX],
        "unseen": unseen[:FINDINGS_MAX],
    }
    rank = list(Severity)
    fresh.sort(key=lambda f: (rank.index(f.severity), f.path, f.line))
    grave = [f for f in fresh if f.severity is Severity.HIGH]
    if grave:
        summary = f"{len(grave)} grave finding(s) on new lines, first: {grave[0].rule} {grave[0].path}"
        return Verdict(JUDGE, Outcome.FAIL, summary, tuple(fresh[:FINDINGS_MAX]), facts)
    if errors or unseen:
        summary = f"bandit could not read {len(errors)} file(s) and did not mention {len(unseen)}"
        return Verdict(JUDGE, Outcome.INCONCLUSIVE, summary, tuple(fresh[:FINDINGS_MAX]), facts)
    summary = f"{len(files)} Python file(s), {len(fresh)} minor finding(s) on new lines"
    return Verdict(JUDGE, Outcome.PASS, summary, tuple(fresh[:FINDINGS_MAX]), facts)


def _version(result: JobResult) -> dict[str, str]:
    said = result.outputs.get(VERSION, b"")[:VERSION_CHARS_MAX].decode("utf-8", "replace").strip()
    return {"version": shown(said)} if said else {}


def _unclear(why: str, files: int) -> Verdict:
    finding = Finding("bandit.no_answer", Severity.MEDIUM, "", why)
    return Verdict(JUDGE, Outcome.INCONCLUSIVE, why, (finding,), {"files": files})


def _hit(entry: Mapping[str, Any], work: str) -> tuple[str, Finding, set[int]]:
    """One result as (path, finding, lines it spans)."""
    path = str(entry["filename"]).removeprefix(work + "/")
    grade = _GRADE[str(entry["issue_severity"])] + _GRADE[str(entry["issue_confidence"])]
    severity = {4: Severity.HIGH, 3: Severity.MEDIUM}.get(grade, Severity.LOW)
    lines = {int(entry["line_number"]), *(int(number) for number in entry["line_range"])}
    message = shown(str(entry["issue_text"]))[:300]
    rule = f"bandit.{str(entry['test_id'])[:20]}"
    return path, Finding(rule, severity, shown(path), message, int(entry["line_number"])), lines
