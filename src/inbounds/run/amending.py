"""Amendments: a new version of a run's limits, signed by an operator; nothing else changes a limit mid-run (E8, M8).

Makes and reads statements; it neither asks a person nor applies anything.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inbounds.contracts import limits
from inbounds.contracts.bound import Contract
from inbounds.contracts.documents import LimitsText
from inbounds.contracts.errors import OperatorError
from inbounds.contracts.limits import RULES, Limits
from inbounds.run import authorize

AMENDED, REFUSED = "contract.amended", "amendment.refused"


def amended(now: Limits, said: LimitsText) -> Limits:
    """The limits with what was said; OperatorError for what is no limit, above the ceiling, or changes nothing."""
    values: dict[str, int] = {}
    for rule in RULES:
        text = getattr(said, rule.key)
        if text is None:
            continue
        try:
            value = rule.parse(text)
        except ValueError as error:
            raise OperatorError(f"{rule.key}: {error}", expected=f"such as {rule.written(rule.default)}") from None
        if value > rule.ceiling:
            raise OperatorError(
                f"{rule.key}: {text} is above what this program allows",
                expected=f"at most {rule.written(rule.ceiling)} ({rule.why})",
            )
        values[rule.field] = value
    changed: Limits = replace(now, **values)
    if changed == now:
        raise OperatorError("no limit would change", expected="at least one new value", fix="inbounds amend --help")
    return changed


def statement(contract: Contract, version: int, new: Limits, note: str) -> dict[str, Any]:
    """What is signed: the next version's limits, all of them, of this very run and contract."""
    return {
        "what": "amend",
        "run_id": contract.run_id,
        "contract_sha256": contract.sha256(),
        "version": version,
        "limits": new.as_json(),
        "note": note,
    }


def read(asked: Mapping[str, Any], contract: Contract, version: int) -> tuple[str, dict[str, Any]]:
    """A request as a record: contract.amended where an operator signed the next version, else amendment.refused."""
    said, armored = asked.get("statement"), asked.get("signature")
    if not isinstance(said, dict) or not isinstance(armored, str):
        return REFUSED, {"why": "the request is no signed statement"}
    try:
        new = limits.from_json(said.get("limits", {}))
        expected = statement(contract, version + 1, new, str(said.get("note", "")))
    except TypeError as error:
        return REFUSED, {"why": str(error)}
    differ = sorted(name for name in {*said, *expected} if said.get(name) != expected.get(name))
    if differ:
        return REFUSED, {"why": f"not this run's next version: {', '.join(differ)}"[:500]}
    above = [rule.key for rule in RULES if not 0 < getattr(new, rule.field) <= rule.ceiling]
    if above:
        return REFUSED, {"why": f"outside what this program allows: {', '.join(above)}"}
    name = authorize.signed_by(said, armored, contract.operator_keys, authorize.APPROVAL_NAMESPACE)
    if not name:
        return REFUSED, {"why": "no operator of this run's policy signed it"}
    return AMENDED, {
        "version": version + 1,
        "operator": name,
        "limits": new.as_json(),
        "statement": said,
        "signature": armored,
    }
