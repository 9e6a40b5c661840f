"""The incident record: one file for programs, one for people, one signature (O4); `incident.schema.json` is its shape.

Made from what the runs' journals, contracts and ledger say. Knows how a record looks and what follows from it; stops
nothing.
"""

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inbounds.console.plain import visible
from inbounds.console.sentences import sentence
from inbounds.contracts.canonical import canonical
from inbounds.contracts.errors import HostError
from inbounds.contracts.units import show_usd
from inbounds.journal.chain import Record
from inbounds.journal.signing import Signer
from inbounds.run.incident import RECORD

FORMAT = "inbounds-incident/1"
WORDS, SIGNATURE = "incident.md", "incident.sig"
TIMELINE_MAX, TIMELINE_OF_RUN = 1_000, 100  # what a person reads on the day; the journals have the rest
LANDED_HOURS = 24
DAY_MS = LANDED_HOURS * 3_600_000
LEAKED = "STOP_SECRET_EXPOSURE"
TOLD = frozenset(
    {
        "run.accepted", "iteration.started", "denial", "model.refused", "commit.made", "contract.amended",
        "part.failed", "promotion.decided", "escalation.raised", "run.recovered", "run.reauthorized",
        "operator.stopped", "stop.step", "stop.decided", "run.finished", "journal.recovered",
    }
)  # fmt: skip


def timeline(runs: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    """Records of all runs as one list of sentences, oldest first; each run's latest, and how many are left out."""
    kept: list[tuple[str, Record]] = []
    count = 0
    for run_id, records in runs.items():
        told = [record for record in records if record.kind in TOLD]
        count += len(told)
        kept += [(run_id, record) for record in told[-TIMELINE_OF_RUN:]]
    kept.sort(key=lambda item: (item[1].at_ms, item[0], item[1].seq))
    entries = [
        {"at_ms": r.at_ms, "run_id": run_id, "seq": r.seq, "kind": r.kind, "text": sentence(r.kind, r.data)[1]}
        for run_id, r in kept[-TIMELINE_MAX:]
    ]
    return {"entries": entries, "left_out": count - len(entries)}


def scopes(runs: Sequence[Mapping[str, Any]], landed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the runs could touch: threads, branches, refs that moved lately, and keys that may be in wrong hands."""
    keys: dict[str, dict[str, Any]] = {}
    for run in runs:
        for provider in run["providers"]:
            key = keys.setdefault(provider["name"], {**provider, "rotate": False, "why": "", "runs": []})
            key["runs"].append(run["run_id"])
            if why := _exposed(run):
                key.update(rotate=True, why=f"{run['run_id']}: {why}")
    return {
        "threads": sorted({f"{run['repository']}:{run['thread']}" for run in runs if run["thread"]}),
        "branches": sorted({f"{run['repository']}:{run['branch']}" for run in runs if run["branch"]}),
        "landed": list(landed),
        "keys": [keys[name] for name in sorted(keys)],
    }


def _exposed(run: Mapping[str, Any]) -> str:
    if run["stop"] and run["stop"]["code"] == LEAKED:
        return "it stopped because a secret was exposed"
    return f"it opened a decoy: {run['decoys'][0]}" if run["decoys"] else ""


def next_steps(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What people do now, in order, with what they type."""
    runs = [run for run in record["runs"] if run["stop"]]
    ids = [run["run_id"] for run in runs]
    steps: list[dict[str, Any]] = []

    def step(what: str, why: str, commands: Sequence[str]) -> None:
        if commands:
            steps.append({"what": what, "why": why, "commands": list(commands)})

    silent = [run for run in record["runs"] if not run["answered"]]
    step("End by hand what did not answer", "its jails were killed, its supervisor still lives",
         [f"kill -KILL {run['pid']}; inbounds stop {run['run_id']}" for run in silent if run["pid"]])  # fmt: skip
    step("Rotate keys", "a run that used them may have exposed a secret",
         [f"inbounds key remove {shlex.quote(key['name'])}; inbounds key add {shlex.quote(key['name'])}"
          for key in record["scopes"]["keys"] if key["rotate"]])  # fmt: skip
    step("Look", "what each run did, from its evidence", [f"inbounds review {one}" for one in ids])
    step("Check", "whether the evidence holds", [f"inbounds verify {one}" for one in ids])
    step("Hand on", "a bundle that verifies on another machine", [f"inbounds export {one}" for one in ids])
    step("Undo what landed", f"it moved a protected branch within {LANDED_HOURS} hours",
         sorted({f"inbounds rollback {item['run_id']}" for item in record["scopes"]["landed"]}))  # fmt: skip
    step("Go on", "each signature is bound to the stop event; policy says how many it takes and whose",
         [f"inbounds resume {run['run_id']}  # {_approvals(run)}" for run in runs
          if run["stop"]["code"] != "DONE"])  # fmt: skip
    step("Or throw away", "unlanded work and its quarantine", [f"inbounds discard {one}" for one in ids])
    return steps


def _approvals(run: Mapping[str, Any]) -> str:
    wanted, by = run["approvals"]["wanted"], ", ".join(run["approvals"]["by"])
    return f"{wanted} of: {visible(by)}"


def write(place: Path, record: Mapping[str, Any], signer: Signer) -> str:
    """Write or replace the record, its signature and its words, each whole; the record's SHA-256 (hex)."""
    import hashlib

    content = canonical(record) + b"\n"
    digest = hashlib.sha256(content).hexdigest()
    note = signer.sign(statement(str(record["incident"]), digest))
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        _put(place / SIGNATURE, note.encode())
        _put(place / WORDS, words(record).encode())
        _put(place / RECORD, content)
        directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise HostError(
            f"the incident record cannot be written: {error.strerror}",
            where=str(place),
            expected="room for some files below the state directory",
            fix=f"df -h {shlex.quote(str(place.parent))}",
        ) from error
    return digest


def statement(incident: str, digest: str) -> str:
    """The text that is signed: which incident, and the hash of incident.json."""
    return f"inbounds.invalid/incident/{incident}\n{digest}\n"


def _put(path: Path, content: bytes) -> None:
    new = path.with_name(f".{path.name}.new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)
    new.replace(path)


def read(place: Path) -> dict[str, Any]:
    """A record as it stands; HostError where there is none."""
    try:
        found = json.loads((place / RECORD).read_bytes())
    except (OSError, ValueError) as error:
        raise HostError(f"no incident record: {error}", where=str(place)) from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise HostError("this is no incident record", where=str(place), expected=FORMAT)
    return found


def words(record: Mapping[str, Any]) -> str:
    """The record for people, as Markdown; whatever comes from outside is one printable line each."""
    times = record["times"]
    lines = [
        f"# Incident {record['incident']}",
        "",
        (
            f"{_line(record['why'])} — declared by {_line(record['who'])} on {_line(record['host'])} at "
            f"{_clock(times['asked_at_ms'])} UTC; status: {record['status']}."
        ),
        "",
        (
            f"Frozen after {_after(times, 'frozen_at_ms')}, journals sealed after {_after(times, 'sealed_at_ms')}, "
            f"first written down after {_after(times, 'recorded_at_ms')}, over after {_after(times, 'ended_at_ms')}."
        ),
        "",
        "## Runs",
        "",
    ]
    for run in record["runs"]:
        lines += _run(run)
    lines += [f"- another user's: uid {one['uid']}, process {one['pid']}, {_line(one['run_dir'])}: {one['outcome']}"
              for one in record["others"]]  # fmt: skip
    lines += [f"- **problem**: {_line(problem)}" for problem in record["problems"]]
    lines += ["", "## Affected", ""]
    reached = record["scopes"]
    lines += [f"- thread {_line(item)}" for item in reached["threads"]]
    lines += [f"- branch {_line(item)}" for item in reached["branches"]]
    lines += [f"- {_line(i['ref'])} moved to {i['commit'][:12]} by {i['run_id']} at {_clock(i['at_ms'])}"
              for i in reached["landed"]]  # fmt: skip
    lines += [f"- key {_line(key['name'])} ({_line(key['url'])})"
              + (f": **rotate it**, {_line(key['why'])}" if key["rotate"] else "")
              for key in reached["keys"]]  # fmt: skip
    lines += ["", "## Next", ""]
    for number, step in enumerate(record["next_steps"], 1):
        lines += [f"{number}. {step['what']}: {step['why']}.", "", *(f"       {c}" for c in step["commands"]), ""]
    lines += ["## Timeline", ""]
    if record["timeline"]["left_out"]:
        lines += [f"{record['timeline']['left_out']} earlier records are in the journals alone.", ""]
    lines += [f"- {_clock(e['at_ms'])} {e['run_id']} {_line(e['text'])}" for e in record["timeline"]["entries"]]
    return "\n".join(lines) + "\n"


def _run(run: Mapping[str, Any]) -> list[str]:
    stop = run["stop"]
    ended = f"{stop['code']} ({_line(stop['why'])})" if stop else f"no stop on record: {_line(run['problem'])}"
    spent = "unknown" if run["spent_micro_usd"] is None else f"${show_usd(run['spent_micro_usd'])}"
    held = f", ${show_usd(run['reserved_micro_usd'])} reserved" if run["reserved_micro_usd"] else ""
    return [
        (
            f"- **{run['run_id']}** {_line(run['repository'])}:{_line(run['thread'])}, {_line(run['agent']['name'])} "
            f"with {_line(run['model'])}, iteration {run['iteration']}: {ended}"
        ),
        (
            f"  - spent {spent}{held}; hosts {_line(', '.join(run['hosts_seen']) or 'none seen')}; "
            f"frozen: {run['frozen']['how']}"
        ),
        f"  - {_line(run['quarantine'] or 'no quarantine')}; evidence {run['evidence_commit'][:12] or 'none'}",
    ]


def _line(text: object) -> str:
    """One printable line in which nothing is Markdown."""
    return visible(str(text), limit=400).replace("`", "'").replace("<", "(").replace("[", "(").replace("*", "+")


def _clock(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _after(times: Mapping[str, int | None], name: str) -> str:
    at, since = times[name], times["asked_at_ms"]
    return "—" if at is None or since is None else f"{at - since} ms"
