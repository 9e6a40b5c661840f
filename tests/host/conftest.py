"""The host service's tests share one rig."""

from collections.abc import Iterator

import pytest
from hostrig import Rig, root_or_skip


@pytest.fixture
def rig() -> Iterator[Rig]:
    root_or_skip()
    made = Rig()
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def idle() -> Iterator[Rig]:
    """The same, not started."""
    root_or_skip()
    made = Rig()
    try:
        yield made
    finally:
        made.close()
