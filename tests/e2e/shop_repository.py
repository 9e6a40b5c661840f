"""A small repository with real dependencies, as a person has one: src layout, hashed requirements, a red suite.

`tariff` quotes parcels with click and attrs. Four of its tests fail: two belong to the goal, two to nobody today.
"""

import os
import subprocess
from pathlib import Path

GOAL = "Charge a surcharge for parcels over thirty kilograms"
ACCEPT = ("tests/test_surcharge.py::test_a_heavy_parcel_costs_more", "tests/test_surcharge.py::test_it_is_printed")
OTHERWISE_FAILING = ("tests/test_quote.py::test_islands_are_quoted", "tests/test_quote.py::test_rounding_is_commercial")
SOURCE = "src/tariff/quote.py"

REQUIREMENTS = """\
# written by: pip-compile --generate-hashes requirements.in
attrs==24.3.0 \\
    --hash=sha256:ac96cd038792094f438ad1f6ff80837353805ac950cd2aa0e0625ef19850c308
click==8.1.8 \\
    --hash=sha256:63c132bbbed01578a06712a2d1f497bb62d9c1c0d329b7903a866228027263b2
iniconfig==2.3.1 \\
    --hash=sha256:67f4b9c50da0dedf52af349e7749a80a9057a5031199791b906c3bb3ae878960 \\
    --hash=sha256:9121e2c1fdb355232495be3194c8dfe87ccc2d5dee45947b78e68f499790d7a7
packaging==26.3 \\
    --hash=sha256:94edc256424af38762eb31306eed28beb9f0efc50a8837492c9d6fd6004aed79 \\
    --hash=sha256:d7193f7c8e4e93f444fde0262bf90af30e16fa0ad0ad44cb553c87339b23cd1c
pluggy==1.7.0 \\
    --hash=sha256:7dd7b0d8832ba3cb632c306926ded123429211b83641b35dc5c41ad2d34f9bec \\
    --hash=sha256:d1eaa46ebb595891b860ab086b4d09c8588af65ebd4361b8e8f4bb8920b90ba8
pygments==2.21.0 \\
    --hash=sha256:2363c69b61c4a97c838da3b130dcd6468f4848992b21a82f2a63ec34377137d9 \\
    --hash=sha256:610ca751c9bc2492b38eb9a38a7fbc93edbbb2d7182edaf34e66ae493dee5c8c
pytest==9.2.0 \\
    --hash=sha256:07acdcf88ec174f907dc01af70bf52d49b014bbab03faeeade31c96b18c2e588 \\
    --hash=sha256:97c4f3b1f3c7414aa36465e09b8220f1d03627993bd51b1282e193753c80557b
"""
PYPROJECT = """\
[project]
name = "tariff"
version = "0.3.0"
dependencies = ["attrs>=24", "click>=8.1"]

[tool.pytest.ini_options]
testpaths = ["tests"]
"""
QUOTE = '''\
"""What a parcel costs, in cents."""

import attrs


@attrs.frozen
class Parcel:
    grams: int
    zone: str = "inland"


def price(parcel: Parcel) -> int:
    if parcel.zone not in ("inland", "abroad"):
        raise ValueError(f"no zone {parcel.zone}")
    return 500 + parcel.grams // 10 * (2 if parcel.zone == "abroad" else 1)
'''
COMMAND = '''\
"""The tariff command."""

import click

from tariff.quote import Parcel, price


@click.command()
@click.argument("grams", type=int)
@click.option("--zone", default="inland")
def main(grams: int, zone: str) -> None:
    """Quote a parcel."""
    click.echo(f"{price(Parcel(grams, zone)) / 100:.2f} EUR")
'''
TEST_QUOTE = """\
from click.testing import CliRunner
from tariff.command import main
from tariff.quote import Parcel, price


def test_a_small_parcel():
    assert price(Parcel(1_000)) == 600


def test_abroad_costs_more():
    assert price(Parcel(1_000, "abroad")) > price(Parcel(1_000))


def test_the_command():
    assert CliRunner().invoke(main, ["1000"]).output == "6.00 EUR\\n"


def test_islands_are_quoted():
    assert price(Parcel(1_000, "island")) == 900


def test_rounding_is_commercial():
    assert price(Parcel(1_006)) == 601
"""
TEST_SURCHARGE = """\
from click.testing import CliRunner
from tariff.command import main
from tariff.quote import Parcel, price


def test_a_heavy_parcel_costs_more():
    assert price(Parcel(31_000)) == 500 + 3_100 + 1_500


def test_it_is_printed():
    assert CliRunner().invoke(main, ["31000"]).output == "51.00 EUR\\n"
"""
SOLVED = QUOTE.replace(
    '    return 500 + parcel.grams // 10 * (2 if parcel.zone == "abroad" else 1)\n',
    """\
    heavy = 1_500 if parcel.grams > 30_000 else 0
    return 500 + parcel.grams // 10 * (2 if parcel.zone == "abroad" else 1) + heavy
""",
)
FILES = {
    "pyproject.toml": PYPROJECT,
    "requirements.txt": REQUIREMENTS,
    "README.md": "# tariff\n",
    ".gitignore": "__pycache__/\n",
    SOURCE: QUOTE,
    "src/tariff/__init__.py": "",
    "src/tariff/command.py": COMMAND,
    "tests/test_quote.py": TEST_QUOTE,
    "tests/test_surcharge.py": TEST_SURCHARGE,
}
AUTHOR = {
    "GIT_AUTHOR_NAME": "Ida Person", "GIT_AUTHOR_EMAIL": "ida@shop.example",
    "GIT_COMMITTER_NAME": "Ida Person", "GIT_COMMITTER_EMAIL": "ida@shop.example",
}  # fmt: skip


def git(top: Path, *args: str) -> str:
    """Plain git as the person has it."""
    env = {"PATH": os.environ["PATH"], "HOME": str(top.parent), **AUTHOR}
    done = subprocess.run(["git", *args], cwd=top, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make(top: Path, files: dict[str, str] | None = None) -> Path:
    """Write and commit it."""
    for name, text in (FILES if files is None else files).items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    git(top, "init", "--quiet", "--initial-branch=main")
    git(top, "add", "--all")
    git(top, "commit", "--quiet", "--message", "the tariff as it is")
    return top
