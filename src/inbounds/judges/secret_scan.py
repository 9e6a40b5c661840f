"""Runs the secret scanner inside the reviewer's jail; copied into /job, never imported by the supervisor.

Started as `python -I secret_scan.py SPEC.json`. Reads texts, writes which rule matched where and a hash of the match:
the secret itself leaves the jail in no output. Texts arrive with the scanner's own off-switches already defused.
"""

import hashlib
import json
import sys
from typing import Any


def main(spec_path: str) -> int:
    """Scan every item of the specification; 0 when all were scanned."""
    with open(spec_path, encoding="utf-8") as stream:
        spec = json.load(stream)
    sys.path[:0] = spec["sys_path"]
    import betterleaks

    found: list[dict[str, Any]] = []
    total = 0
    for index, text in enumerate(spec["items"]):
        total += len(text)
        for hit in betterleaks.scan_string(text):
            digest = hashlib.sha256(hit.secret.encode()).hexdigest()
            line = hit.location.start_line
            found.append({"item": index, "rule": hit.rule_id, "line": line, "how": hit.confidence, "sha256": digest})
    version = f"{betterleaks.__version__} ({betterleaks.__upstream_version__})"
    answer = {"version": version, "items": len(spec["items"]), "chars": total, "found": found}
    with open(spec["out"], "x", encoding="utf-8") as stream:
        json.dump(answer, stream)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
