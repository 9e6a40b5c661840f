"""Owners found in CODEOWNERS, in the history, in the person's own git; never a bot."""

from pathlib import Path

import pytest
from made_repository import commit, repository

from inbounds.discover import owners


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*", "a/b.py", True),
        ("*.js", "deep/down/x.js", True),
        ("*.js", "x.jsx", False),
        ("/billing/", "billing/x.py", True),
        ("/billing/", "other/billing/x.py", False),
        ("/billing", "billing/deep/x.py", True),
        ("apps/", "a/apps/x", True),
        ("docs/*", "docs/a.md", True),
        ("docs/*", "docs/deep/a.md", False),
        ("docs/*", "other/docs/a.md", False),
        ("**/logs", "a/b/logs/x", True),
        ("/a/**/z.py", "a/z.py", True),
        ("/a/**/z.py", "a/b/c/z.py", True),
        ("file?.txt", "file1.txt", True),
        ("a.b", "axb", False),
    ],
)
def test_patterns_match_as_on_the_forges(pattern: str, path: str, expected: bool) -> None:
    assert owners.matches(pattern, path) is expected


def test_the_last_match_wins_and_names_its_line(tmp_path: Path) -> None:
    top = repository(
        tmp_path,
        {
            "billing/a.py": "",
            "billing/special.py": "",
            "CODEOWNERS": (
                "# who answers\n* everyone@example.com\n/billing/ maria@example.com @org/money # comment\n"
                "/billing/special.py jonas@example.com\n"
            ),
        },
    )
    assert owners.owners_of(top, "billing") == owners.Ownership(("maria@example.com", "@org/money"), "CODEOWNERS:3")
    assert owners.owners_of(top, "billing/special.py").source == "CODEOWNERS:4"
    assert owners.owners_of(top, "").owners == ("everyone@example.com",)


def test_the_place_that_the_forge_reads_first_is_in_force(tmp_path: Path) -> None:
    files = {".github/CODEOWNERS": "* hub@example.com\n", "CODEOWNERS": "* root-file@example.com\n"}
    assert owners.owners_of(repository(tmp_path, files), "x").owners == ("hub@example.com",)


def test_a_bot_owns_nothing(tmp_path: Path) -> None:
    top = repository(tmp_path, {"CODEOWNERS": "* dependabot[bot] @github-actions ada@example.com\n", "a/x": ""})
    found = owners.owners_of(top, "a")
    assert found.owners == ("ada@example.com",)
    assert found.refused == ("dependabot[bot]", "@github-actions")


def test_where_only_a_bot_is_named_the_history_answers(tmp_path: Path) -> None:
    top = repository(tmp_path, {"CODEOWNERS": "* renovate[bot]\n", "a/x": "1"}, author=("ci-bot", "ci@example.com"))
    for number in range(3):
        commit(top, {"a/x": str(number)}, "renovate[bot]", "29139614+renovate[bot]@users.noreply.github.com")
    commit(top, {"a/x": "person"}, "Ada", "ada@example.com")
    found = owners.owners_of(top, "a")
    assert found.owners == ("Ada <ada@example.com>",)
    assert found.source == "git log (1 of the last 5 commits)"
    assert "renovate[bot]" in found.refused


def test_without_a_person_in_the_history_the_operator_is_asked_of_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = repository(tmp_path / "r", {"x": ""}, author=("ci-bot", "ci@example.com"))
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert owners.owners_of(top, "").owners == ()
    (home / ".gitconfig").write_text("[user]\n\temail = grace@example.com\n")
    assert owners.owners_of(top, "") == owners.Ownership(("grace@example.com",), f"user.email in {home}/.gitconfig")


@pytest.mark.parametrize(
    ("name", "bot"),
    [
        ("dependabot[bot]", True),
        ("@dependabot", True),
        ("github-actions", True),
        ("release-bot", True),
        ("Release-bot <x@example.com>", True),
        ("Robot <noreply@github.com>", True),
        ("Ada Abbot <ada@example.com>", False),
        ("Ada <123+ada@users.noreply.github.com>", False),
        ("@org/robotics", False),
        ("jonas@bottles.example", False),
    ],
)
def test_what_counts_as_a_bot(name: str, bot: bool) -> None:
    assert owners.is_bot(name) is bot
