import os

import pytest

from inbounds.store import descent


@pytest.fixture
def place(tmp_path):
    """A scratch directory that goes away however deep or unreadable a test made it (pytest's own removal can't)."""
    directory = tmp_path / "place"
    directory.mkdir()
    yield directory
    descent.delete_tree(os.fspath(directory))
