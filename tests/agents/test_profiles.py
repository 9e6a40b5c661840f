"""Profiles without their agents: where a program is looked for, what a login means, what a broken end is read as."""

import json
import os
import stat
import tomllib
from pathlib import Path

import pytest

from inbounds.agents import npm, registry
from inbounds.agents.profile import AgentTask, Install
from inbounds.contracts.errors import OperatorError

ELF = b"\x7fELF" + bytes(60)


def _program(place: Path, content: bytes = ELF) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    place.chmod(0o755)
    return place


def _package(place: Path, name: str, version: str) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    (place / "package.json").write_text(json.dumps({"name": name, "version": version}))
    return place


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch, tmp_path):
    """A machine with none of its own agents in the usual places."""
    monkeypatch.setattr(npm, "GLOBAL_PLACES", ("~/.local/bin",))
    monkeypatch.setenv("HOME", str(tmp_path / "operator"))


def _claude_package(modules: Path, *, stub: bool) -> Path:
    package = _package(modules / "@anthropic-ai/claude-code", "@anthropic-ai/claude-code", "2.1.7")
    command = _program(package / "bin/claude.exe", b"#!/bin/sh\n" if stub else ELF)
    platform = _package(modules / f"@anthropic-ai/claude-code-linux-{npm.architecture()}", "x", "2.1.7")
    _program(platform / "claude", ELF + b"platform")
    return command


def test_nothing_is_found_where_nothing_is(tmp_path):
    for name in ("claude", "codex"):
        assert registry.profile(name).find([tmp_path, tmp_path / "none"]) is None


def test_claude_in_a_project(tmp_path):
    command = _claude_package(tmp_path / "node_modules", stub=False)
    (tmp_path / "node_modules/.bin").mkdir()
    os.symlink(command, tmp_path / "node_modules/.bin/claude")
    install = registry.profile("claude").find([tmp_path])
    assert install == Install("claude", "2.1.7", str(command.resolve()), npm.sha256(command), "anthropic-messages")


def test_claude_whose_install_script_did_not_run(tmp_path):
    command = _claude_package(tmp_path / "lib/node_modules", stub=True)
    (tmp_path / "bin").mkdir()
    os.symlink(command, tmp_path / "bin/claude")
    install = registry.profile("claude").find([tmp_path / "bin"])
    assert install is not None
    assert install.path.endswith("/claude")
    assert Path(install.path).read_bytes().endswith(b"platform")


def test_claude_from_its_own_installer(tmp_path):
    home = tmp_path / "operator"
    version = _program(home / ".local/share/claude/versions/2.1.99")
    (home / ".local/bin").mkdir(parents=True)
    os.symlink(version, home / ".local/bin/claude")
    install = registry.profile("claude").find([])
    assert install is not None
    assert install.version == "2.1.99"


def _codex_package(modules: Path) -> Path:
    package = _package(modules / "@openai/codex", "@openai/codex", "0.169.0")
    command = _program(package / "bin/codex.js", b"#!/usr/bin/env node\n")
    vendor = modules / f"@openai/codex-linux-{npm.architecture()}/vendor"
    triple = {"x64": "x86_64", "arm64": "aarch64"}.get(npm.architecture(), "") + "-unknown-linux-musl"
    _program(vendor / triple / "bin/codex")
    _program(vendor / triple / "bin/codex-code-mode-host")
    (vendor / triple / "codex-package.json").write_text("{}")
    return command


def test_codex_behind_its_shim_brings_its_whole_package(tmp_path):
    command = _codex_package(tmp_path / "lib/node_modules")
    (tmp_path / "bin").mkdir()
    os.symlink(command, tmp_path / "bin/codex")
    profile = registry.profile("codex")
    install = profile.find([tmp_path / "bin"])
    assert install is not None
    assert install.version == "0.169.0"
    launch = profile.launch(install, AgentTask("p", "m", "token", "/work/t"))
    root, place = Path(install.path).parents[1], "/opt/inbounds/agent/codex"
    programs = ("bin/codex", "bin/codex-code-mode-host")
    assert set(launch.executables) == {f"{place}/{name}" for name in programs}
    assert set(launch.binds) == {(f"{root}/{name}", f"{place}/{name}") for name in (*programs, "codex-package.json")}


def test_codex_that_stands_alone_brings_itself_only(tmp_path):
    program = _program(tmp_path / "bin/codex", b"\x7fELF")
    profile = registry.profile("codex")
    install = profile.find([tmp_path / "bin"])
    assert install is not None
    assert install.version == "unknown"
    launch = profile.launch(install, AgentTask("p", "m", "token", "/work/t"))
    assert launch.binds == ((str(program), "/opt/inbounds/agent/codex/bin/codex"),)


@pytest.mark.parametrize("name", ["claude", "codex", "reference"])
def test_the_token_stands_in_no_argument_and_nothing_of_the_host_is_named(name):
    profile = registry.profile(name)
    install = Install(name, "1", "/srv/somebody/secret-place/bin/program", "0" * 64, profile.format)
    task = AgentTask('say "hi"\n$(id)', "m-1", "the-run-token-0123", "/work/billing")
    launch = profile.launch(install, task)
    assert not [part for part in launch.argv if task.token in part]
    told = [*launch.argv, *launch.env.values(), *(content.decode() for content in launch.files.values())]
    assert not [text for text in told if "somebody" in text]
    assert launch.env["HOME"] == "/home/agent"
    assert all(not name.startswith(("/", "..")) for name in launch.files)
    assert set(launch.executables) <= {launch.argv[0]}
    assert any(launch.env[key] == task.token for key in launch.env)


def test_names_are_quoted_in_the_configuration():
    profile = registry.profile("codex")
    install = Install("codex", "1", "/x/bin/codex", "0" * 64, profile.format)
    task = AgentTask("p", 'm"\n[x]\x7f\\é', "token", '/work/a"b')
    written = tomllib.loads(profile.launch(install, task).files[".codex/config.toml"].decode())
    assert written["model"] == task.model
    assert written["projects"] == {'/work/a"b': {"trust_level": "untrusted"}}
    assert written["mcp_servers"]["inbounds"]["url"] == "http://127.0.0.1:8101/mcp"


def test_a_prompt_that_no_argument_carries_is_refused():
    for prompt in ("x" * 130_000, "a\0b"):
        with pytest.raises(OperatorError):
            AgentTask(prompt, "m", "t", "/work")


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("claude", ".claude/.credentials.json", {"claudeAiOauth": {"accessToken": "x"}}),
        ("codex", ".codex/auth.json", {"OPENAI_API_KEY": None, "tokens": {"access_token": "x"}}),
    ],
)
def test_a_subscription_login_is_no_key(tmp_path, name, file, content):
    profile = registry.profile(name)
    assert "no API key" in profile.problem(tmp_path, has_key=False)
    place = tmp_path / file
    place.parent.mkdir()
    place.write_text(json.dumps(content))
    said = profile.problem(tmp_path, has_key=False)
    assert "logged in" in said
    assert "keys only" in said
    assert profile.problem(tmp_path, has_key=True) == ""
    for broken in ("", "[]", "{", "7"):
        place.write_text(broken)
        assert "logged in" not in profile.problem(tmp_path, has_key=False)


@pytest.mark.parametrize("name", ["claude", "codex", "reference"])
@pytest.mark.parametrize("stdout", [b"", b"\xff\xfe", b"[" * 100_000, b'"x"\n7\n[]\n{"type":7}', b'{"type":"result"}'])
def test_an_end_without_a_result_is_not_ok(name, stdout):
    outcome = registry.profile(name).read(stdout, b"\xffkilled", 0)
    assert not outcome.ok
    assert not outcome.refused


def test_last_words_are_bounded():
    said = json.dumps({"type": "result", "subtype": "success", "is_error": False, "result": "x" * 1_000_000})
    assert len(registry.profile("claude").read(said.encode(), b"", 0).said) < 20_000


def test_the_registry_names_what_there_is():
    assert {"claude", "codex", "reference"} <= set(registry.names())
    with pytest.raises(OperatorError, match="reference"):
        registry.profile("hal")


def test_the_reference_agent_needs_the_standard_library_only():
    import ast
    import sys

    from inbounds.agents import reference_agent

    tree = ast.parse(Path(reference_agent.__file__).read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names
    assert stat.S_ISREG(os.stat(reference_agent.__file__).st_mode)
