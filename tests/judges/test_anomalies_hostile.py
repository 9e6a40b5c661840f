"""Hostile manifests, pipelines and contents: a finding or silence, never an exception, and never a long time."""

import time
from collections.abc import Callable

import pytest
from anomaly_corpus import CI, ELF, GIF, JAR, JPEG, MALICIOUS, PDF, POM, PYC, PYPROJECT, material, npm, npm_lock, png
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inbounds.judges.anomalies import dependencies, pipelines
from inbounds.judges.anomalies.judge import judge
from inbounds.judges.anomalies.kinds import kind
from inbounds.judges.anomalies.packages import UnreadableError

SECONDS_MAX = 20.0  # a loaded machine; alone the longest takes two, and what is not linear takes minutes
NAMES = ["requirements.txt", "pyproject.toml", "setup.cfg", "setup.py", "Pipfile", "Pipfile.lock", "uv.lock"]
NAMES += ["poetry.lock", "package.json", "package-lock.json", "yarn.lock", "pnpm-lock.yaml", "go.mod", "go.sum"]
NAMES += [
    "Cargo.toml",
    "Cargo.lock",
    "pom.xml",
    ".github/workflows/ci.yml",
    ".gitlab-ci.yml",
    "Jenkinsfile",
    "Makefile",
]
BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + b"".join(
    b'<!ENTITY %c "&%c;&%c;&%c;&%c;">' % (98 + i, *[97 + i] * 4) for i in range(20)
) + b"]><project>&t;</project>"  # fmt: skip
LAUGHS = b"a0: &a0 [x, x]\n" + b"".join(b"a%d: &a%d [*a%d, *a%d, *a%d]\n" % (i, i, *[i - 1] * 3) for i in range(1, 40))
MERGES = b"m0: &m0 {run: id}\n" + b"".join(
    b"m%d: &m%d {<<: [*m%d, *m%d]}\n" % (i, i, i - 1, i - 1) for i in range(1, 40)
)
HOSTILE: dict[str, bytes] = {
    "nested lists": b"[" * 100_000,
    "nested tables": b'{"a":' * 50_000,
    "nested TOML": b"a = " + b"[" * 50_000,
    "nested parentheses": b"x = " + b"(" * 5_000,
    "a chain": b"x = " + b"-" * 200_000 + b"1",
    "nested XML": b"<a>" * 100_000,
    "an XML bomb": BOMB,
    "a YAML bomb": LAUGHS,
    "YAML merges": MERGES,
    "not UTF-8": b"\xff\xfe\xfa" * 100,
    "zeros": b"\0" * 10_000,
    "one long line": b"a" * 2_000_000,
    "spaces": b" " * 1_000_000 + b"x",
    "quotes": b'"' * 200_000,
    "at signs": b"@" * 300_000 + b":",
    "a table of numbers": b'{"dependencies": 3, "packages": [1], "scripts": {"install": [1]}}',
    "TOML of other shapes": b"project = 3\n[tool]\npoetry = [1]\n[[package]]\nname = 4\nsource = 5\n",
    "carriage returns": b"\r" * 200_000,
    "make": b"a: b\n" + b"make " * 50_000,
    "many packages": b"".join(b"p%d==1\n" % i for i in range(210_000)),
    "one package without end": b"p==123456789.123456789.123456789.123456789\n" * 150_000,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", HOSTILE)
def test_no_file_breaks_or_delays_a_rule(name: str, what: str) -> None:
    began = time.monotonic()
    verdict = judge(material({}, {name: HOSTILE[what]}))
    assert time.monotonic() - began < SECONDS_MAX, what
    assert verdict.judge == "anomalies"
    judge(material({name: HOSTILE[what]}, {name: b""}))  # as the base's content it explains nothing


@pytest.mark.req("H18")
@pytest.mark.parametrize(
    "name", ["pyproject.toml", "package.json", "package-lock.json", "Cargo.toml", "uv.lock", "pom.xml"]
)
def test_what_cannot_be_read_is_a_finding(name: str) -> None:
    verdict = judge(material({}, {name: b"[[[" * 10_000}))
    assert "manifest_unread" in verdict.facts["rules"]
    parse = dependencies.parser(name)
    assert parse is not None
    with pytest.raises(UnreadableError):
        parse(b"[[[" * 10_000)


@pytest.mark.parametrize(
    "text", [LAUGHS, MERGES, b"[" * 5_000, b"- x\n" * 60_000], ids=["aliases", "merges", "deep", "wide"]
)
def test_a_yaml_bomb_costs_nothing(text: bytes) -> None:
    began = time.monotonic()
    verdict = judge(material({}, {".github/workflows/x.yml": text}))
    assert time.monotonic() - began < SECONDS_MAX
    fired = verdict.facts["rules"]
    assert "manifest_unread" in fired or ("pipeline" in fired) is (text is MERGES)


def test_an_old_file_that_cannot_be_read_explains_nothing() -> None:
    verdict = judge(material({"package.json": b"{"}, {"package.json": npm()}))
    assert "dependency" in verdict.facts["rules"]


def test_names_in_findings_cannot_write_to_a_terminal() -> None:
    after = {"package.json": npm(dependencies={"\x1b[2Jexpress\u202e": "1"}), "deploy/\x1b]0;x\x07.yml": b"a: 1\n"}
    found = judge(material({"package.json": npm()}, after)).findings
    assert any("express" in f.message for f in found)
    assert all(f.message.isprintable() and f.path.isprintable() for f in found)


SEEDS = [case.after[next(iter(case.after))] for case in MALICIOUS]
BYTES = [seed for seed in SEEDS if isinstance(seed, bytes)] + [
    png(),
    GIF,
    JPEG,
    PDF,
    ELF,
    PYC,
    JAR,
    CI,
    POM,
    PYPROJECT,
    npm_lock("a"),
]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(BYTES), st.lists(st.tuples(st.integers(0, 30_000), st.binary(max_size=8)), max_size=6),
       st.sampled_from([*NAMES, "a.png", "a.py", "a", "docs/a.jpg"]), st.integers(0, 30_000))  # fmt: skip
def test_damaged_contents_never_raise(seed: bytes, edits: list[tuple[int, bytes]], name: str, cut: int) -> None:
    data = bytearray(seed)
    for at, piece in edits:
        data[at % (len(data) + 1) : at % (len(data) + 1) + len(piece)] = piece
    damaged = bytes(data[: cut or None])
    kind(damaged)
    judge(material({name: seed}, {name: damaged}))


def _steps(text: bytes) -> list[str]:
    return pipelines._steps(".github/workflows/a.yml", text)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        (
            b"on: push\njobs: {a: {steps: [{uses: a/b@v1}, {run: 'x\n\n  y'}]}}",
            ["on: push", "uses: a/b@v1", "run: x", "run: y"],
        ),
        (b"a: {script: [make, pytest]}", ["run: make", "run: pytest"]),
        (b"x: &s {run: id}\ny: *s\nz: *s", ["run: id"]),
        (b"permissions: {contents: write}", ["permissions: contents write"]),
        (b"", []),
    ],
)
def test_steps_are_read_line_by_line(text: bytes, steps: list[str]) -> None:
    assert _steps(text) == steps


Check = Callable[[bytes], object]
FOUND: list[tuple[str, bytes, set[str], set[str], int]] = [
    ("requirements.txt", b"a==1 --hash=sha256:00\nB_c[x]>=2 ; python_version>'3'\n# d\n-r other.txt\ne @ https://x.example/e.whl\n", {"a", "b-c", "e"}, set(), 1),
    ("pyproject.toml", b'[dependency-groups]\ndev = ["a", {include-group = "b"}]\n[tool.uv.sources]\na = {git = "https://x.example/a"}\n', {"a"}, set(), 1),
    ("setup.cfg", b"[metadata]\nname = shop\n[options]\ninstall_requires =\n  a\n  b>1\n[options.extras_require]\nx =\n  c\n", {"a", "b", "c"}, set(), 0),
    ("setup.py", b"from setuptools import setup\nsetup(name='shop', extras_require={'x': ['a>1']}, install_requires=('b',))\n", {"a", "b"}, set(), 0),
    ("Pipfile.lock", b'{"default": {"a": {"version": "==1"}}, "develop": {"b": {"git": "https://x.example/b"}}}', set(), {"a", "b"}, 1),
    ("poetry.lock", b'[[package]]\nname = "a"\nversion = "1"\n[package.source]\ntype = "git"\nurl = "https://x.example/a"\n', set(), {"a"}, 1),
    ("package-lock.json", b'{"dependencies": {"a": {"version": "1", "dependencies": {"b": {"version": "2", "resolved": "http://x.example/b"}}}}}', set(), {"a", "b"}, 1),
    ("yarn.lock", b'# yarn\n\na@^1, a@~1:\n  version "1.0.0"\n  resolved "https://x.example/a.tgz#00"\n\n"@s/b@npm:^2":\n  version: 2.0.0\n  resolution: "@s/b@npm:2.0.0"\n', set(), {"a", "@s/b"}, 1),
    ("pnpm-lock.yaml", b"lockfileVersion: '9.0'\npackages:\n\n  a@1.0.0:\n    resolution: {integrity: x}\n\n  '@s/b@2.0.0(c@1.0.0)':\n    resolution: {tarball: https://x.example/b}\n  /d/3.0.0:\n    dev: true\nsnapshots:\n  e@1.0.0: {}\n", set(), {"a", "@s/b", "d"}, 1),
    ("go.mod", b"module m\nrequire a.example/x v1.0.0 // indirect\nrequire (\n\tb.example/y v2.0.0\n)\nreplace b.example/y => ../y\n", {"a.example/x", "b.example/y"}, set(), 0),
    ("go.sum", b"a.example/x v1.0.0 h1:x=\na.example/x v1.0.0/go.mod h1:y=\n", set(), {"a.example/x"}, 0),
    ("Cargo.toml", b'[dependencies]\na = "1"\nb = {path = "../b"}\nc = {package = "d", version = "1", git = "https://x.example/d"}\n[target."cfg(unix)".dependencies]\ne = "1"\n[workspace.dependencies]\nf = "1"\n', {"a", "d", "e", "f"}, set(), 1),
    ("Cargo.lock", b'[[package]]\nname = "shop"\nversion = "0"\n[[package]]\nname = "a"\nversion = "1"\nsource = "registry+https://github.com/rust-lang/crates.io-index"\n', set(), {"a"}, 0),
    ("pom.xml", POM.replace(b"</dependencies>", b"</dependencies><repositories><repository><url>https://x.example</url></repository></repositories><build><plugins><plugin><artifactId>p</artifactId></plugin></plugins></build>"), {"junit:junit", "org.apache.maven.plugins:p"}, set(), 1),
]  # fmt: skip


@pytest.mark.req("H18")
@pytest.mark.parametrize(("name", "data", "direct", "locked", "sources"), FOUND, ids=[f[0] for f in FOUND])
def test_each_format_is_read(name: str, data: bytes, direct: set[str], locked: set[str], sources: int) -> None:
    parse = dependencies.parser(name)
    assert parse is not None
    made = parse(data)
    assert set(made.direct) == direct
    assert set(made.locked) == locked
    assert len(made.sources) == sources, made.sources


@pytest.mark.parametrize("name", ["requirements-dev.txt", "requirements/test.in", "a/b/package.json", "sub/go.mod"])
def test_manifests_are_known_anywhere(name: str) -> None:
    assert dependencies.parser(name) is not None
    assert dependencies.parser("src/" + name + ".py") is None


MANY: dict[str, dict[str, bytes]] = {
    "libraries": {f"vendor/l{i}/a.py": b"x = 1\n" for i in range(3_000)},
    "licences": {f"lib/l{i}/{name}": b"x" for i in range(1_500) for name in ("LICENSE", "__init__.py")},
    "kinds": {f"a/b{i}.x{i}": ELF[:500] for i in range(3_000)},
    "manifests": {f"p{i}/package.json": b'{"dependencies": {"a%d": "1"}}' % i for i in range(1_500)},
    "hidden characters": {f"d{i}.md": ("\u200d" * 2_000 + "\n").encode() * 50 for i in range(100)},
}


@pytest.mark.parametrize("what", MANY)
def test_many_changes_take_linear_time(what: str) -> None:
    base = {f"src/m{i // 50}/f{i}.py": b"x = 1\n" for i in range(20_000)}
    began = time.monotonic()
    verdict = judge(material(base, MANY[what]))
    assert time.monotonic() - began < SECONDS_MAX
    assert "diff_files" in verdict.facts["rules"]
