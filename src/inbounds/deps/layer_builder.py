"""Builds a dependency layer inside its jail; copied into /job, never imported by the supervisor.

Started as `python -I layer_builder.py SPEC.json`. Runs the steps of the specification without a shell and writes what
was resolved. Package build scripts run in here: nothing it says is trusted beyond the layer it makes.
"""

import glob
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from typing import Any

MESSAGE_CHARS_MAX = 4000  # the end of a failed step's output: pip and npm say why in their last lines


def resolved(reports: list[str], layer: str) -> list[dict[str, str]]:
    """Name, version and hash of everything that pip and npm say they installed."""
    found: list[dict[str, str]] = []
    for path in reports:
        if not os.path.exists(path):
            continue
        with open(path, encoding="utf-8") as stream:
            report = json.load(stream)
        for item in report.get("install", []):
            hashes = item.get("download_info", {}).get("archive_info", {}).get("hashes", {})
            meta = item["metadata"]
            digest = "sha256:" + hashes["sha256"] if "sha256" in hashes else ""
            found.append({"kind": "pip", "name": meta["name"], "version": meta["version"], "hash": digest})
    for path in glob.glob(os.path.join(layer, "node", "node_modules", ".package-lock.json")):
        with open(path, encoding="utf-8") as stream:
            lock = json.load(stream)
        for name, entry in sorted(lock.get("packages", {}).items()):
            version, digest = str(entry.get("version", "")), str(entry.get("integrity", ""))
            found.append({"kind": "npm", "name": name.split("node_modules/")[-1], "version": version, "hash": digest})
    return found


def run(step: dict[str, Any]) -> str:
    """Run one step; "" if it succeeded or was not needed, else why it failed."""
    probe = step.get("unless")
    if probe and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
        return ""
    os.makedirs(step["cwd"], exist_ok=True)
    output = open(step["stdout"], "wb") if step.get("stdout") else subprocess.PIPE  # noqa: SIM115 - may be a pipe
    try:
        done = subprocess.run(step["argv"], cwd=step["cwd"], stdout=output, stderr=subprocess.PIPE, check=False)
    except OSError as error:
        return f"{step['argv'][0]}: {error.strerror}"
    if done.returncode == 0:
        return ""
    said = ((done.stdout or b"") + done.stderr).decode("utf-8", "replace")[-MESSAGE_CHARS_MAX:]
    return f"{step['name']} ended with {done.returncode}: {said}"


def main(spec_path: str) -> int:
    """Build; 0 if the layer is complete. The answer is written in either case."""
    with open(spec_path, encoding="utf-8") as stream:
        spec = json.load(stream)
    answer: dict[str, Any] = {"ok": False, "problem": "", "fix": "", "resolved": []}
    if importlib.util.find_spec("ensurepip") is None:
        answer["problem"] = "this Python has no ensurepip, so that no virtual environment can be made"
        answer["fix"] = f"apt install python3.{sys.version_info.minor}-venv"
    for program, line in spec["needs"].items():
        if shutil.which(program) is None:
            answer["problem"], answer["fix"] = f"{program} is not installed", line
    for step in [] if answer["problem"] else spec["steps"]:
        answer["problem"] = run(step)
        if answer["problem"]:
            break
    else:
        if not answer["problem"]:
            answer["ok"] = True
            answer["resolved"] = resolved(spec["reports"], spec["layer"])
            with open(os.path.join(spec["layer"], "inbounds-lock.json"), "w", encoding="utf-8") as stream:
                json.dump({"python": sys.version.split()[0], "resolved": answer["resolved"]}, stream, indent=1)
    with open(spec["out"], "w", encoding="utf-8") as stream:
        json.dump(answer, stream)
    return 0 if answer["ok"] else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
