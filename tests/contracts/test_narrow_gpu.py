"""A thread never gets more of a GPU than policy grants, and a grant without a ceiling is none."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inbounds.contracts import bound
from inbounds.contracts.documents import Gpu, Policy
from inbounds.contracts.errors import OperatorError
from inbounds.contracts.load import load
from inbounds.contracts.narrow import GPU_CEILINGS, UTILIZATION_SECONDS, narrow_gpu

few = st.none() | st.lists(st.integers(0, 3), max_size=4).map(tuple)
said = st.builds(
    Gpu,
    devices=few,
    memory_mib=st.none() | st.integers(1, 8),
    utilization_percent=st.none() | st.integers(1, 8),
    utilization_seconds=st.none() | st.integers(1, 120),
)


def narrowed(policy: Gpu, child: Gpu | None = None) -> bound.Gpu:
    return narrow_gpu(policy, "policy.yaml", child or Gpu(), "config.yaml")


@given(said, said)
@pytest.mark.req("B13", "E7")
def test_a_thread_never_ends_wider(policy: Gpu, child: Gpu) -> None:
    try:
        got = narrowed(policy, child)
    except OperatorError:
        assert policy.devices or child.devices or any(getattr(child, key) for key in GPU_CEILINGS), "nobody asked"
        return
    assert set(got.devices) <= set(policy.devices or ())
    if child.devices is not None:
        assert set(got.devices) <= set(child.devices)
    for key in GPU_CEILINGS:
        most = [value for value in (getattr(policy, key), getattr(child, key)) if value is not None]
        value = getattr(got, key)
        assert (value > 0) == bool(got.devices)
        assert all(value <= one for one in most)


FULL = Gpu(devices=(0, 2), memory_mib=100, utilization_percent=50)


def test_silence_takes_what_policy_says() -> None:
    assert narrowed(Gpu()) == bound.Gpu()
    assert narrowed(FULL) == bound.Gpu((0, 2), 100, 50, UTILIZATION_SECONDS)
    assert narrowed(FULL, Gpu(devices=(2,), utilization_seconds=5)) == bound.Gpu((2,), 100, 50, 5)
    assert narrowed(FULL, Gpu(devices=())) == bound.Gpu()


@pytest.mark.req("E7")
@pytest.mark.parametrize("key", ["memory_mib", "utilization_percent"])
def test_a_grant_without_a_ceiling_is_refused(key: str) -> None:
    with pytest.raises(OperatorError, match=key) as refused:
        narrowed(msgspec.structs.replace(FULL, **{key: None}))
    assert key in refused.value.fix
    narrowed(FULL)


@pytest.mark.parametrize(
    "wider", [{"devices": (1,)}, {"memory_mib": 101}, {"utilization_percent": 51}, {"utilization_seconds": 61}]
)
def test_each_way_of_asking_for_more_is_refused_with_both_places(wider: dict[str, Any]) -> None:
    with pytest.raises(OperatorError, match=r"widens what policy grants") as refused:
        narrowed(FULL, Gpu(**wider))
    assert refused.value.where == "config.yaml"
    with pytest.raises(OperatorError, match=r"widens"):
        narrowed(Gpu(), Gpu(**wider))


@pytest.mark.parametrize(
    "wrong",
    [
        "devices: [-1]",
        "devices: [64]",
        "devices: all",
        "devices: ['/dev/sda']",
        "memory_mib: 0",
        "memory_mib: 1G",
        "utilization_percent: 101",
        "utilization_seconds: 0",
        "nodes: []",
    ],
)
def test_what_means_nothing_is_refused_where_it_is_read(tmp_path: Any, wrong: str) -> None:
    policy = tmp_path / "policy.yaml"
    text = "version: 1\noperators: []\nresources: {gpu: {devices: [0], memory_mib: 1, utilization_percent: 1}}\n"
    policy.write_text(text)
    assert load(policy, Policy).resources.gpu.devices == (0,)
    policy.write_text(text.splitlines(keepends=True)[0] + f"operators: []\nresources: {{gpu: {{{wrong}}}}}\n")
    with pytest.raises(OperatorError):
        load(policy, Policy)
