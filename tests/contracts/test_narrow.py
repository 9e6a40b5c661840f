"""Narrowing: no child ever ends wider than any ancestor, and a step that widens is refused with both places."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from inbounds.contracts.documents import LimitsText
from inbounds.contracts.errors import OperatorError
from inbounds.contracts.limits import BY_KEY, DEFAULT, RULES, Limits
from inbounds.contracts.narrow import Layer, narrow_limits, narrow_names, tighter


def texts(at_most: int = 0) -> st.SearchStrategy[LimitsText]:
    """Some limits, as people may write them."""
    each = {
        rule.key: st.none() | st.integers(1, at_most or min(rule.ceiling * 2, 2**50)).map(_writer(rule.key))
        for rule in RULES
    }
    return st.builds(LimitsText, **each)


def _writer(key: str):
    whole = key in {"iterations", "no_progress", "turns", "tool_calls", "file_changes", "tokens", "denials",
             "iteration_file_changes", "restarts"}  # fmt: skip
    whole = whole or key in {"processes", "inodes"}
    return (lambda value: value) if whole else BY_KEY[key].written


layers = st.lists(texts(), max_size=4).map(
    lambda said: [Layer(f"layer{n}.yaml", text, {rule.key: n + 1 for rule in RULES}) for n, text in enumerate(said)]
)


@given(texts(), layers)
@pytest.mark.req("B13")
def test_a_child_never_ends_wider_than_any_ancestor(policy: LimitsText, children: list[Layer]) -> None:
    top = Layer("policy.yaml", policy, {})
    try:
        limits, sources = narrow_limits(top, children)
    except OperatorError as fault:
        _assert_somebody_widened(top, children, fault)
        return
    for rule in RULES:
        value = getattr(limits, rule.field)
        said = [layer for layer in (top, *children) if getattr(layer.limits, rule.key) is not None]
        for layer in said:
            assert value <= rule.parse(getattr(layer.limits, rule.key))
        assert value <= rule.ceiling
        assert value <= rule.default or said[0] is top
        assert sources[rule.key] == (said[-1].where(rule.key) if said else "built-in default")


def _assert_somebody_widened(top: Layer, children: list[Layer], fault: OperatorError) -> None:
    key = fault.found.split(":", 1)[0]
    rule = BY_KEY[key]
    values = [rule.parse(v) for layer in (top, *children) if (v := getattr(layer.limits, key)) is not None]
    if getattr(top.limits, key) is None:
        values.insert(0, rule.default)
    assert any(later > earlier for earlier, later in pairwise(values)) or values[0] > rule.ceiling


@given(texts(at_most=100), layers)
def test_one_more_layer_can_only_tighten(policy: LimitsText, children: list[Layer]) -> None:
    top = Layer("policy.yaml", policy, {})
    try:
        fewer, _ = narrow_limits(top, children[:-1])
        more, _ = narrow_limits(top, children)
    except OperatorError:
        assume(condition=False)
        return
    for name in Limits.__dataclass_fields__:
        assert getattr(more, name) <= getattr(fewer, name)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.key)
@pytest.mark.req("B13", "E8")
def test_a_step_that_widens_is_refused_naming_both_places(rule) -> None:
    write = _writer(rule.key)
    policy = Layer(".inbounds/policy.yaml", LimitsText(**{rule.key: write(1_000)}), {rule.key: 7})
    thread = Layer("billing/.inbounds/config.yaml", LimitsText(**{rule.key: write(900)}), {rule.key: 3})
    flags = Layer("the flags", LimitsText(**{rule.key: write(901)}), {})
    with pytest.raises(OperatorError) as caught:
        narrow_limits(policy, [thread, flags])
    fault = caught.value
    assert fault.where == "the flags"
    assert "billing/.inbounds/config.yaml:3" in fault.found
    assert str(write(900)) in fault.expected
    assert rule.key in fault.fix
    # the positive control: the same value as the parent is no widening
    same = Layer("the flags", thread.limits, {})
    assert getattr(narrow_limits(policy, [thread, same])[0], rule.field) == rule.parse(write(900))


def test_a_thread_cannot_widen_what_the_policy_left_at_its_default() -> None:
    thread = Layer("config.yaml", LimitsText(budget_usd="5.01"), {"budget_usd": 4})
    with pytest.raises(OperatorError) as caught:
        narrow_limits(Layer("policy.yaml", LimitsText(), {}), [thread])
    assert "built-in default" in caught.value.found
    assert caught.value.expected == "at most 5.00"
    assert narrow_limits(Layer("policy.yaml", LimitsText(), {}), [])[0] == DEFAULT


def test_a_policy_may_raise_a_default_but_not_the_ceiling() -> None:
    raised = Layer("policy.yaml", LimitsText(budget_usd=500), {"budget_usd": 2})
    assert narrow_limits(raised, [])[0].budget_micro_usd == 500_000_000
    with pytest.raises(OperatorError, match=r"policy.yaml:2: budget_usd"):
        narrow_limits(Layer("policy.yaml", LimitsText(budget_usd=100_001), {"budget_usd": 2}), [])


@pytest.mark.parametrize(("key", "said"), [("budget_usd", "lots"), ("wall_clock", "30"), ("memory", "4X")])
def test_what_cannot_be_read_names_its_line_and_an_example_that_works(key: str, said: str) -> None:
    with pytest.raises(OperatorError) as caught:
        narrow_limits(Layer("policy.yaml", LimitsText(**{key: said}), {key: 6}), [])
    assert caught.value.where == "policy.yaml:6"
    BY_KEY[key].parse(caught.value.expected.removeprefix("such as "))
    with pytest.raises(OperatorError):
        tighter(LimitsText(**{key: said}), LimitsText(**{key: "1"}))


@given(texts(), texts())
def test_tighter_is_the_minimum_of_both(first: LimitsText, second: LimitsText) -> None:
    both = tighter(first, second)
    for rule in RULES:
        said = [rule.parse(v) for v in (getattr(first, rule.key), getattr(second, rule.key)) if v is not None]
        found = getattr(both, rule.key)
        assert (found is None) == (not said)
        assert found is None or rule.parse(found) == min(said)
    assert msgspec.to_builtins(tighter(second, first)).keys() == msgspec.to_builtins(both).keys()


names = st.lists(st.sampled_from("abcdef"), unique=True).map(tuple)


@given(names, st.none() | names)
@pytest.mark.req("B13")
def test_an_allowlist_only_shrinks(parent: tuple[str, ...], child: tuple[str, ...] | None) -> None:
    if set(child or ()) <= set(parent):
        assert narrow_names("agents", parent, child, "") == (parent if child is None else child)
        return
    with pytest.raises(OperatorError, match=r"config.yaml:3: agents"):
        narrow_names("agents", parent, child, "config.yaml:3")
