"""Style is a test: headers, lengths, names, reasons beside every exemption, and what the trusted core may import.

Reads sources as text and syntax trees; runs nothing of the product.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src" / "inbounds"
EXAMPLE = SRC / "demo" / "example"  # somebody else's repository, as far as style goes

FUNCTION_LINES_MAX = 70  # one screen; longer ones hide a second idea
FILE_LINES_MAX = 600  # one sitting
NAMELESS = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
ACTS = {"subprocess", "socket", "ctypes", "multiprocessing", "asyncio", "urllib", "http", "sqlite3"}


def _python(*tops: Path) -> list[Path]:
    return sorted(p for top in tops for p in top.rglob("*.py") if EXAMPLE not in p.parents and ".cache" not in p.parts)


PRODUCT = _python(SRC)
ALL = [*PRODUCT, *_python(ROOT / "tests", ROOT / "tools")]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_every_file_says_what_it_is_for() -> None:
    silent = [
        _name(p) for p in [*PRODUCT, *_python(ROOT / "tools")] if p.stat().st_size and not ast.get_docstring(_parsed(p))
    ]
    assert not silent, silent


def test_files_and_functions_are_short() -> None:
    long = [_name(p) for p in ALL if len(p.read_text(encoding="utf-8").splitlines()) > FILE_LINES_MAX]
    for path in ALL:
        for node in _functions(_parsed(path)):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                long.append(f"{_name(path)}:{node.lineno} {node.name} has {lines} lines")
    assert not long, long


def test_a_file_is_named_by_its_concept() -> None:
    vague = [_name(p) for p in ALL if NAMELESS & set(re.split(r"[_/]", _name(p.with_suffix(""))))]
    assert not vague, vague


def test_every_exemption_gives_its_reason() -> None:
    exemption = re.compile(r"#\s*(noqa(?::\s*[A-Z0-9, ]+)?|type:\s*ignore(?:\[[\w, -]+\])?|pragma: no cover)(.*)")
    bare = []
    for path in ALL:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for found in exemption.finditer(line):
                reason = found[2].strip(" -:;#")
                if "exemption = re" not in line and len(reason) < 5:
                    bare.append(f"{_name(path)}:{number}: {line.strip()}")
    assert not bare, bare


def test_ignored_rules_have_reasons() -> None:
    block = (ROOT / "pyproject.toml").read_text().split("ignore = [", 1)[1].split("\n]", 1)[0]
    rules = [line for line in block.splitlines() if line.strip().startswith('"')]
    unexplained = [line for line in rules if "#" not in line]
    assert not unexplained, unexplained


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{_name(path)}:{node.lineno}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def _module(name: str) -> Path | None:
    base = SRC.parent.joinpath(*name.split("."))
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.exists()), None)


def closure(start: list[Path]) -> dict[Path, set[str]]:
    """Every file of ours that `start` imports, directly or not, with all that it imports."""
    seen: dict[Path, set[str]] = {}
    todo = list(start)
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen[path] = _imports(path)
        todo += [found for name in seen[path] if name.startswith("inbounds") and (found := _module(name))]
    return seen


@pytest.mark.parametrize("package", ["kernel", "journal"])
def test_the_trusted_core_needs_the_standard_library_alone(package: str) -> None:
    foreign = [
        f"{_name(path)}: {name}"
        for path, names in closure(_python(SRC / package)).items()
        for name in names
        if (top := name.split(".")[0]) != "inbounds"
        and top not in sys.stdlib_module_names
        # Whoever signs needs a library, loaded when a key is used; verifying is journal/ed25519.py (ADR 9).
        and (top, path) != ("cryptography", SRC / "journal" / "signing.py")
    ]
    assert not foreign, foreign


def test_the_kernel_reaches_nothing_outside_itself() -> None:
    impure = ACTS | {
        "os",
        "time",
        "random",
        "secrets",
        "pathlib",
        "shutil",
        "tempfile",
        "signal",
        "threading",
        "select",
    }
    found = [
        f"{_name(path)}: {name}"
        for path, names in closure(_python(SRC / "kernel")).items()
        for name in names
        if name.split(".")[0] in impure
    ]
    assert not found, found


def test_the_verifier_imports_nothing_that_acts() -> None:
    verifier = SRC / "journal" / "verify.py"
    if not verifier.exists():
        pytest.skip("journal/verify.py is not there")
    # sshsig asks ssh-keygen whether a signature holds: the one thing that the standard library cannot do.
    found = [
        f"{_name(path)}: {name}"
        for path, names in closure([verifier]).items()
        if path.name != "sshsig.py"
        for name in names
        if name.split(".")[0] in ACTS
    ]
    assert not found, found


def test_decisions_are_numbered_without_gap_or_double() -> None:
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    numbers = [int(p.name[:4]) for p in records]
    assert numbers == list(range(1, len(records) + 1)), [p.name for p in records]
    for path in records:
        text = path.read_text(encoding="utf-8")
        assert re.match(rf"# {int(path.name[:4])}[.:] ", text), f"{path.name} does not begin with its number"
        missing = [word for word in ("ejected",) if word not in text]
        assert not missing, f"{path.name} names no rejected option"


def _tracked_text() -> Iterator[tuple[str, str]]:
    skip = {"node_modules", "__pycache__", "dist", "build"}
    tops = [p for p in ROOT.iterdir() if (not p.name.startswith(".") or p.name == ".ci") and p.name not in skip]
    for path in sorted(found for top in tops for found in ([top] if top.is_file() else top.rglob("*"))):
        if skip & set(path.relative_to(ROOT).parts):
            continue
        if path.is_file() and not path.is_symlink():
            try:
                yield _name(path), path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def test_no_place_of_one_machine_is_named() -> None:
    """A checkout's own directory or a person's home in a file means that it works on one machine only."""
    own = str(ROOT) + "/"  # looked for only if two levels deep: /work or /src are also places in a jail
    places = re.compile(r"/home/(?!agent\b|user\b|you\b|runner\b|\w+\b\")\w+/|/root/\.(?!ssh|aws|inbounds)\w+/")
    named = []
    for name, text in _tracked_text():
        if own.count("/") > 2 and own in text:
            named.append(f"{name}: {own}")
        named += [f"{name}: {found[0]}" for found in places.finditer(text)]
    assert not named, named


def test_the_lock_file_names_one_public_index() -> None:
    text = (ROOT / "uv.lock").read_text(encoding="utf-8")
    assert "file://" not in text
    hosts = set(re.findall(r"https?://([^/\"]+)", text))
    assert hosts == {"pypi.org", "files.pythonhosted.org"}, hosts


def test_the_lock_file_is_of_this_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    locked = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    [own] = [package for package in locked if package["name"] == project["name"]]
    found = {one["name"] + one.get("specifier", "") for one in own["metadata"]["requires-dist"]}
    # pyproject's spelling, as the lock file writes it: no marker, lower case, dashes.
    asked = {re.sub(r"[_.](?=\D)", "-", one.partition(";")[0].strip().lower()) for one in wanted}
    assert found == asked, "type: make lock"


def _test_names() -> set[str]:
    names = set()
    for path in _python(ROOT / "tests"):
        names |= {f"{_name(path)}::{node.name}" for node in _functions(_parsed(path))}
    return names


@pytest.mark.parametrize("page", ["SECURITY.md", "README.md", "docs/ARCHITECTURE.md"])
def test_documents_name_tests_and_files_that_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    known = _test_names()
    # The README's one test id is a person's own.
    missing = [name for name in re.findall(r"tests/[\w/]+\.py::\w+", text) if name not in known and page != "README.md"]
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    missing += [f"link to {link}" for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    assert not missing, missing
