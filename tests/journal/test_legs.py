"""Legs and people: a stopped run goes on only by what people signed, bound to that stop; each forgery has its name."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import evidence
import pytest
from evidence import DANA, STRANGER
from test_tamper import DOCS, kinds, second

from inbounds.contracts.canonical import canonical
from inbounds.journal import armour, people, sequence, sshsig
from inbounds.journal.chain import Record
from inbounds.journal.checks import State
from inbounds.journal.verify import verify_run

Steps = list[tuple[str, Any]]


def place(steps: Steps, kind: str) -> int:
    return next(n for n, (name, _) in enumerate(steps) if name == kind)


def test_a_run_that_people_let_go_on_verifies_twice(tmp_path: Path) -> None:
    run = evidence.write(tmp_path, evidence.two_legs())
    found = verify_run(run)
    assert found.ok, kinds(found)
    said = {check.name: check.detail for check in found.checks}
    assert said["legs"] == "2 legs, each let on by people"
    assert said["signatures"].startswith("4 signatures")  # start, amendment, re-authorization, approval
    assert second(run) == (0, {})


def no_authorization(steps: Steps) -> None:
    del steps[place(steps, "run.reauthorized")]


def of_another_stop(steps: Steps) -> None:
    n = place(steps, "run.reauthorized")
    steps[n] = ("run.reauthorized", lambda seen: evidence.reauthorized(seen, stop_hash="00" * 32))


def stop_swapped_below_the_signature(steps: Steps) -> None:
    def forged(seen: list[Record]) -> dict[str, Any]:
        data = evidence.reauthorized(seen, stop_hash="00" * 32)
        return {**data, "stop_hash": evidence.reauthorized(seen)["stop_hash"]}

    steps[place(steps, "run.reauthorized")] = ("run.reauthorized", forged)


def of_another_run(steps: Steps) -> None:
    n = place(steps, "run.reauthorized")
    steps[n] = ("run.reauthorized", lambda seen: evidence.reauthorized(seen, run_id="20261120-000000-ffffff"))


def by_a_stranger(steps: Steps) -> None:
    n = place(steps, "run.reauthorized")
    steps[n] = ("run.reauthorized", lambda seen: evidence.reauthorized(seen, by=STRANGER))


def in_danas_name(steps: Steps) -> None:
    def forged(seen: list[Record]) -> dict[str, Any]:
        return {**evidence.reauthorized(seen, by=STRANGER), "operator": DANA.name, "operators": [DANA.name]}

    steps[place(steps, "run.reauthorized")] = ("run.reauthorized", forged)


def unsigned(steps: Steps) -> None:
    n = place(steps, "run.reauthorized")
    steps[n] = ("run.reauthorized", lambda seen: {**evidence.reauthorized(seen), "signature": ""})


def edited_below_the_signature(steps: Steps) -> None:
    def forged(seen: list[Record]) -> dict[str, Any]:
        data = evidence.reauthorized(seen)
        return {**data, "statement": {**data["statement"], "note": "and whatever else it takes"}}

    steps[place(steps, "run.reauthorized")] = ("run.reauthorized", forged)


def signed_for_another_purpose(steps: Steps) -> None:
    def forged(seen: list[Record]) -> dict[str, Any]:
        data = evidence.reauthorized(seen)
        return {**data, "signature": DANA.sign(data["statement"], "inbounds-plan")}

    steps[place(steps, "run.reauthorized")] = ("run.reauthorized", forged)


def names_more_people_than_signed(steps: Steps) -> None:
    def forged(seen: list[Record]) -> dict[str, Any]:
        return {**evidence.reauthorized(seen), "operators": [DANA.name, "Robin"]}

    steps[place(steps, "run.reauthorized")] = ("run.reauthorized", forged)


def before_the_end(steps: Steps) -> None:
    del steps[place(steps, "run.finished")]


def recovered_without_a_death(steps: Steps) -> None:
    del steps[place(steps, "journal.recovered")]


def amended(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Steps], None]:
    def do(steps: Steps) -> None:
        n = place(steps, "contract.amended")
        steps[n] = ("contract.amended", change(steps[n][1]))

    return do


def approved(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Steps], None]:
    def do(steps: Steps) -> None:
        n = place(steps, "operator.decision")
        steps[n] = ("operator.decision", change(steps[n][1]))

    return do


def approval(**changed: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(data: dict[str, Any]) -> dict[str, Any]:
        statement = {**data["statement"], **changed}
        return {**data, "statement": statement, "signature": DANA.sign(statement)}

    return change


FORGERIES: list[tuple[str, Callable[[Steps], None], str, str]] = [
    ("a second leg without a re-authorization", no_authorization, "legs", "not re-authorized"),
    ("re-authorized before the end", before_the_end, "legs", "not re-authorized"),
    ("for another stop", of_another_stop, "legs", "bound to another"),
    ("another stop swapped in", stop_swapped_below_the_signature, "legs", "bound to another"),
    ("of another run", of_another_run, "legs", "of another run"),
    ("by a stranger", by_a_stranger, "legs", "signed by a stranger"),
    ("in an operator's name", in_danas_name, "legs", "signed by a stranger"),
    ("unsigned", unsigned, "legs", "unsigned"),
    ("edited below its signature", edited_below_the_signature, "legs", "bad signature"),
    ("signed for another purpose", signed_for_another_purpose, "legs", "bound to another"),
    ("more people than signed", names_more_people_than_signed, "legs", "unsigned"),
    ("recovered without a death", recovered_without_a_death, "legs", "not re-authorized"),
    ("amendment unsigned", amended(lambda d: {**d, "signature": ""}), "signatures", "unsigned"),
    ("amendment without a statement", amended(lambda d: {**d, "statement": None}), "signatures", "unsigned"),
    ("amendment by a stranger", amended(lambda _: evidence.amended(by=STRANGER)), "signatures", "signed by a stranger"),
    ("amendment with other limits", amended(lambda d: {**d, "limits": {"iterations": 99}}), "signatures",
     "bound to another"),
    ("amendment of another contract", amended(lambda _: evidence.amended(contract_sha256="00" * 32)), "signatures",
     "bound to another"),
    ("amendment of another run", amended(lambda _: evidence.amended(run_id="x")), "signatures", "of another run"),
    ("amendment that skips a version", amended(lambda _: evidence.amended(3)), "signatures", "bound to another"),
    ("approval of another run, replayed", approved(approval(run_id="20261120-000000-ffffff")), "signatures",
     "of another run"),
    ("approval of another commit", approved(approval(commit="ee" * 20)), "signatures", "bound to another"),
    ("approval that says it is another decision", approved(lambda d: {**d, "kind": "resume"}), "signatures",
     "bound to another"),
    ("approval unsigned", approved(lambda d: {**d, "signature": ""}), "signatures", "unsigned"),
    ("approval with junk for a signature", approved(lambda d: {**d, "signature": "junk"}), "signatures",
     "bad signature"),
]  # fmt: skip


@pytest.mark.req("E14")
@pytest.mark.parametrize(("change", "check", "kind"), [f[1:] for f in FORGERIES], ids=[f[0] for f in FORGERIES])
def test_what_nobody_signed_does_not_let_a_run_go_on(
    tmp_path: Path, change: Callable[[Steps], None], check: str, kind: str
) -> None:
    steps: Steps = list(evidence.two_legs())
    change(steps)
    run = evidence.write(tmp_path, steps)
    found = verify_run(run)
    assert not found.ok
    assert kinds(found).get(check) == kind, found.checks
    assert set(kinds(found)) <= {check, "stop sequence", "ending"}, "the journal itself is sound"
    code, said = second(run)
    assert code == 1
    assert kind in said.values() or (kind, set(said)) == ("bad signature", {"signatures"}), said


def test_both_verifiers_know_the_same_kinds() -> None:
    """What may stand after an end, what a stop is made of: written twice, so compared here."""
    second_one = runpy.run_path(str(DOCS / "verify.py"))
    assert second_one["AFTER_END"] == set(sequence.AFTERWARDS)
    assert tuple(second_one["STEPS"]) == sequence.STEPS
    assert {step: decided for decided, step in sequence.DISPOSED.items()} == second_one["ENDS"]
    assert second_one["STARTS"] - {"run.recovered"} == set(sequence.STARTS)
    assert second_one["JUDGES"] == set(sequence.JUDGES)


def test_policy_may_want_two_people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    robin = evidence.Person("Robin")
    wanted = {"resume_by": [DANA.name, robin.name], "resume_approvals": 2}
    contract = {**evidence.CONTRACT, "conduct": wanted,
                "operator_keys": {DANA.name: DANA.public, robin.name: robin.public}}  # fmt: skip
    monkeypatch.setattr(evidence, "CONTRACT", contract)

    def both(seen: list[Record]) -> dict[str, Any]:
        return {**evidence.reauthorized(seen), "operators": [DANA.name, robin.name]}

    def robins(seen: list[Record]) -> dict[str, Any]:
        return {**evidence.reauthorized(seen, by=robin), "kind": "resume"}

    steps: Steps = list(evidence.two_legs())
    n = place(steps, "run.reauthorized")
    alone = evidence.write(tmp_path / "one", steps)
    assert kinds(verify_run(alone))["legs"] == "unsigned"
    assert second(alone)[0] == 1
    steps[n : n + 1] = [("operator.decision", robins), ("run.reauthorized", both)]
    together = evidence.write(tmp_path / "two", steps)
    assert verify_run(together).ok, verify_run(together)
    assert second(together) == (0, {})


def test_the_start_must_have_been_signed_for_this_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, change, kind in (
        ("stranger", {"signature": STRANGER.sign(evidence.STATEMENT, "inbounds-plan")}, "signed by a stranger"),
        ("other plan", {"plan": {"plan_id": "PLAN-13"}}, "bound to another"),
        ("other policy", {"policy_sha256": "00" * 32}, "bound to another"),
        ("nobody", {"signature": ""}, "unsigned"),
    ):
        monkeypatch.setattr(evidence, "CONTRACT", {**_CONTRACT, **change})
        run = evidence.write(tmp_path / name.replace(" ", "-"), evidence.good_run())
        assert kinds(verify_run(run)) == {"signatures": kind}
        assert second(run) == (1, {"signatures": kind})


_CONTRACT = evidence.CONTRACT


def test_a_key_of_another_type_takes_a_checker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ECDSA key's signature is not read here: without somebody who can, the answer is "not checked"."""
    made = Path(tmp_path, "key")
    sshsig._run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-C", "", "-f", str(made)], b"", 60, None)
    key = sshsig.OperatorKey(made, made.with_suffix(".pub").read_text().strip(), DANA.name, "")
    signature = sshsig.sign(key, canonical(evidence.STATEMENT), sshsig.PLAN)
    contract = {**evidence.CONTRACT, "operator_keys": {DANA.name: key.public}, "signature": signature}
    monkeypatch.setattr(evidence, "CONTRACT", contract)
    run = evidence.write(tmp_path / "home", evidence.good_run())
    found = verify_run(run)
    assert not found.ok
    assert {check.name for check in found.checks if check.state is State.UNCHECKED} == {"signatures"}
    good = verify_run(run, checker=lambda m, s, ns, who, key: sshsig.verify(m, s, ns, who, {who: key}))
    assert good.ok, kinds(good)
    assert kinds(verify_run(run, checker=lambda *_: False)) == {"signatures": "bad signature"}
    assert second(run) == (0, {})


def test_ssh_keygen_agrees_about_signatures(tmp_path: Path) -> None:
    message = canonical(evidence.STATEMENT)
    made = DANA.sign(evidence.STATEMENT, sshsig.PLAN)
    assert sshsig.verify(message, made, sshsig.PLAN, DANA.name, {DANA.name: DANA.public})
    private = tmp_path / "key"
    sshsig._run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(private)], b"", 60, None)
    key = sshsig.OperatorKey(private, private.with_suffix(".pub").read_text().strip(), "x", "")
    found = armour.parse(sshsig.sign(key, message, sshsig.APPROVAL))
    assert (found.namespace, found.public) == (people.APPROVAL, armour.public_blob(key.public))
    assert armour.holds(found, message)
    assert not armour.holds(found, message + b" ")


@pytest.mark.parametrize(
    "text", ["", "junk", "-----BEGIN SSH SIGNATURE-----\n\n-----END SSH SIGNATURE-----", "x" * 20_000]
)
def test_what_is_no_signature_is_said_to_be_none(text: str) -> None:
    with pytest.raises(armour.ArmourError):
        armour.parse(text)


@pytest.mark.parametrize("cut", range(1, 120, 7))
def test_a_cut_signature_is_none(cut: int) -> None:
    import base64

    lines = DANA.sign(evidence.STATEMENT).split("\n")
    raw = base64.b64decode("".join(lines[1:-2]))[:-cut]
    text = "\n".join([lines[0], base64.b64encode(raw).decode(), lines[-2]])
    with pytest.raises(armour.ArmourError):
        armour.parse(text)
