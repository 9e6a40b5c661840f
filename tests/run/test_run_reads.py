"""What an agent opened of its workspace stands in journal and manifest, as the kernel saw it, whatever the agent says."""

from typing import Any

import pytest
from runrig import Rig, script, write

from inbounds.journal.verify import verify_run

READ = "billing/tax.py"


def read(path: str) -> dict[str, Any]:
    return {"calls": [{"name": "read", "arguments": {"path": path}}]}


@pytest.mark.req("H5")
def test_files_that_the_agent_opened_are_in_the_manifest_and_no_others(rig: Rig) -> None:
    inside = READ.removeprefix("billing/")
    ran = rig.run(script(read(inside), write("notes.txt", "x\n"), {"text": "I have read nothing."}))
    first = ran.data("files.read")[0]
    assert (first["n"], first["complete"], first["why"], first["more"]) == (1, True, "", 0)
    assert first["watched"] > len(first["files"])
    assert {"path": READ} in first["files"], first
    listed = {item["path"] for item in ran.manifest["files_read"]}
    assert READ in listed
    files = {p.relative_to(rig.stage.repository).as_posix() for p in rig.stage.thread.rglob("*") if p.is_file()}
    assert files - listed, "the control: what was not opened is not listed"
    assert "billing/notes.txt" not in listed  # its own
    assert verify_run(ran.run_dir).ok
