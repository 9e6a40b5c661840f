"""Every anomaly rule with its default action, and every threshold with its default and why it is that (H16-H20).

What the rules look at is the judge's business (judges/anomalies/). Standard library only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from inbounds.contracts import units

Action = Literal["note", "block", "stop"]
ACTIONS: tuple[Action, ...] = ("note", "block", "stop")  # from loose to tight
PATHS_MAX = 1_000  # as globs.PATTERNS_MAX: each changed path is tried against each


@dataclass(frozen=True, slots=True)
class AnomalyRule:
    """One rule: its id is `anomaly.<name>`; `why` says why the default action is what it is."""

    name: str
    requirement: str
    action: Action
    what: str
    why: str


# The default is "block" where a person should look before the result lands, "note" where honest work does it daily,
# "stop" where no honest work does it. Rates of each on public histories: docs/anomalies.md.
RULES: tuple[AnomalyRule, ...] = (
    AnomalyRule("type_executable", "H16", "block", "compiled code of a kind that the base has nowhere like this",
                "nobody can review it, and sources are what a plan asks for"),
    AnomalyRule("type_archive", "H16", "block", "an archive, disk image or serialized objects, new to this place",
                "it hides files from every other judge"),
    AnomalyRule("type_data", "H16", "note", "an image, font, document or other binary data, new to this place",
                "pictures and samples are ordinary in a change, if rare"),
    AnomalyRule("type_script", "H16", "note", "a script by its first line, for an interpreter new to this place",
                "scripts are text, and reviewed as such"),
    AnomalyRule("disguised", "H16", "block", "a content that is not what the file's extension says",
                "a person who reads the list of files is misled"),
    AnomalyRule("disguised_executable", "H16", "stop", "compiled code under a name of text, data or pictures",
                "there is no honest reason for it"),
    AnomalyRule("polyglot", "H16", "block", "two formats in one file, or data behind the end of a picture",
                "the usual way of carrying something past a reviewer"),
    AnomalyRule("hidden_text", "H16", "block", "new invisible, direction-changing or control characters in text",
                "what a reviewer sees is not what runs (CVE-2021-42574)"),
    AnomalyRule("diff_lines", "H17", "block", "more changed lines than the threshold", "nobody reviews more at once"),
    AnomalyRule("diff_files", "H17", "block", "more changed files than the threshold", "nobody reviews more at once"),
    AnomalyRule("diff_binary", "H17", "block", "more new binary bytes than the threshold", "they cannot be reviewed"),
    AnomalyRule("rewrite", "H17", "note", "a file of some length of which nearly every line was replaced",
                "a generator or a formatter does it, too"),
    AnomalyRule("churn", "H17", "note", "over the iterations, many more lines changed than are different in the end",
                "an agent that goes in circles costs money, and harms nothing"),
    AnomalyRule("dependency", "H18", "block", "a new direct dependency",
                "code of strangers runs with the product's rights from then on"),
    AnomalyRule("dependency_locked", "H18", "note", "a new package in a lock file, beside a new dependency",
                "it follows from the dependency, which is blocked or declared"),
    AnomalyRule("dependency_lock_only", "H18", "block", "a new package in a lock file, and no new dependency",
                "lock files are rarely read: the usual place for an injected package"),
    AnomalyRule("dependency_changed", "H18", "note", "another version or range of a dependency",
                "routine, and N8 builds nothing from it before it lands"),
    AnomalyRule("dependency_source", "H18", "block", "a dependency from a URL, repository, path or other registry",
                "what it gives tomorrow is not what it gives today"),
    AnomalyRule("install_script", "H18", "block", "a new or changed script that runs when packages are installed",
                "it runs on every machine that installs, before any test"),
    AnomalyRule("vendored", "H18", "block", "a library copied in: a package directory, a bundle, minified code",
                "strangers' code in the product's own tree, past every manifest"),
    AnomalyRule("bundle_changed", "H18", "note", "a bundle or minified code of the base, changed",
                "repositories that keep what they build change it with every source"),
    AnomalyRule("pipeline", "H18", "block", "a new step or action in continuous integration",
                "it runs with the project's secrets"),
    AnomalyRule("manifest_unread", "H18", "block", "a manifest, lock or pipeline file that cannot be read",
                "what cannot be read cannot be said to hold nothing new"),
    AnomalyRule("sensitive_operations", "H19", "block", "CI, deployment, containers, infrastructure, owners",
                "it takes effect outside the program, where no test of this run looks"),
    AnomalyRule("sensitive_code", "H19", "note", "authentication, cryptography, sessions, permissions, migrations",
                "often the very thing asked for: a hint on where to read twice"),
    AnomalyRule("sensitive_policy", "H19", "block", "a path that policy calls security-critical", "policy said so"),
    AnomalyRule("executable_bit", "H19", "note", "a file that became executable", "scripts need it"),
    AnomalyRule("returned_tree", "H20", "note", "an iteration that ends in an earlier iteration's tree",
                "stopping for lack of progress is another rule's (M7)"),
    AnomalyRule("same_calls", "H20", "note", "an iteration that repeats the tool calls of an earlier one",
                "tests are run again and files read again in honest work, too"),
    AnomalyRule("unchanged", "H20", "note", "an iteration that changed nothing", "reading comes before writing"),
    AnomalyRule("denial_burst", "H20", "block", "many denials within a short time",
                "a program tries doors; a person should see which"),
    AnomalyRule("unread", "H16", "block", "a changed file too large to look into",
                "what was not looked at is not known to be harmless"),
)  # fmt: skip
BY_NAME = {rule.name: rule for rule in RULES}


def _count(text: str | int) -> int:
    if isinstance(text, bool) or not str(text).isascii() or not str(text).isdigit() or len(str(text)) > 12:  # noqa: PLR2004 - digits of a trillion
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A number above which a rule speaks; a child may only lower it."""

    key: str
    parse: Callable[[str | int], int]
    default: int
    why: str


THRESHOLDS: tuple[Threshold, ...] = (
    Threshold("lines", _count, 1_000, "studies of review find little found beyond 400 lines; this is two sittings"),
    Threshold("files", _count, 50, "a quarter of what a plan allows at all; a list that still fits one screen"),
    Threshold("binary", units.size, 256 << 10, "a few icons; what is larger is an artefact"),
    Threshold("rewrite_lines", _count, 150, "shorter files are rewritten in passing"),
    Threshold("churn_lines", _count, 500, "below it going in circles costs less than a look"),
    Threshold("churn_times", _count, 3, "writing, mending and tidying change a line three times"),
    Threshold("denials", _count, 8, "a tool's own retries of one thing are three to five"),
    Threshold("denials_window", units.duration, 10_000, "people and models think longer between attempts"),
)
BY_KEY = {threshold.key: threshold for threshold in THRESHOLDS}
NUMBERS = {threshold.key: threshold.default for threshold in THRESHOLDS}
DEFAULT_ACTIONS: dict[str, Action] = {rule.name: rule.action for rule in RULES}


def tighter_or_equal(child: Action, parent: Action) -> bool:
    """Whether `child` asks for at least what `parent` does."""
    return ACTIONS.index(child) >= ACTIONS.index(parent)
