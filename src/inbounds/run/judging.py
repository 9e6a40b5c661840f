"""Judging one iteration's tree: scope, anomalies, tests, progress, secrets, static analysis, each verdict on record.

Pure judges are called here, and their jobs executed on the workbench. Scope speaks first: what is out of bounds is not
executed. Decides nothing.
"""

import secrets as randomness
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from inbounds.contracts.bound import Contract
from inbounds.contracts.errors import HostError
from inbounds.contracts.verdict import Outcome, Severity, Verdict
from inbounds.judges import bandit, globs, manifests, preflight, progress, scope, secrets
from inbounds.judges import tests as suites
from inbounds.judges.added import FILE_BYTES_MAX, Added, added
from inbounds.judges.anomalies import judge as anomalies
from inbounds.judges.anomalies import repetition
from inbounds.judges.anomalies.material import Material, declared
from inbounds.judges.anomalies.size import lines_changed
from inbounds.judges.tests import Baseline, Suite
from inbounds.judges.toolbox import Toolbox
from inbounds.run.looking import BaseTree, changed
from inbounds.run.workbench import Workbench
from inbounds.store.snapshot import Snapshot
from inbounds.store.store import Store
from inbounds.store.tree import Change

REQUIRED = ("scope", "tests", "secrets", "bandit")
# For the gate beside these, not for DONE: an anomaly that blocks keeps a result from landing by itself, and a run with
# one may still reach its goal.
PROMOTING = (*REQUIRED, repetition.JUDGE)
OUTPUT_CHARS_MAX = 20_000  # the end of a test run's output, kept for the next prompt and for run_tests
LINK_BYTES_MAX = 4_096  # PATH_MAX
GRAVE = frozenset({Severity.CRITICAL, Severity.HIGH})

Post = Callable[[str, Mapping[str, Any]], None]
Record = repetition.Record


@dataclass(frozen=True, slots=True)
class Tested:
    """What one test run said: the reading's verdict and the end of its output (untrusted text)."""

    verdict: Verdict
    output: str


@dataclass(slots=True)
class Bench:
    """The judges of one run, with what they measure against; made before the first iteration."""

    contract: Contract
    store: Store
    workbench: Workbench
    suite: Suite
    tools: Toolbox
    decoys: Mapping[str, bytes] = field(default_factory=dict)
    baseline: Baseline = field(default_factory=Baseline)
    start: progress.Standing = field(default_factory=lambda: progress.Standing(frozenset()))
    best: progress.Standing = field(default_factory=lambda: progress.Standing(frozenset()))
    failing: tuple[str, ...] = ()
    output: str = ""
    records: Callable[[], Iterable[Record]] = tuple  # the journal so far
    base: BaseTree | None = None

    def measure(self) -> Verdict:
        """Run the base tree's tests and fix what every later tree is held against (M1, M11)."""
        nonce = randomness.token_hex(16)
        result = self.workbench.execute(suites.plan(self.suite, self.contract.base_tree, nonce))
        reading = suites.read(self.suite, nonce, result)
        known = frozenset(self.contract.known_failing)
        verdict = preflight.judge(self.suite, reading, known)
        if reading.report is not None:
            self.baseline = Baseline(dict(reading.report.outcomes), known)
        self.start = self.best = _standing(verdict.facts)
        self.failing = tuple(verdict.facts.get("acceptance_failing", ()))
        self.output = _tail(result.stdout)
        return verdict

    def take_up(self, tree: str) -> None:
        """Begin behind `tree`, the run's last commit: a supervisor that is new to the run measures what stands (M6)."""
        if tree == self.contract.base_tree:
            return
        tested = self.run_tests(tree)
        self.failing = tuple(tested.verdict.facts.get("failing", ()))
        self.output = tested.output
        if tested.verdict.outcome is not Outcome.INCONCLUSIVE:
            self.best = progress.best(self.start, _standing(tested.verdict.facts))

    def run_tests(self, tree: str) -> Tested:
        """The one controlled entry to the tests (C6): acceptance tests restored, tester's jail, cross-checked."""
        nonce = randomness.token_hex(16)
        result = self.workbench.execute(suites.plan(self.suite, tree, nonce))
        reading = suites.read(self.suite, nonce, result)
        return Tested(suites.judge(self.suite, reading, self.baseline), _tail(result.stdout + result.stderr[-2_000:]))

    def set_aside(self, left: Snapshot) -> Snapshot:
        """What an agent left, with the base's test files as they were (O6); the very same where none differs.

        People own the tests that are there: what the agent made of them is evidence, and neither judged nor committed,
        so that no run can weaken the tests of the next. A plan that names a test file's exact path allows it.
        """
        paths = touched(left)
        wanted: dict[str, str | None] = {path: blob for path, blob in self.suite.restore.items() if path in paths}
        if not wanted:
            return left
        tops = tuple(f"{path}/" for path in wanted)  # a directory in a file's place
        tree = self.store.replace(left.tree, {path: None for path in paths if path.startswith(tops)} | wanted)
        return replace(left, tree=tree, changes=self.store.diff(self.contract.base_tree, tree))

    def judge(self, n: int, left: Snapshot, snapshot: Snapshot, post: Post) -> None:
        """Every judge on one tree, which was `left` and then `set_aside`; posts `verdict`s and `iteration.finished`."""

        def speak(verdict: Verdict) -> bool:
            post("verdict", record(verdict, n))
            return not any(f.severity in GRAVE for f in verdict.findings)

        if not speak(self._scope(left)) or not speak(self._anomalies(n, snapshot)):
            return
        before = self.failing
        tested = self.run_tests(snapshot.tree)
        self.failing = tuple(tested.verdict.facts.get("failing", ()))
        self.output = tested.output
        if not speak(tested.verdict):
            return
        answered = tested.verdict.outcome is not Outcome.INCONCLUSIVE
        after = _standing(tested.verdict.facts) if answered else None
        acceptance = frozenset(self.suite.acceptance)
        advance = progress.judge(self.start, self.best, after, acceptance)
        self.best = progress.best(self.best, after) if after else self.best
        speak(advance)
        if not speak(self._secrets(left)) or not speak(self._bandit(snapshot)):
            return
        failing = tested.verdict.facts.get("acceptance_failing", list(self.suite.acceptance))
        post(
            "iteration.finished",
            {
                "n": n,
                "tree": snapshot.tree,
                "changed": bool(snapshot.changes),
                "progress": bool(advance.facts.get("progress")),
                "score": int(advance.facts.get("score", 0)),
                "acceptance_failing": len(failing),
                "failing_before": len(before),
                "failing_after": len(self.failing),
                "regressions": sum(self.baseline.outcomes.get(test) == "passed" for test in self.failing),
                "newly_passing": list(advance.facts.get("newly_passing", ())),
            },
        )

    def _scope(self, snapshot: Snapshot) -> Verdict:
        contract = self.contract
        declared = scope.Declared(
            targets=contract.targets,
            thread="" if contract.thread == "." else contract.thread,
            protected=tuple(f"{path}/**" if path.endswith(".inbounds") else path for path in contract.protected),
            acceptance=tuple(pin.path for pin in contract.acceptance),
            files_max=contract.numbers().file_changes,
        )
        changes = [
            scope.Change(
                c.status, c.path, c.old_path, octal(c.old_mode), octal(c.new_mode), self._link(c), *self._both(c)
            )
            for c in snapshot.changes
        ]
        # Read-only mounts stand before them; who got past (by renaming what is above) meant to.
        changes += [scope.Change("M", path, path) for path in snapshot.protected_changed]
        foreign = [
            scope.Foreign(path, "a nested repository or a name that no tree may hold") for path in snapshot.foreign
        ]
        foreign += [scope.Foreign(path, "a link that leads out of the repository") for path in snapshot.links_out]
        return scope.judge(changes, declared, foreign=foreign, complete=snapshot.complete, why=snapshot.why)

    def _anomalies(self, n: int, snapshot: Snapshot) -> Verdict:
        """Rules over what would land (the base's own tests are set aside by then) and over the journal so far."""
        contract, base_tree = self.contract, self.contract.base_tree
        self.base = self.base or BaseTree(self.store, base_tree)
        history = repetition.read(self.records(), n)
        before = next((one.tree for one in reversed(history.rounds) if one.n < n and one.tree), base_tree)
        changes = changed(self.store, snapshot.changes)
        step = changes if before == base_tree else changed(self.store, self.store.diff(before, snapshot.tree))
        plan = declared(contract.targets, contract.plan.expected_changes)
        terms = anomalies.Terms(
            contract.anomalies.actions, contract.anomalies.numbers, globs.parse_all(contract.anomalies.paths)
        )
        material = Material(changes, self.base, plan, lines_changed(step))
        return anomalies.judge(material, anomalies.Iteration(n, snapshot.tree, base_tree, history), terms)

    def _link(self, change: Change) -> str:
        if octal(change.new_mode) != scope.SYMLINK:
            return ""
        return self.store.read_blob(change.new_blob, LINK_BYTES_MAX).decode("utf-8", "surrogateescape")

    def _both(self, change: Change) -> tuple[bytes | None, bytes | None]:
        """The contents of a changed manifest before and after; None where scope does not ask, or it is too large."""
        if change.status != "M" or not manifests.named(change.path):
            return None, None
        try:
            limit = manifests.BYTES_MAX
            return self.store.read_blob(change.old_blob, limit), self.store.read_blob(change.new_blob, limit)
        except HostError:
            return None, None  # then the name decides, which is the stricter

    def _secrets(self, snapshot: Snapshot) -> Verdict:
        new, skipped = self._added(snapshot)
        changed = sum(change.status != "D" for change in snapshot.changes)
        material = secrets.Material(new, self.decoys, changed, skipped)
        nonce = randomness.token_hex(16)
        job = secrets.plan(material, self.tools, snapshot.tree, nonce)
        return secrets.judge(material, nonce, self.workbench.execute(job) if job else None)

    def _bandit(self, snapshot: Snapshot) -> Verdict:
        new, _ = self._added(snapshot)
        job = bandit.plan(new, self.tools, snapshot.tree)
        return bandit.judge(new, self.workbench.execute(job) if job else None)

    def _added(self, snapshot: Snapshot) -> tuple[tuple[Added, ...], tuple[str, ...]]:
        """What is new in this tree against the base; a blob too large to look at is named."""
        blocks: list[Added] = []
        skipped: list[str] = []
        for change in snapshot.changes:
            if change.status == "D" or octal(change.new_mode) not in scope.REGULAR:
                continue
            try:
                new = self.store.read_blob(change.new_blob, FILE_BYTES_MAX)
                old = self.store.read_blob(change.old_blob, FILE_BYTES_MAX) if change.status != "A" else None
            except HostError:
                skipped.append(change.path)
                continue
            blocks += added(change.path, old, new)
        return tuple(blocks), tuple(skipped)


def touched(snapshot: Snapshot) -> set[str]:
    """Every path that differs from the base, a renamed one under both names."""
    return {path for change in snapshot.changes for path in (change.path, change.old_path) if path}


def record(verdict: Verdict, n: int) -> dict[str, Any]:
    """A verdict as the journal keeps it; `rules` is what the kernel's stop rules read."""
    rules = [f.rule for f in verdict.findings if f.severity in GRAVE]
    return {**verdict.as_json(), "n": n, "rules": list(dict.fromkeys(rules))}


def octal(mode: int) -> str:
    """A git mode as six octal digits, "" for none."""
    return f"{mode:06o}" if mode else ""


def _standing(facts: Mapping[str, Any]) -> progress.Standing:
    return progress.Standing(frozenset(facts.get("failing", ())), frozenset(facts.get("acceptance_passing", ())))


def _tail(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")[-OUTPUT_CHARS_MAX:]
