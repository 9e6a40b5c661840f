"""The page that a person reads in the morning: one self-contained HTML file per run (Q1, Q2).

Made from the journal, the bound contract, the blast radius and the diff's text, all of them checked first; whatever an
agent may have written goes through `visible` and the template's escaping. No script, no resource from elsewhere.
"""

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inbounds.console import advice, diff, picture
from inbounds.console.plain import visible
from inbounds.console.sentences import money
from inbounds.console.terminal import event_line, label, ordered, summary_figures
from inbounds.contracts.errors import HostError
from inbounds.contracts.units import show_duration
from inbounds.journal import chain, manifest
from inbounds.journal.chain import ChainError, Record
from inbounds.journal.verify import FILE_BYTES_MAX, Verification, verify_run

DIFF_NAME, REPORT_NAME = "diff.patch", "report.html"
# A timeline longer than this is read with `inbounds logs`.
TIMELINE_MAX = 1_500
TEXT_CHARS_MAX = 6_000
ITEMS_MAX = 300


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the page is made of; `contract` and `blast` are {} where the file is missing or not the accepted one."""

    records: tuple[Record, ...]
    manifest: dict[str, Any]
    contract: dict[str, Any]
    blast: dict[str, Any]
    diff: diff.Diff | None
    verification: Verification


def render(run_dir: Path) -> None:
    """Write `report.html` (0600) into the run's directory, whole or not at all; HostError if it can't be written."""
    text = page(gather(run_dir)).encode()
    try:
        fd, name = tempfile.mkstemp(prefix=".report-", dir=run_dir)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(fd)
            os.replace(name, run_dir / REPORT_NAME)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise HostError(f"cannot write the report: {error.strerror}", where=str(run_dir)) from error


def gather(run_dir: Path) -> Evidence:
    """Read and check everything; a broken chain gives the records before the break, and says so."""
    verification = verify_run(run_dir)
    records: list[Record] = []
    try:
        for record in chain.linked(chain.records(run_dir / "journal.jsonl")):
            records.append(record)  # noqa: PERF402 - what stands before a break is shown
    except (ChainError, OSError):
        pass  # the verification, shown on top of the page, says what is wrong
    held = {check.name: check.ok for check in verification.checks}
    contract = _json(run_dir / "contract.json") if held.get("contract") else {}
    blast = _json(run_dir / "blast_radius.json") if held.get("blast radius") else {}
    return Evidence(tuple(records), manifest.derive(records), contract, blast, _diff(run_dir / DIFF_NAME), verification)


def page(evidence: Evidence) -> str:
    """The HTML text; deterministic for equal evidence."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup, escape

    def shown(value: object) -> object:
        return value if isinstance(value, Markup) else visible(str(value), limit=TEXT_CHARS_MAX)

    def block(value: object) -> Markup:
        return Markup(escape(visible(str(value), lines=True, limit=TEXT_CHARS_MAX)))  # noqa: S704 - escaped right here

    def code(value: object) -> Markup:
        return Markup(escape(visible(str(value), lines=True, limit=diff.LINE_CHARS_MAX)))  # noqa: S704 - escaped here

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "page"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(block=block, code=code, money=money, words=label, radius=ordered)
    environment.filters.update(span=_span, stamp=_stamp, limit=_limit, sentence=_sentence)
    return environment.get_template("report.html.j2").render(_context(evidence))


def _context(evidence: Evidence) -> dict[str, Any]:
    made, records = evidence.manifest, evidence.records
    skipped = max(0, len(records) - TIMELINE_MAX)
    half = TIMELINE_MAX // 2
    kept = [*records[:half], *records[-half:]] if skipped else list(records)
    judged: dict[str, dict[str, Any]] = {}
    for verdict in made["verdicts"]:
        judged[str(verdict["judge"])] = verdict  # the last word of each judge
    enforcement = made["enforcement"] if isinstance(made["enforcement"], dict) else {}
    states = ("enforced", "absent", "not observed")
    in_force = {state: sorted(k for k, v in enforcement.items() if str(v).startswith(state)) for state in states}
    other = sorted(k for k, v in enforcement.items() if not str(v).startswith(states))
    return {
        "m": made,
        "advice": advice.advise(made),
        "figures": summary_figures(made),
        "contract": evidence.contract,
        "blast": evidence.blast,
        "picture": picture.draw(made),
        "diff": evidence.diff,
        "files": made["files_written"][:ITEMS_MAX] if isinstance(made["files_written"], list) else None,
        "files_more": max(0, len(made["files_written"]) - ITEMS_MAX) if isinstance(made["files_written"], list) else 0,
        "judges": list(judged.values()),
        "findings": [{"judge": v["judge"], **f} for v in judged.values() for f in v["findings"] if isinstance(f, dict)],
        "enforcement": enforcement,
        "enforced": in_force["enforced"],
        "missing": [*in_force["absent"], *in_force["not observed"], *other],
        "timeline": [(record.seq, event_line(record)) for record in kept],
        "timeline_skipped": skipped,
        "timeline_half": half,
        "verification": evidence.verification,
        "fails": [check for check in evidence.verification.checks if not check.ok],
        "items_max": ITEMS_MAX,
    }


def _json(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        value = json.loads(file.read(FILE_BYTES_MAX))
    return value if isinstance(value, dict) else {}


def _diff(path: Path) -> diff.Diff | None:
    try:
        with path.open("rb") as file:
            return diff.parse(file.read(diff.DIFF_BYTES_MAX + 1))
    except FileNotFoundError:
        return None


def _limit(value: object, name: str) -> str:
    """A limit with its unit, read off its name."""
    if type(value) is not int:
        return str(value)
    if name.endswith("_ms"):
        return show_duration(value)
    if name.endswith("_micro_usd"):
        return money(value)
    if name.endswith("_bytes"):
        return f"{value >> 20} MiB"
    return f"{value:,}"


def _span(ms: object) -> str:
    return show_duration(ms) if type(ms) is int and ms >= 0 else str(ms)


def _stamp(text: object) -> str:
    """An ISO time without its fraction and letters, for people."""
    return str(text)[:16].replace("T", " ") + " UTC" if str(text)[:2].isdigit() else str(text)


def _sentence(text: object) -> str:
    words = str(text).strip()
    return words[:1].upper() + words[1:] + ("" if words.endswith((".", "!", "?")) else ".")
