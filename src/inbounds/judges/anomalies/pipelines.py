"""New steps and actions in continuous integration, and changed recipes that it calls (H18).

YAML services by the keys that hold commands, actions and images (GitHub, GitLab, CircleCI, Azure, and others alike);
Jenkinsfiles by their lines; a Makefile by the targets that a pipeline of the base or of this tree names. A step is new
if no pipeline file of the base has its line.
"""

import posixpath
import re
from collections.abc import Iterator
from typing import Any

from inbounds.judges.anomalies.material import Changed, Material, Signal, some, words
from inbounds.judges.anomalies.packages import UnreadableError, text_of

BYTES_MAX = 1 << 20  # pipeline files have kilobytes
NODES_MAX = 50_000
DEPTH_MAX = 60
ALIASES_MAX = 1_000
FILES_MAX = 200  # pipeline files of the base that are read
_FILES = re.compile(
    r"\.github/workflows/[^/]+\.ya?ml|(?:.*/)?action\.ya?ml|\.circleci/.+\.ya?ml|(?:.*/)?\.gitlab-ci[^/]*\.ya?ml"
    r"|\.gitlab/.+\.ya?ml|(?:.*/)?azure-pipelines[^/]*\.ya?ml|\.azure-pipelines/.+\.ya?ml|\.travis\.yml|\.drone\.ya?ml"
    r"|\.cirrus\.yml|(?:.*/)?appveyor\.yml|bitbucket-pipelines\.yml|cloudbuild\.ya?ml|\.buildkite/.+\.ya?ml"
    r"|\.woodpecker(?:/.+)?\.ya?ml|\.forgejo/workflows/.+\.ya?ml|\.gitea/workflows/.+\.ya?ml|\.pre-commit-config\.ya?ml",
    re.IGNORECASE,
)
_JENKINS = re.compile(r"(?:.*/)?Jenkinsfile[^/]*|(?:.*/)?[^/]*\.jenkinsfile", re.IGNORECASE)
_MAKEFILE = re.compile(r"(?:.*/)?(?:GNU)?Makefile", re.IGNORECASE)
_COMMANDS = words(
    "run command script before_script after_script bash pwsh powershell commands install before_install after_success"
    " before_deploy entrypoint args entry"
)
_REFERENCES = words("uses image include task orbs template container docker repo extends")
_RIGHTS = words("permissions on secrets")
_MAKE = re.compile(r"\bmake\s+((?:-\S+\s+|[A-Za-z_]+=\S*\s+)*)([A-Za-z0-9_.-]+(?:\s+[A-Za-z0-9_.-]+)*)")
_TARGET = re.compile(r"([A-Za-z0-9_.-]+(?:\s+[A-Za-z0-9_.-]+)*)\s*::?(?!=)(.*)")
_JENKINS_LINE = re.compile(r"\b(sh|bat|powershell|pwsh|docker|image|load|library|build|withCredentials|node|agent)\b")


def is_pipeline(path: str) -> bool:
    """Whether a continuous integration service reads this path."""
    return bool(_FILES.fullmatch(path) or _JENKINS.fullmatch(path))


def signals(material: Material) -> Iterator[Signal]:
    """New steps by file; a file that cannot be read is a signal of its own."""
    changed = [c for c in material.changes if c.regular and (is_pipeline(c.path) or _MAKEFILE.fullmatch(c.path))]
    if not changed:
        return
    known = _known(material)
    called = {target for step in known for target in _targets(step)}
    for change in sorted(changed, key=lambda c: not is_pipeline(c.path)):
        if not is_pipeline(change.path):
            yield from _recipes(change, called)
            continue
        try:
            steps = _steps(change.path, change.new)
        except UnreadableError as error:
            yield Signal("manifest_unread", change.path, str(error))
            continue
        called |= {target for step in steps for target in _targets(step)}
        names = {_unpinned(step) for step in known}
        fresh = [step for step in steps if step not in known]
        moved = [step for step in fresh if step.startswith("uses: ") and _unpinned(step) in names]
        fresh = [step for step in fresh if step not in moved]
        if fresh:
            yield Signal("pipeline", change.path, f"new: {some(fresh, 8)}")
        if moved:
            yield Signal("dependency_changed", change.path, f"{len(moved)} changed: {some(moved)}")


def _known(material: Material) -> set[str]:
    """Every step of the base's pipelines; a file that cannot be read has none."""
    found: set[str] = set()
    for path in [path for path in material.base.paths if is_pipeline(path)][:FILES_MAX]:
        try:
            found.update(_steps(path, material.base.read(path)))
        except UnreadableError:
            continue  # then its steps count as new when they are changed
    return found


def _steps(path: str, data: bytes | None) -> list[str]:
    if data is None or len(data) > BYTES_MAX:
        raise UnreadableError(f"more than {BYTES_MAX} bytes")
    text = text_of(data)
    if _JENKINS.fullmatch(path):
        lines = (line.strip() for line in text.splitlines())
        return list(dict.fromkeys(f"line: {line}" for line in lines if _JENKINS_LINE.search(line)))
    return list(dict.fromkeys(_yaml_steps(text)))


def _yaml_steps(text: str) -> Iterator[str]:
    import yaml

    _check_yaml(text)
    try:
        documents = list(yaml.compose_all(text, Loader=_loader()))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UnreadableError(f"no YAML: {type(error).__name__}") from None
    seen: set[int] = set()
    todo: list[Any] = [document for document in documents if document is not None]
    while todo:
        node = todo.pop()
        if id(node) in seen:
            continue  # an alias: its content was looked at where it stands
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo += reversed(node.value)
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
                yield from _entry(name, value)
                todo.append(value)


def _entry(name: str, value: Any) -> Iterator[str]:
    """The lines that one key holds: commands line by line, references and rights as they are."""
    if name in _COMMANDS:
        for text in _scalars(value):
            yield from (f"run: {line.strip()}" for line in text.splitlines() if line.strip())
    elif name in _REFERENCES:
        yield from (f"{'uses' if name == 'uses' else name}: {text.strip()}" for text in _scalars(value))
    elif name in _RIGHTS:
        yield from (f"{name}: {text.strip()}" for text in _pairs(value))


def _scalars(value: Any) -> Iterator[str]:
    """A text, or the texts of a list."""
    items = value.value if isinstance(value.value, list) else [value]
    yield from (item.value for item in items if not isinstance(item, tuple) and isinstance(item.value, str))


def _pairs(value: Any) -> Iterator[str]:
    """A text, the texts of a list, or "key value" of a table whose values are texts."""
    if isinstance(value.value, str):
        yield value.value
        return
    for item in value.value:
        if isinstance(item, tuple):
            key, inner = item
            yield f"{key.value} {inner.value if isinstance(inner.value, str) else ''}"
        elif isinstance(item.value, str):
            yield item.value


def _check_yaml(text: str) -> None:
    """Count before anything is built: nodes, depth and aliases of a hostile file cost nothing here."""
    import yaml

    depth = nodes = aliases = 0
    try:
        for event in yaml.parse(text, Loader=_loader()):
            nodes += 1
            aliases += isinstance(event, yaml.AliasEvent)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if nodes > NODES_MAX or depth > DEPTH_MAX or aliases > ALIASES_MAX:
                raise UnreadableError(f"more than {NODES_MAX} entries, {DEPTH_MAX} levels or {ALIASES_MAX} aliases")
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, UnreadableError):
            raise
        raise UnreadableError(f"no YAML: {type(error).__name__}") from None


def _loader() -> Any:
    """The loader of libyaml where PyYAML was built with it: ten times as fast."""
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _unpinned(step: str) -> str:
    return step.partition("@")[0] if step.startswith("uses: ") else step


def _targets(step: str) -> Iterator[str]:
    for match in _MAKE.finditer(step):
        yield from match[2].split()


def _recipes(change: Changed, called: set[str]) -> Iterator[Signal]:
    """Targets that a pipeline calls and whose recipe is another now (or that stand in a place of their own)."""
    if change.new is None:
        yield Signal("manifest_unread", change.path, f"{change.new_size} bytes: too large to be read")
        return
    old, new = _made(change.old or b""), _made(change.new)
    touched = sorted(name for name in called if name in new and new[name] - old.get(name, frozenset()))
    if touched:
        first = sorted(new[touched[0]] - old.get(touched[0], frozenset()))
        where = posixpath.basename(change.path)
        message = f"{where} target {some(touched)}, which a pipeline calls, has new commands: {some(first, 3)}"
        yield Signal("pipeline", change.path, message)


def _made(data: bytes) -> dict[str, frozenset[str]]:
    """A Makefile's targets with the lines of their recipes."""
    found: dict[str, set[str]] = {}
    current: list[str] = []
    for line in data[:BYTES_MAX].decode("utf-8", "replace").splitlines():
        if line.startswith("\t"):
            for name in current:
                found[name].add(line.strip())
        elif match := _TARGET.match(line):
            current = match[1].split()
            for name in current:
                found.setdefault(name, set()).update({match[2].split(";", 1)[1].strip()} if ";" in match[2] else set())
    return {name: frozenset(lines - {""}) for name, lines in found.items()}
