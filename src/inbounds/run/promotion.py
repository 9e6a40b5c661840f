"""Asking the promoter: one request on its stdin, one answer on its stdout, in a process of its own.

The promoter alone moves protected refs; this side only gathers the evidence that it wants.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from inbounds.contracts.errors import HostError

TIMEOUT_S = 120.0  # a merge of two trees and a few refs
ANSWER_BYTES_MAX = 1 << 20


def ask(request: Mapping[str, Any]) -> dict[str, Any]:
    """The promoter's answer {"outcome", "target", "commit", "old", "reasons"}; HostError if it gives none."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-m", "inbounds.promote"],
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
            cwd="/",
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"the promoter gave no answer: {error}", expected="an answer within two minutes") from error
    try:
        answer = json.loads(done.stdout[:ANSWER_BYTES_MAX])
        assert isinstance(answer, dict)
        assert isinstance(answer["outcome"], str)
    except (ValueError, KeyError, AssertionError) as error:
        said = done.stderr.decode("utf-8", "replace").strip()[-500:]
        raise HostError(f"the promoter's answer cannot be read: {said or done.returncode}") from error
    return answer
