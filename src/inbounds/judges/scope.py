"""Scope: what the tree changed against what the plan declared (J12, B6, B8, O6) and what would execute it later.

Pure. Looks at paths, modes and link targets of the snapshot, never at an agent's patch or report. Does not know what a
stop is: it names rules, the kernel decides.
"""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from inbounds.contracts.verdict import Finding, Outcome, Severity, Verdict
from inbounds.judges import globs, manifests
from inbounds.judges.planted import planted

JUDGE = "scope"
FINDINGS_MAX = 500  # a person reads the first dozen; the count of the rest is in the facts
SYMLINK, GITLINK, REGULAR = "120000", "160000", frozenset({"100644", "100755"})
PROTECTED_ALWAYS = (".inbounds/**", "**/.inbounds/**")  # contracts and policy of every thread (B8)


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two trees: status A|M|D|R|T, git modes as six octal digits ("" where absent).

    `link` is the target text of a symbolic link (new_mode 120000), "" for anything else. `old` and `new` are contents,
    wanted where `manifests.named(path)`: without them its name decides.
    """

    status: str
    path: str
    old_path: str = ""
    old_mode: str = ""
    new_mode: str = ""
    link: str = ""
    old: bytes | None = None
    new: bytes | None = None


@dataclass(frozen=True, slots=True)
class Foreign:
    """An entry that the snapshot met and refused to take: `what` in words (set-id file, nested .git, socket, ...)."""

    path: str
    what: str


@dataclass(frozen=True, slots=True)
class Declared:
    """What the plan allows: patterns as in globs.py; `thread` is a directory, "" for a thread that is the repository.

    `interfaces` are the shared paths outside the thread that the plan may write; `files_max` counts modifications of a
    whole run (E3), of which `files_before` were counted in earlier iterations.
    """

    targets: tuple[str, ...]
    thread: str = ""
    protected: tuple[str, ...] = ()
    acceptance: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()
    files_max: int = 200
    files_before: int = 0


@dataclass(frozen=True, slots=True)
class _Rules:
    targets: tuple[globs.Pattern, ...]
    literal: frozenset[str]
    protected: tuple[globs.Pattern, ...]
    acceptance: frozenset[str]
    interfaces: tuple[globs.Pattern, ...]
    thread: str


def judge(
    changes: Sequence[Change],
    declared: Declared,
    *,
    foreign: Sequence[Foreign] = (),
    complete: bool = True,
    why: str = "",
) -> Verdict:
    """FAIL on any finding, INCONCLUSIVE where the snapshot could not see everything, else PASS.

    Rules: scope.protected and scope.outside_thread (critical), scope.acceptance_test (critical), scope.undeclared,
    scope.executes_later, scope.symlink, scope.mode, scope.foreign, scope.files (high). OperatorError for a bad pattern.
    """
    rules = _parse(declared)
    findings: list[Finding] = []
    for change in changes:
        findings += _paths(change, rules)
        findings += _kind(change, rules)
    findings += [
        Finding("scope.foreign", Severity.HIGH, shown(item.path), f"{item.what}: kept out of the snapshot")
        for item in foreign
    ]
    total = declared.files_before + len(changes)
    if total > declared.files_max:
        message = f"{total} file modifications in this run, the plan allows {declared.files_max}"
        findings.append(Finding("scope.files", Severity.HIGH, "", message))
    rank = list(Severity)
    findings.sort(key=lambda f: (rank.index(f.severity), f.rule, f.path))
    facts = {
        "files": len(changes),
        "files_total": total,
        "files_max": declared.files_max,
        "complete": complete,
        "foreign": len(foreign),
        "findings": len(findings),
        "findings_left_out": max(0, len(findings) - FINDINGS_MAX),
    }
    shown_findings = tuple(findings[:FINDINGS_MAX])
    if findings:
        first = findings[0]
        summary = f"{len(findings)} finding(s), first: {first.rule} {first.path}".rstrip() + f": {first.message}"
        return Verdict(JUDGE, Outcome.FAIL, summary, shown_findings, facts)
    if not complete:
        summary = f"the snapshot is incomplete: {shown(why) or 'no reason given'}"
        return Verdict(JUDGE, Outcome.INCONCLUSIVE, summary, (), facts)
    return Verdict(JUDGE, Outcome.PASS, f"{len(changes)} change(s), all declared", (), facts)


def shown(text: str) -> str:
    """Text that an agent chose, made safe for JSON and for a terminal: control and undecodable characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _parse(declared: Declared) -> _Rules:
    targets = globs.parse_all(declared.targets)
    return _Rules(
        targets=targets,
        literal=frozenset(pattern.text for pattern in targets if pattern.literal),
        protected=globs.parse_all((*PROTECTED_ALWAYS, *declared.protected)),
        acceptance=frozenset(declared.acceptance),
        interfaces=globs.parse_all(declared.interfaces),
        thread=declared.thread.strip("/").removeprefix("./").removeprefix("."),
    )


def _paths(change: Change, rules: _Rules) -> list[Finding]:
    """Where the change is: one finding per path, the gravest rule that fits; a rename answers for both of its paths."""
    found: list[Finding] = []
    for path in dict.fromkeys(p for p in (change.path, change.old_path) if p):
        named, verb = shown(path), {"A": "created", "D": "deleted", "R": "renamed"}.get(change.status, "changed")
        if path in rules.acceptance:
            message = f"{verb}: this test judges the run and belongs to its owner"
            found.append(Finding("scope.acceptance_test", Severity.CRITICAL, named, message))
        elif globs.covered(path, rules.protected) or ".inbounds" in path.casefold().split("/"):
            message = f"{verb}: protected by policy, no plan can declare it"
            found.append(Finding("scope.protected", Severity.CRITICAL, named, message))
        elif _outside(path, rules):
            message = f"{verb}: outside the thread {rules.thread!r} and its declared interfaces"
            found.append(Finding("scope.outside_thread", Severity.CRITICAL, named, message))
        elif not globs.covered(path, rules.targets):
            message = f"{verb}: the plan declares no target that covers it"
            found.append(Finding("scope.undeclared", Severity.HIGH, named, message))
    return found


def _outside(path: str, rules: _Rules) -> bool:
    if posixpath.normpath(path) != path or path.startswith(("/", "../")):
        return True  # no tree of ours names a file so; whoever hands it in means another place than it seems
    within = not rules.thread or path.startswith(rules.thread + "/")
    return not within and not globs.covered(path, rules.interfaces)


def _kind(change: Change, rules: _Rules) -> list[Finding]:
    """What the change leaves behind: link, mode, and who would execute it later; a deletion leaves nothing."""
    if change.status == "D":
        return []
    found: list[Finding] = []
    named = shown(change.path)
    if change.new_mode == SYMLINK:
        reason = _link_leaves(change)
        if reason:
            found.append(Finding("scope.symlink", Severity.HIGH, named, reason))
    elif change.new_mode == GITLINK:
        message = "a nested repository or submodule: its content is not in the tree that was judged (CVE-2025-48384)"
        found.append(Finding("scope.foreign", Severity.HIGH, named, message))
    elif change.new_mode and change.new_mode not in REGULAR:
        message = f"mode {shown(change.new_mode)}: neither a file, nor an executable file, nor a link"
        found.append(Finding("scope.mode", Severity.HIGH, named, message))
    later = planted(change.path)
    if later and (later.git_data or change.path not in rules.literal):
        parts = manifests.executing(change.path, change.old, change.new) if _ordinary(change) else None
        if parts != ():
            what = f" (changed: {shown(manifests.shown(parts))})" if parts else ""
            fix = "no plan can declare it" if later.git_data else "declare the exact path if it is meant"
            message = f"{later.reason}{what}; {fix}"
            found.append(Finding("scope.executes_later", Severity.HIGH, named, message))
    return found


def _ordinary(change: Change) -> bool:
    """A file that was there and stays the file it was: only then can its contents speak for it."""
    return change.status == "M" and change.new_mode in REGULAR and change.old_mode == change.new_mode


def _link_leaves(change: Change) -> str:
    """Why a symbolic link is refused, or "": absolute, out of the repository, into git data, or target unknown."""
    if not change.link:
        return "a symbolic link whose target is not known"
    target = change.link
    if target.startswith("/"):
        return f"links to {shown(target)}, an absolute path"
    reached = posixpath.normpath(posixpath.join(posixpath.dirname(change.path), target))
    # ".." is counted textually: through another link it could still leave, so any climb above the root is refused
    # and a link that climbs at all must end inside the repository.
    if reached == ".." or reached.startswith("../"):
        return f"links to {shown(target)}, outside the workspace"
    later = planted(reached)
    if later and later.git_data:
        return f"links to {shown(target)}, into git's own data"
    return ""
