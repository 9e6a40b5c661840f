import json

import pytest

from inbounds.contracts.errors import OperatorError
from inbounds.deps import build, manifests, upstream

HASH = "--hash=sha256:" + "a" * 64
LOCK = {
    "lockfileVersion": 3,
    "packages": {
        "": {"name": "x"},
        "node_modules/is-number": {
            "version": "7.0.0",
            "resolved": "https://registry.npmjs.org/is-number/-/is-number-7.0.0.tgz",
            "integrity": "sha512-x",
        },
    },
}


def test_hashed_requirements_win_over_unhashed_ones() -> None:
    files = {
        "requirements.txt": f"six==1.17.0 \\\n    {HASH}\n".encode(),
        "requirements-dev.txt": b"-r requirements.txt\npytest\n",
    }
    (found,) = manifests.find(files)
    assert (found.kind, found.locked) == ("pip", True)
    assert found.files["requirements.txt"] == f"six==1.17.0 {HASH}\n".encode()
    assert any("requirements-dev.txt" in note for note in found.notes)


def test_includes_are_followed_and_the_project_itself_is_left_out() -> None:
    files = {
        "t/requirements.txt": b"-r ../common.txt  # shared\n-e .\n--index-url https://evil.example/simple\nb>=1 ; python_version > '3'\n",
        "common.txt": b"# c\na==1\n\n",
        "requirements.txt": b"never\n",
    }
    (found,) = manifests.find(files, "t")
    assert found.files["requirements.txt"] == b"a==1\nb>=1 ; python_version > '3'\n"
    assert not found.locked
    assert len(found.notes) == 2
    assert manifests.find(files, "other")[0].files["requirements.txt"] == b"never\n"


@pytest.mark.parametrize(
    "line",
    [
        "git+https://x.example/a.git",
        "a @ https://x.example/a.whl",
        "https://x.example/a.whl",
        "a @ file:///etc/passwd",
        "-e git+ssh://x/a",
        "--config-settings x=y",
        "-r missing.txt",
        "-r requirements.txt/../../x",
    ],
)
def test_what_no_index_can_answer_is_refused_by_line(line: str) -> None:
    with pytest.raises(OperatorError) as caught:
        manifests.find({"requirements.txt": f"six\n{line}\n".encode()})
    assert "requirements.txt" in caught.value.where


def test_a_pyproject_alone_gives_dependencies_and_test_extras() -> None:
    text = """
[project]
name = "My_Pkg"
dependencies = ["a>=1"]
[project.optional-dependencies]
test = ["b", "my-pkg[cli]"]
docs = ["never"]
[dependency-groups]
dev = ["c", {include-group = "lint"}]
lint = ["d"]
"""
    (found,) = manifests.find({"pyproject.toml": text.encode()})
    assert found.files["requirements.txt"] == b"a>=1\nb\nc\nd\n"
    assert not found.locked
    assert manifests.find({"pyproject.toml": b"[tool.x]\n"}) == ()
    for bad in (
        b"[",
        b"\xff",
        b"[project]\ndependencies = 'x'\n",
        b"[dependency-groups]\ntest=[{include-group='test'}]\n[project]\n",
    ):
        with pytest.raises(OperatorError):
            manifests.find({"pyproject.toml": bad})


def test_uv_and_npm_are_found_beside_each_other() -> None:
    files = {
        "pyproject.toml": b"[project]\nname='x'\n[dependency-groups]\ntest=['pytest']\n",
        "uv.lock": b"version = 1\n[[package]]\nname='x'\nsource = { editable = '.' }\n",
        "package.json": b"{}",
        "package-lock.json": json.dumps(LOCK).encode(),
    }
    python, node = manifests.find(files, "thread")
    assert (python.kind, python.locked, python.options["groups"]) == ("uv", True, ("test",))
    assert (node.kind, node.locked) == ("npm", True)
    assert b"resolved" not in node.files["package-lock.json"]
    with pytest.raises(OperatorError, match="git"):
        manifests.find({**files, "uv.lock": b"[[package]]\nname='x'\nsource = { git = 'https://x' }\n"})
    bad = json.loads(json.dumps(LOCK))
    bad["packages"]["node_modules/is-number"]["resolved"] = "git+ssh://x"
    with pytest.raises(OperatorError, match="git"):
        manifests.find({**files, "package-lock.json": json.dumps(bad).encode()})


def test_the_key_changes_with_content_and_nothing_else() -> None:
    base = manifests.find({"requirements.txt": b"six==1.17.0\n"})
    moved = manifests.find({"a/requirements.txt": b"# why\nsix==1.17.0\n"}, "a")
    other = manifests.find({"requirements.txt": b"six==1.16.0\n"})
    key = manifests.key(base, "3.11", "linux-x86_64")
    assert key == manifests.key(moved, "3.11", "linux-x86_64")
    assert len({key, manifests.key(other, "3.11", "linux-x86_64"), manifests.key(base, "3.12", "linux-x86_64")}) == 3
    assert key == "7fa99e7ac52ed90e26608368335a40e1cd0d1537d93ce85933e72ec26a020f8b"


@pytest.mark.parametrize(
    ("path", "yes"),
    [
        ("requirements.txt", True),
        ("a/requirements/dev.txt", True),
        ("b/uv.lock", True),
        ("src/a.py", False),
        ("x.txt", False),
    ],
)
def test_what_must_be_fetched_from_the_base_commit(path: str, yes: bool) -> None:
    assert manifests.is_manifest(path) is yes


def test_the_layer_is_used_where_it_is_built() -> None:
    plan = build.plan(
        manifests.find({"t/requirements.txt": b"six\n"}, "t"),
        python="/usr/bin/python3",
        packages=("t/src/p/__init__.py",),
    )
    assert plan.pythonpath == ("t/src", "t")
    assert plan.env_use["VIRTUAL_ENV"] == "/opt/inbounds/env"
    assert b"http://127.0.0.1:8100/simple/" in plan.files["spec.json"]
    assert not plan.locked


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"ok": 1}', b"[" * 100_000])
def test_a_build_without_an_answer_is_the_hosts_fault(answer: bytes) -> None:
    with pytest.raises(build.HostError):
        build.read(1, {build.ANSWER: answer})


def test_what_a_build_says_reaches_no_terminal_raw() -> None:
    answer = {"ok": False, "problem": "no \x1b]0;x\x07 such", "fix": "", "resolved": []}
    with pytest.raises(OperatorError) as caught:
        build.read(1, {build.ANSWER: json.dumps(answer).encode()})
    assert "\x1b" not in caught.value.found
    lacking = {**answer, "problem": "npm is not installed", "fix": "apt install npm"}
    with pytest.raises(build.HostError, match="apt install npm"):
        build.read(1, {build.ANSWER: json.dumps(lacking).encode()})


def test_pip_and_npm_say_where_they_fetch_from(tmp_path: object) -> None:
    env = {
        "PATH": "/usr/bin:/bin",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": "https://me:word@index.example/simple/",
        "PIP_EXTRA_INDEX_URL": "https://other.example/simple",
        "HTTPS_PROXY": "http://proxy.example:3128",
        "NO_PROXY": ".inside.example",
        "HOME": str(tmp_path),
    }
    found, notes = upstream.discover(env)
    assert found.pip_index == "https://me:word@index.example/simple"
    assert found.shown()["pip"] == "https://index.example/simple"
    assert upstream.proxy_for("https://a.example/x", found.proxies) == "http://proxy.example:3128"
    assert upstream.proxy_for("https://a.inside.example/x", found.proxies) is None
    assert any("other.example" in note for note in notes)
    with pytest.raises(OperatorError):
        upstream.Upstream(pip_index="file:///opt/simple")
