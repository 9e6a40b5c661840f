"""Levels: each asks for all that is below it, one missing mechanism holds it, and what raises it is one command."""

import pytest

from inbounds.sandbox import maturity
from inbounds.sandbox.maturity import ASKED, reached
from inbounds.sandbox.spec import ENFORCED, HARDENED, MECHANISMS, REQUIRED

ALL = dict.fromkeys((*MECHANISMS, *HARDENED), ENFORCED)


def without(name: str) -> dict[str, str]:
    return {**ALL, name: "absent: not here"}


@pytest.mark.req("P3", "P4")
def test_everything_is_level_3_and_nothing_is_level_0() -> None:
    assert reached(ALL) == maturity.Reached(3, ())
    assert reached({}) == maturity.Reached(0, REQUIRED)
    assert "refused" in maturity.LEVELS[0]


@pytest.mark.req("P0", "P1", "P2", "P3")
@pytest.mark.parametrize(("level", "name"), [(level, name) for level, names in ASKED.items() for name in names])
def test_each_mechanism_holds_the_level_that_asks_for_it(level: int, name: str) -> None:
    got = reached(without(name))
    assert (got.level, got.lacking) == (level - 1, (name,))


def test_what_no_level_asks_for_holds_none() -> None:
    assert reached(without("encryption")).level == 3
    assert reached(without("cgroup_io")).level == 3


@pytest.mark.req("P4")
def test_rootless_is_held_at_2_in_the_words_of_the_documents() -> None:
    got = reached(ALL, maturity.LEVEL_ROOTLESS_MAX)
    assert got.level == 2
    step = maturity.next_step(2, {"hardened mode": "not installed"})
    assert "dedicated user, quota image, ACLs, files read" in step.missing
    assert step.command == "sudo inbounds host install --operator $USER"
    assert maturity.next_step(2, {}, hardened_fix="newgrp inbounds-operators").command == "newgrp inbounds-operators"
    assert maturity.next_step(0, {}, fix="do this") == maturity.Step("a jail cannot be made here", "do this")
    assert maturity.next_step(3, {}).command == ""


@pytest.mark.req("P4")
def test_a_threads_level_is_its_modes() -> None:
    both = {"rootless": 2, "hardened": 3}
    assert maturity.thread_level(both, "auto") == (3, "")
    level, held = maturity.thread_level(both, "rootless")
    assert level == 2
    assert "rootless" in held
    assert maturity.thread_level({"rootless": 2, "hardened": 0}, "auto") == (2, "")
    assert maturity.thread_level({"rootless": 2, "hardened": 0}, "rootless") == (2, "")
    assert maturity.thread_level({"rootless": 2, "hardened": 0}, "hardened") == (0, "")
