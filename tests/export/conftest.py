"""The sample run's facts, and a real key of no use to anyone."""

import hashlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "journal"))

import evidence
import exported_run

from inbounds.export.statement import Facts
from inbounds.journal.signing import Signer


@pytest.fixture
def signer() -> Signer:
    return Signer(hashlib.sha256(b"a key of no use to anyone").digest())


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    return exported_run.facts_of(evidence.write(tmp_path, exported_run.steps()))
