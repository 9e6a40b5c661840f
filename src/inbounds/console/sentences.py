"""A journal record in plain words: one category and one sentence for each kind that the product writes.

Made from the record alone, whose values may be anything: what has another type than expected is shown as it is or left
out, never obeyed and never an error. Knows no terminal and no order of records.
"""

from collections.abc import Callable
from typing import Any

from inbounds.console.plain import visible
from inbounds.contracts.units import show_duration, show_usd

Data = dict[str, Any]

# What a reader asks of a run (H15): each record answers one of these. `said` is the agent's own word, no evidence.
ASKED, SEEN, WRITTEN, EXECUTED = "asked", "seen", "written", "executed"
REFUSED, SPENT, DECIDED, EVIDENCE, SAID = "refused", "spent", "decided", "evidence", "said"
WORDS = (ASKED, SEEN, WRITTEN, EXECUTED, REFUSED, SPENT, DECIDED, EVIDENCE, SAID)

TEXT_CHARS_MAX = 400  # of a sentence; the record itself (--json) has all of it
ITEM_CHARS_MAX = 200  # of one value within a sentence, so that no single one hides the rest
ITEMS_SHOWN_MAX = 3  # paths or reasons named in a sentence; more are counted
ID_CHARS = 12  # of a tree's or commit's id, as git shortens them


def sentence(kind: str, data: Data) -> tuple[str, str]:
    """(category, sentence) of a record: one printable line, cut after TEXT_CHARS_MAX characters of what it says."""
    word, say = SENTENCES.get(kind, (EVIDENCE, _unknown(kind)))
    return word, visible(say(data), limit=TEXT_CHARS_MAX)


def money(amount: object) -> str:
    """Micro-dollars as dollars with at least cents; whatever is no integer as it is."""
    return f"${show_usd(amount)}" if type(amount) is int else _text(amount)


def count(n: int, one: str, more: str = "") -> str:
    """A number with its noun: "1 file", "1,200 files"."""
    return f"{n:,} {one if n == 1 else more or one + 's'}"


def whole(data: Data, key: str) -> int:
    """The integer under `key`, 0 where there is none."""
    value = data.get(key)
    return value if type(value) is int else 0


def _text(value: object) -> str:
    if isinstance(value, (dict, list, tuple)):
        return f"{type(value).__name__} of {len(value)}"
    text = "?" if value is None else str(value)
    return text if len(text) <= ITEM_CHARS_MAX else text[:ITEM_CHARS_MAX] + "…"


def _get(data: Data, key: str, default: str = "?") -> str:
    value = data.get(key)
    return default if value is None or value == "" else _text(value)


def _after(data: Data, key: str, before: str = ": ", behind: str = "") -> str:
    """The value with what stands around it, or nothing at all."""
    value = _get(data, key, "")
    return f"{before}{value}{behind}" if value else ""


def _id(data: Data, key: str) -> str:
    return _get(data, key)[:ID_CHARS]


def _items(data: Data, key: str) -> list[Any]:
    value = data.get(key)
    return list(value) if isinstance(value, (list, tuple)) else []


def _some(items: list[str]) -> str:
    shown = ", ".join(items[:ITEMS_SHOWN_MAX])
    return shown + (f" and {len(items) - ITEMS_SHOWN_MAX} more" if len(items) > ITEMS_SHOWN_MAX else "")


def _span(data: Data, key: str = "ms") -> str:
    value = data.get(key)
    return show_duration(value) if type(value) is int and value >= 0 else "an unknown time"


def _unknown(kind: str) -> Callable[[Data], str]:
    def say(data: Data) -> str:
        pairs = [f"{_text(k)}={_text(v)}" for k, v in data.items() if not isinstance(v, (dict, list))]
        return " ".join([kind, *pairs])

    return say


# -- asked


def _accepted(data: Data) -> str:
    agent = data.get("agent")
    name = agent if isinstance(agent, dict) else {}
    who = " ".join(part for part in (_get(name, "name"), _get(name, "version", "")) if part)
    return (
        f"{_get(data, 'operator')} asks {who}{_after(data, 'model', ' with ')} for {_get(data, 'plan_id')} "
        f"in thread {_get(data, 'thread')}, for {money(data.get('budget_micro_usd'))} at most"
    )


def _iteration(data: Data) -> str:
    prompt = _after(data, "prompt_sha256", ", prompt ")[: len(", prompt ") + ID_CHARS]
    where = _after(data, "prompt_file", " in logs/") if prompt else ", its prompt is not in the journal"
    return f"iteration {_get(data, 'n')}: the agent is told to go{prompt}{where}"


def _amended(data: Data) -> str:
    return f"{_get(data, 'operator')} amends the contract: version {_get(data, 'version')}{_after(data, 'why')}"


def _decision(data: Data) -> str:
    done = {"approve": "approves the result", "resume": "lets the run go on"}
    statement = data.get("statement")
    note = _after(statement, "note") if isinstance(statement, dict) else ""
    kind = _get(data, "kind")
    return f"{_get(data, 'operator')} {done.get(kind, kind)}{note}"


def _reauthorized(data: Data) -> str:
    who = _some([_text(name) for name in _items(data, "operators")]) or _get(data, "operator")
    return f"{who} let the run go on after the stop {_get(data, 'stop_hash')[:ID_CHARS]}{_after(data, 'note')}"


# -- seen


def _preflight(data: Data) -> str:
    if data.get("ok") is not True:
        return f"the run cannot start: {_reasons(data)}"
    baseline = data.get("baseline")
    tests = ""
    if isinstance(baseline, dict):
        tests = (
            f"; tests before the run: {_number(baseline.get('failing'))} fail, {_number(baseline.get('passing'))} pass"
        )
    return f"host and baseline are as they must be, enforcement level {_get(data, 'level')}{tests}"


def _number(value: object) -> str:
    return f"{len(value):,}" if isinstance(value, list) else _text(value)


def _reasons(data: Data) -> str:
    return "; ".join(_text(reason) for reason in _items(data, "reasons")[:ITEMS_SHOWN_MAX]) or "no reason is given"


def _reopened(data: Data) -> str:
    return "everything stands again: the run goes on" if data.get("ok") is True else f"no way on: {_reasons(data)}"


def _external(data: Data) -> str:
    sizes = f"{whole(data, 'bytes_out'):,} bytes out, {whole(data, 'bytes_in'):,} in"
    return f"{_get(data, 'purpose', 'a call')} at {_get(data, 'host')}: {sizes}"


# -- written


def _snapshot(data: Data) -> str:
    paths = [f"{_get(c, 'status')} {_get(c, 'path')}" for c in _items(data, "changes") if isinstance(c, dict)]
    changed = data["changed"] if type(data.get("changed")) is int else len(paths)
    lines = ""
    if type(data.get("lines_added")) is int and type(data.get("lines_removed")) is int:
        lines = f" (+{data['lines_added']:,} -{data['lines_removed']:,} lines)"
    named = f": {_some(paths)}" if paths else ""
    whole_tree = "" if data.get("complete") is not False else f"; NOT complete{_after(data, 'why')}"
    head = count(changed, "file differs", "files differ") if changed else "nothing differs"
    return f"tree {_id(data, 'tree')}: {head} from the base{lines}{named}{whole_tree}"


def _kept(data: Data) -> str:
    return f"tree {_id(data, 'tree')} is kept, as of now in iteration {_get(data, 'n')}{_after(data, 'why')}"


def _commit(data: Data) -> str:
    return f"commit {_id(data, 'commit')} on {_get(data, 'branch')}, tree {_id(data, 'tree')}"


# -- executed


def _started(data: Data) -> str:
    found = data.get("enforcement")
    states = [str(state) for state in found.values()] if isinstance(found, dict) else []
    lacking = sum(not state.startswith("enforced") for state in states)
    guard = f" ({len(states) - lacking} of {len(states)} protections in force)" if lacking else ""
    command = " ".join(_text(part) for part in _items(data, "command")) or _get(data, "argv0", "")
    return f"{_get(data, 'role')} starts in a jail{guard}" + (f": {command}" if command else "")


def _exited(data: Data) -> str:
    ends = {"exited": f"exited with {_get(data, 'exit_code')}", "deadline": "was ended at its deadline"}
    reason = _get(data, "reason")
    signal = f" (signal {data['signal']})" if type(data.get("signal")) is int and data["signal"] else ""
    return f"{_get(data, 'role')} {ends.get(reason, reason)}{signal} after {_span(data)}"


def _tool(data: Data) -> str:
    return f"the agent calls {_get(data, 'tool')}: {_get(data, 'outcome')} after {_span(data)}"


def _program(name: str) -> Callable[[Data], str]:
    def say(data: Data) -> str:
        seal = data.get("seal")
        sealed = f", {count(len(seal), 'seal')}" if isinstance(seal, dict) and seal else ""
        return f"{name} runs (process {_get(data, 'pid')}{sealed})"

    return say


# -- refused and spent


def _denied(data: Data) -> str:
    kind, detail = _get(data, "kind", "") or _get(data, "what"), _get(data, "detail")
    said = {"name": f"the name {detail} was asked for", "decoy": f"a decoy: {detail}", "tool": f"the tool {detail}"}
    return ("SENSITIVE: " if data.get("sensitive") is True else "") + said.get(kind, f"{kind}: {detail}")


def _model_refused(data: Data) -> str:
    cap = _after(data, "cap", " (cap: ", ")")
    return f"model request: {_get(data, 'reason')}{_after(data, 'model', ', ')}{cap}{_after(data, 'detail')}"


def _usage(data: Data) -> str:
    tokens = f"{whole(data, 'input_tokens'):,} tokens in, {whole(data, 'output_tokens'):,} out"
    why = "" if data.get("state") in (None, "settled") else f" [{_get(data, 'state')}{_after(data, 'why')}]"
    spent = money(whole(data, "spent_micro_usd"))
    return f"{_get(data, 'model')}: {tokens}, {money(whole(data, 'cost_micro_usd'))} (run: {spent}){why}"


# -- decided


def _verdict(data: Data) -> str:
    findings = [f"{_get(f, 'rule')} {_get(f, 'path', '')}".strip() for f in _items(data, "findings") if _is(f)]
    summary = _get(data, "summary")
    named = f"; finds {_some(findings)}" if findings and findings[0] not in summary else ""
    return f"judge {_get(data, 'judge')}: {_get(data, 'outcome')}, {summary}{named}"


def _is(value: object) -> bool:
    return isinstance(value, dict)


def _iterated(data: Data) -> str:
    moved = "progress" if data.get("progress") is True else "no progress"
    tests = f"failing tests {_get(data, 'failing_before')} → {_get(data, 'failing_after')}"
    return f"iteration {_get(data, 'n')}: {tests}, {moved}"


def _stop(data: Data) -> str:
    return f"the run stops, {_get(data, 'code')}: {_get(data, 'why')} (workspace: {_get(data, 'disposal')})"


def _slowed(data: Data) -> str:
    if whole(data, "interval_ms") == 0:
        return "the run is slowed down no longer: its limits were raised"
    pace = f"one model request in {_span(data, 'interval_ms')}" if whole(data, "interval_ms") else ""
    share = f"{whole(data, 'cpu_percent')} % of a processor" if whole(data, "cpu_percent") else ""
    return f"the run is slowed down: {', '.join(part for part in (pace, share) if part) or 'as policy says'}"


def _promotion(data: Data) -> str:
    reasons = f" ({_reasons(data)})" if _items(data, "reasons") else ""
    return f"the gate to {_get(data, 'target')}: {_get(data, 'outcome')}{_after(data, 'note')}{reasons}"


# -- evidence

_STEPS = {
    "lease_closed": "doors closed",
    "frozen": "all processes stopped",
    "persisted": "snapshot, diff and logs kept",
    "killed": "nothing is alive",
    "kept": "result kept",
    "reverted": "workspace set back",
    "quarantined": "workspace quarantined",
}


def _step(data: Data) -> str:
    step = _get(data, "step")
    words = _STEPS.get(step, step)
    return (
        f"stop: {words}{_after(data, 'detail')}"
        if data.get("ok") is True
        else f"stop: {step} FAILED" + _after(data, "detail")
    )


def _recovered(data: Data) -> str:
    torn = data.get("torn")
    cut = (
        f"; an unfinished last line of {_get(torn, 'bytes')} bytes is set aside"
        if isinstance(torn, dict) and torn
        else ""
    )
    return f"another writer takes the journal over from process {_get(data, 'holder_pid')}, which died{cut}"


def _checkpoint(data: Data) -> str:
    return f"the first {whole(data, 'size'):,} records are signed, root {_get(data, 'root')[:ID_CHARS]}"


def _asked_to_stop(data: Data) -> str:
    incident = f", incident {_get(data, 'incident_id', '(unnamed)')}" if data.get("incident") is True else ""
    return f"{_get(data, 'who')} asks for a stop{incident}{_after(data, 'why')}"


def _incident(data: Data) -> str:
    return f"incident {_get(data, 'incident')} is on record, sha256 {_get(data, 'sha256')[:ID_CHARS]}"


def _said(data: Data) -> str:
    return f"(the agent's own words, untrusted) {_get(data, 'text', 'nothing')}"


def _executed(data: Data) -> str:
    named = [_get(item, "path") for item in _items(data, "files") if isinstance(item, dict)]
    gap = "" if data.get("complete") is True else f"; not all of it: {_get(data, 'why')}"
    by = "the agent's iteration" if data.get("during") == "agent" else "the tests"
    return f"{by} executed, as the OS says: {_some(named) if named else 'nothing'}{gap}"


def _took_over(data: Data) -> str:
    return f"the supervisor had died; {money(data.get('spent_micro_usd'))} were spent by then, as the ledger says"


def _failed_part(data: Data) -> str:
    return "over a ceiling" if data.get("part") == "gpu" else f"{_get(data, 'part')} failed"


SENTENCES: dict[str, tuple[str, Callable[[Data], str]]] = {
    "run.accepted": (ASKED, _accepted),
    "iteration.started": (ASKED, _iteration),
    "operator.stopped": (ASKED, _asked_to_stop),
    "preflight.finished": (SEEN, _preflight),
    "run.reopened": (SEEN, _reopened),
    "external.call": (SEEN, _external),
    "files.read": (SEEN, lambda d: f"{count(len(_items(d, 'files')), 'file was', 'files were')} read, as the OS says"),
    "files.written": (
        SEEN,
        lambda d: (
            f"{count(len(_items(d, 'files')), 'file was', 'files were')} written, made or removed, as the OS says"
        ),
    ),
    "files.executed": (EXECUTED, _executed),
    "escalation.raised": (ASKED, lambda d: f"the run asks for a person{_after(d, 'why')}"),
    "volume.polled": (
        SEEN,
        lambda d: f"the workspace is over its ceiling: {whole(d, 'bytes') >> 20:,} MiB, {whole(d, 'inodes'):,} inodes",
    ),
    "part.failed": (SEEN, lambda d: f"{_failed_part(d)}{_after(d, 'detail')}"),
    "effect.failed": (SEEN, lambda d: f"{_get(d, 'effect')} could not be carried out{_after(d, 'detail')}"),
    "clock.tick": (SEEN, lambda _: "the clock: a limit in time has passed"),
    "snapshot.taken": (WRITTEN, _snapshot),
    "snapshot.kept": (WRITTEN, _kept),
    "snapshot.failed": (EVIDENCE, lambda d: f"the workspace could not be kept this time: {_get(d, 'why')}"),
    "commit.made": (WRITTEN, _commit),
    "jail.started": (EXECUTED, _started),
    "jail.exited": (EXECUTED, _exited),
    "tool.called": (EXECUTED, _tool),
    "gateway.started": (EXECUTED, _program("the gateway")),
    "broker.started": (EXECUTED, _program("the tool broker")),
    "agent.ended": (EXECUTED, lambda d: f"how the agent's jail ended: {_get(d, 'detail')}"),
    "denial": (REFUSED, _denied),
    "model.refused": (REFUSED, _model_refused),
    "amendment.refused": (REFUSED, lambda d: f"an amendment of the contract{_after(d, 'why')}"),
    "model.usage": (SPENT, _usage),
    "verdict": (DECIDED, _verdict),
    "iteration.finished": (DECIDED, _iterated),
    "stop.decided": (DECIDED, _stop),
    "promotion.decided": (DECIDED, _promotion),
    "operator.decision": (DECIDED, _decision),
    "run.reauthorized": (DECIDED, _reauthorized),
    "contract.amended": (DECIDED, _amended),
    "run.slowed": (DECIDED, _slowed),
    "run.finished": (DECIDED, lambda d: f"the run is over: {_get(d, 'code')}, exit code {_get(d, 'exit')}"),
    "run.recovered": (EVIDENCE, _took_over),
    "stop.step": (EVIDENCE, _step),
    "notice.sent": (
        EVIDENCE,
        lambda d: f"notice by {_get(d, 'channel')}: {'sent' if d.get('ok') is True else _get(d, 'detail')}",
    ),
    "work.discarded": (EVIDENCE, lambda d: f"the work was discarded, {whole(d, 'bytes') >> 20:,} MiB freed"),
    "incident.recorded": (EVIDENCE, _incident),
    "journal.opened": (EVIDENCE, lambda d: f"the journal begins, format {_get(d, 'version')}"),
    "journal.recovered": (EVIDENCE, _recovered),
    "journal.migrated": (
        EVIDENCE,
        lambda d: f"the journal goes on in format {_get(d, 'to')}, before {_get(d, 'from')}",
    ),
    "journal.clock_set_back": (EVIDENCE, lambda d: f"the host's clock was set back by {_span(d)}"),
    "journal.checkpoint": (EVIDENCE, _checkpoint),
    "drill.started": (ASKED, lambda d: f"a drill of {_get(d, 'mode')} jails on this host"),
    "drill.case": (SEEN, lambda d: f"{_get(d, 'id')}: {_get(d, 'outcome')}{_after(d, 'observed')}"),
    "drill.finished": (DECIDED, lambda d: f"the drill: {whole(d, 'counted')} counted, {whole(d, 'escaped')} escaped"),
    "agent.said": (SAID, _said),
}
