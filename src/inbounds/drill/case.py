"""One attack as a file: what it is called, its two sources, and how its outcome is read; loaded and checked here.

The format is docs/drill.md's. A case's module code is trusted (ours, or the operator's own with --case) and runs on the
host; its ATTACK does not. Knows nothing of jails.
"""

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from inbounds.contracts.errors import OperatorError
from inbounds.drill import holdings
from inbounds.sandbox.spec import JailLimits

CLASSES = (
    "workspace", "planted", "network", "ipc", "processes", "kernel", "resources", "secrets", "evidence", "failopen",
    "economic", "behaviour",
)  # fmt: skip
EXTERNAL = "external"
OUTCOMES = ("BLOCKED", "CONTAINED", "DETECTED", "ESCAPED")
MODES = ("rootless", "hardened")
# What an arena can make for a case beside its directories (arena.py); a case names what it uses.
NEEDS = ("listener", "socket", "abstract", "secret", "victim", *holdings.NEEDS)

SOURCE_BYTES_MAX = 100 << 10  # it travels as one argument, and the kernel takes 128 KiB of one
FILE_BYTES_MAX = 1 << 20
DEADLINE_S, DEADLINE_S_MAX = 20, 120  # cases are small; a drill of 130 is to end in two minutes

Observed = tuple[str, str]
Observe = Callable[[Mapping[str, Any], Mapping[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Case:
    """`control` and `attack` are Python sources (kind "jail") or functions of an arena (kind "host")."""

    id: str
    class_: str
    requirement: str
    title: str
    path: Path
    kind: Literal["jail", "host"]
    control: str | Callable[[Any], Mapping[str, Any]]
    attack: str | Callable[[Any], Mapping[str, Any]]
    observe: Observe
    needs: tuple[str, ...] = ()
    modes: tuple[str, ...] = MODES
    role: str = "coder"
    limits: Mapping[str, int] | None = None
    later: str = ""
    deadline_s: int = DEADLINE_S
    alone: bool = False

    @property
    def external(self) -> bool:
        """Whether it came by --case, from outside the product."""
        return self.class_ == EXTERNAL


def load(path: Path, *, external: bool = False) -> Case:
    """Read, execute and check one case file; OperatorError that says what is wrong with it, and where."""
    path = path.absolute()  # half of a host case is loaded again from another directory
    names = _execute(path)
    wrong = _wrong(names, external=external)
    if wrong:
        raise OperatorError(wrong, where=str(path), expected="a case as docs/drill.md has it")
    klass = EXTERNAL if external else names["CLASS"]
    name = path.stem if external else path.stem.removeprefix(f"{klass}_")
    return Case(
        id=f"{klass}.{name.replace('_', '-')}",
        class_=klass,
        requirement=names.get("REQUIREMENT", ""),
        title=" ".join((names.get("__doc__") or "").split()),
        path=path,
        kind=names.get("KIND", "jail"),
        control=names.get("CONTROL", names.get("control")),  # type: ignore[arg-type]  # checked by _wrong
        attack=names.get("ATTACK", names.get("attack")),  # type: ignore[arg-type]  # checked by _wrong
        observe=names["observe"],
        needs=tuple(names.get("NEEDS", NEEDS if external else ())),
        modes=tuple(names.get("MODES", MODES)),
        role=names.get("ROLE", "coder"),
        limits=names.get("LIMITS"),
        later=names.get("LATER", ""),
        deadline_s=names.get("DEADLINE_S", DEADLINE_S),
        alone=names.get("ALONE", False),
    )


def built_in(klass: str = "") -> list[Case]:
    """Every case of the product, or those of one class, by class and name."""
    place = Path(__file__).parent / "cases"
    cases = [load(path) for path in place.glob(f"{klass or '*'}_*.py") if path.name != "__init__.py"]
    return sorted(cases, key=lambda case: (CLASSES.index(case.class_), case.id))


def verdict(case: Case, before: Mapping[str, Any], after: Mapping[str, Any]) -> Observed:
    """Ask the case what it sees: (outcome, words). OperatorError where its observe fails or answers something else."""
    try:
        said = case.observe(before, after)
    except Exception as error:  # the case's own code: whatever it raises is its fault
        raise OperatorError(
            f"observe raised {type(error).__name__}: {error}", where=str(case.path), expected="an outcome"
        ) from error
    if isinstance(said, bool):
        said = ("ESCAPED" if said else "BLOCKED", "")
    elif isinstance(said, str):
        said = (said, "")
    match said:
        case (str() as outcome, str() as words) if outcome in OUTCOMES:
            return outcome, words
    raise OperatorError(
        f"observe answered {said!r:.200}",
        where=str(case.path),
        expected=f"one of {', '.join(OUTCOMES)}, such a word with an explanation, or a bool that means escaped",
    )


def _execute(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise OperatorError("is too large", where=str(path), expected=f"at most {FILE_BYTES_MAX} bytes")
        source = path.read_bytes()
    except OSError as error:
        raise OperatorError(
            f"cannot be read: {error.strerror}", where=str(path), expected="a Python file with a case"
        ) from error
    module = ModuleType(f"inbounds_drill_case_{path.stem}")
    sys.modules[module.__name__] = module  # dataclasses and pickling look a class's module up
    names = module.__dict__
    names["__file__"] = str(path)
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), names)  # noqa: S102 - a case is trusted code
    except SyntaxError as error:
        raise OperatorError(
            f"is no Python: {error.msg}", where=f"{path}:{error.lineno or 0}", expected="a Python file with a case"
        ) from error
    except Exception as error:
        raise OperatorError(f"raised {type(error).__name__}: {error}", where=str(path), expected="a case") from error
    return names


def _wrong(names: Mapping[str, Any], *, external: bool) -> str:
    """What is wrong with a case's names, or ""."""
    kind = names.get("KIND", "jail")
    if kind not in ("jail", "host"):
        return f"KIND is {kind!r}"
    wanted = ("CONTROL", "ATTACK") if kind == "jail" else ("control", "attack")
    for name in (*wanted, "observe"):
        if name not in names:
            return f"{name} is missing"
        if (name in ("CONTROL", "ATTACK")) != isinstance(names[name], str) or not names[name]:
            return f"{name} is {'no source text' if name.isupper() else 'no function'}"
        if not isinstance(names[name], str) and not callable(names[name]):
            return f"{name} is no function"
        if isinstance(names[name], str) and len(names[name].encode()) > SOURCE_BYTES_MAX:
            return f"{name} is longer than {SOURCE_BYTES_MAX} bytes"
    for name in ("CONTROL", "ATTACK", "LATER"):
        if name in names and (said := _no_source(names[name])):
            return f"{name} is no Python: {said}"
    known = {field.name for field in fields(JailLimits)}
    problems = [
        (not external and names.get("CLASS") not in CLASSES, f"CLASS is {names.get('CLASS')!r}"),
        (
            not external and not re.fullmatch(r"[A-Q]\d{1,2}", str(names.get("REQUIREMENT", ""))),
            f"REQUIREMENT is {names.get('REQUIREMENT')!r}",
        ),
        (not external and not (names.get("__doc__") or "").strip(), "it does not say what is tried"),
        (not set(names.get("NEEDS", ())) <= set(NEEDS), f"NEEDS is {names.get('NEEDS')!r}, known are {NEEDS}"),
        (not set(names.get("MODES", MODES)) <= set(MODES), f"MODES is {names.get('MODES')!r}"),
        (names.get("ROLE", "coder") not in ("coder", "tester"), f"ROLE is {names.get('ROLE')!r}"),
        (not set(names.get("LIMITS") or {}) <= known, f"LIMITS names {set(names.get('LIMITS') or {}) - known}"),
        (not 0 < names.get("DEADLINE_S", DEADLINE_S) <= DEADLINE_S_MAX, f"DEADLINE_S is {names.get('DEADLINE_S')!r}"),
    ]
    return next((said for bad, said in problems if bad), "")


def _no_source(text: object) -> str:
    if not isinstance(text, str):
        return "it is no text"
    try:
        compile(text, "<source>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        return str(error)
    return ""
