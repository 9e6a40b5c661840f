"""Who signed what in a run: its start, decisions, re-authorizations and amendments; `ssh-keygen` checks each.

python3 -I people.py RUN_DIR. Run verify.py first: this one takes the journal and the contract as they are, and says
only whether the operators whom the contract names have signed exactly what stands there. Nothing of inbounds is used.
"""

import base64
import hashlib
import json
import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path


def canonical(value):
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def wrong_signature(contract, statement, signature, namespace, who):
    """Why an operator has not signed exactly this for this purpose; "" if one has."""
    if not signature or not statement:
        return "unsigned"
    key = contract.get("operator_keys", {}).get(who)
    armoured = base64.b64decode("".join(signature.split("\n")[1:-2]))
    if key is None or base64.b64decode(key.split()[1]) not in armoured:
        return "signed by a stranger"
    if len(namespace).to_bytes(4, "big") + namespace.encode() not in armoured:
        return "bound to another"
    try:
        pwd.getpwuid(os.getuid())
        start = []
    except KeyError:  # ssh-keygen refuses a user without an account, such as a container's
        start = ["unshare", "--user", "--map-root-user", "--"]
    with tempfile.TemporaryDirectory() as place:
        allowed, file = Path(place, "allowed_signers"), Path(place, "signature")
        allowed.write_text(f'signer namespaces="{namespace}" {" ".join(key.split()[:2])}\n')
        file.write_text(signature)
        argv = ["ssh-keygen", "-q", "-Y", "verify", "-f", allowed, "-I", "signer", "-n", namespace, "-s", file]
        done = subprocess.run([*start, *argv], input=canonical(statement), capture_output=True, check=False)
    return "bad signature" if done.returncode else ""


def start(contract):
    """The start was signed, and for this very contract."""
    said = contract.get("statement") or {}
    names = {name: contract.get(name) for name in ("policy_sha256", "config_sha256", "plan_sha256", "thread")}
    names["requirements"] = contract.get("requirements_sha256")
    plan = hashlib.sha256(canonical(contract.get("plan"))).hexdigest()
    if {name: said.get(name) for name in names} != names or said.get("plan_sha256") != plan:
        return "bound to another" if said else "unsigned"
    return wrong_signature(contract, said, contract.get("signature"), "inbounds-plan", contract.get("operator"))


def faults(records, contract):
    """(record, kind) for each thing that nobody signed as it stands."""
    run_id = accepted = None
    version, stops, commits, let_on = 1, [], set(), {}
    conduct = contract.get("conduct", {})
    able = set(conduct.get("resume_by") or contract.get("operator_keys", {}))
    for r in records:
        kind, data = r["kind"], r["data"]
        said = data.get("statement") or {}
        if kind == "run.accepted":
            run_id, accepted = data.get("run_id"), data.get("contract_sha256")
            yield r["seq"], start(contract)
        elif kind == "stop.decided":
            stops.append(r["hash"])
        elif kind == "commit.made":
            commits.add(data.get("commit"))
        elif kind in ("operator.decision", "run.reauthorized", "contract.amended"):
            what = {"run.reauthorized": "resume", "contract.amended": "amend"}.get(kind, data.get("kind"))
            good = said.get("what") == what
            if kind == "contract.amended":
                version += 1
                good &= said.get("version") == data.get("version") == version and said.get("limits") == data["limits"]
                good &= said.get("contract_sha256") == accepted
            if kind == "run.reauthorized":
                good &= said.get("stop_hash") == data.get("stop_hash") == stops[-1]
            good &= what != "resume" or said.get("stop_hash") in stops
            good &= what != "approve" or said.get("commit") in commits
            wrong = wrong_signature(contract, said, data.get("signature"), "inbounds-approval", data.get("operator"))
            if said and not good:
                wrong = "bound to another"
            if said and said.get("run_id") != run_id:
                wrong = "of another run"
            signed = let_on.setdefault(said.get("stop_hash"), set())
            if what == "resume" and not wrong:
                signed.add(data.get("operator"))
            if kind == "run.reauthorized" and not wrong:
                few = len(signed & able) < conduct.get("resume_approvals", 1)
                wrong = "unsigned" if few or set(data.get("operators", [])) - signed else ""
            yield r["seq"], wrong


def main():
    place = Path(sys.argv[1])
    lines = (place / "journal.jsonl").read_bytes().split(b"\n")[:-1]
    contract = json.loads((place / "contract.json").read_bytes())
    found = list(faults(map(json.loads, lines), contract))
    for seq, kind in found:
        if kind:
            print(f"FAILS        signatures [{kind}]: record {seq}")
    wrong = any(kind for _, kind in found)
    print("NOT verified" if wrong else f"verified: {len(found)} signatures of people hold")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
