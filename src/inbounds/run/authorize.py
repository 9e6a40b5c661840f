"""The signature without which nothing starts: a person's SSH key over the contract's hashes (J13, E8, O7).

Signatures are kept by the statement's hash, so that the same plan needs signing once and any change voids it.
"""

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from inbounds.contracts.bound import Contract
from inbounds.contracts.canonical import canonical, digest
from inbounds.contracts.errors import OperatorError, RefusedError
from inbounds.journal import sshsig
from inbounds.run.home import Home

START_NAMESPACE = "inbounds-plan"
APPROVAL_NAMESPACE = "inbounds-approval"


def signer_name(operators: dict[str, str], public_key: str) -> str:
    """The operator to whom a public key belongs; RefusedError if policy names nobody with it."""
    wanted = public_key.split()[:2]
    for name, key in operators.items():
        if key.split()[:2] == wanted:
            return name
    raise RefusedError(
        "your signing key belongs to no operator of this repository",
        where=".inbounds/policy.yaml: operators",
        expected="a person named there",
        fix="have an operator add your public key, or run inbounds init in a repository of your own",
    )


def me(operators: dict[str, str], key: sshsig.OperatorKey | None = None) -> tuple[str, sshsig.OperatorKey]:
    """The operator at the keyboard (or with `key`): the name by which policy knows their key, and the key."""
    key = key or sshsig.operator_key()
    return signer_name(operators, key.public), key


def signature_for(home: Home, statement: dict[str, Any], operators: dict[str, str], extra: Path | None = None) -> str:
    """A kept signature over this very statement by one of the operators, or ""."""
    for path in (home.signed / f"{digest(statement)}.sig", *([extra] if extra else [])):
        try:
            armored = path.read_text(encoding="ascii")
        except (FileNotFoundError, UnicodeDecodeError):
            continue
        if signed_by(statement, armored, operators, START_NAMESPACE):
            return armored
    return ""


def signed_by(statement: dict[str, Any], armored: str, operators: dict[str, str], namespace: str) -> str:
    """Which operator made this signature, or "" if none did."""
    message = canonical(statement)
    return next((name for name in operators if sshsig.verify(message, armored, namespace, name, operators)), "")


def sign(
    home: Home,
    statement: dict[str, Any],
    operators: dict[str, str],
    extra: Path | None = None,
    key: sshsig.OperatorKey | None = None,
) -> str:
    """Sign a start statement as the operator at the keyboard and keep it; returns the armored signature."""
    _, key = me(operators, key)
    armored = sshsig.sign(key, canonical(statement), START_NAMESPACE)
    (home.signed / f"{digest(statement)}.sig").write_text(armored, encoding="ascii")
    if extra is not None:
        _put_beside(extra, armored)
    return armored


def _put_beside(path: Path, armored: str) -> None:
    """Write a signature into the repository, through no link: an agent may have been at work there before."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise OperatorError(
            f"the signature cannot be written: {error.strerror}",
            where=str(path),
            expected="a file of the repository itself",
            fix=f"rm {shlex.quote(str(path))}",
        ) from error
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(armored)


def authorize(
    home: Home,
    contract: Contract,
    *,
    ask: Callable[[], bool] | None,
    extra: Path | None = None,
    key: sshsig.OperatorKey | None = None,
) -> Contract:
    """The contract with a valid signature in it.

    `ask` shows what is to be signed and returns whether the person agrees; None means --yes: only a signature that is
    there already will do.
    """
    statement = dict(contract.statement)
    kept = signature_for(home, statement, contract.operator_keys, extra)
    if ask is None:
        if not kept:
            raise RefusedError(
                "this plan is not signed, and --yes signs nothing",
                where=contract.plan.plan_id,
                expected="a plan signed by an operator",
                fix="inbounds plan sign … with the same flags, or run without --yes",
            )
        armored = kept
    else:
        if not ask():
            raise RefusedError("not signed, so nothing was started", where=contract.plan.plan_id)
        armored = sign(home, statement, contract.operator_keys, key=key)
    name = signed_by(statement, armored, contract.operator_keys, START_NAMESPACE)
    if not name:
        raise OperatorError("the signature does not verify", where=contract.plan.plan_id, fix="inbounds plan sign")
    return msgspec.structs.replace(contract, signature=armored, operator=name)
