"""What people signed: the start, their decisions, re-authorizations and amendments; each by whom, and bound to what.

The keys are those of the contract that the run accepted (D7, E14, N7, O7). Ed25519 is checked here; for another type of
key a checker has to be handed in, without one the answer is "not checked", never "holds".
"""

from collections.abc import Callable, Mapping
from typing import Any

from inbounds.contracts.canonical import canonical, digest
from inbounds.journal import armour
from inbounds.journal.armour import ArmourError
from inbounds.journal.chain import Record
from inbounds.journal.damage import Damage, Fault

# PROTOCOL.sshsig namespaces: what is signed for one purpose is no signature for another.
START, APPROVAL = "inbounds-plan", "inbounds-approval"
FAULTS_MAX = 1_000  # of a journal that is wrong throughout: what is beyond says nothing new

# (message, armoured signature, namespace, operator, public key) -> whether it holds; starts a program, so not ours.
Checker = Callable[[bytes, str, str, str, str], bool]


class People:
    """Take the records of `KINDS` in order; `allows` is asked by whoever follows the legs."""

    KINDS = frozenset({"run.accepted", "stop.decided", "commit.made", "operator.decision", "contract.amended"})

    def __init__(self, contract: Mapping[str, Any], sha256: str, checker: Checker | None = None) -> None:
        """`sha256` is the contract's; while it is not the accepted one, no key is known: all signers are strangers."""
        self._offered, self._sha256, self._checker = contract, sha256, checker
        self._contract: Mapping[str, Any] = {}
        self._keys: dict[str, str] = {}
        self._conduct: dict[str, Any] = {}
        self._run_id: object = None
        self._contract_sha256: object = None
        self._version = 1
        self._commits: set[str] = set()
        self._stops: set[str] = set()
        self._resumes: dict[str, set[str]] = {}  # the hash of a stop -> who signed that the run may go on
        self.faults: list[Fault] = []
        self.unchecked: list[str] = []
        self.held = 0

    def take(self, record: Record) -> None:
        """One record."""
        match record.kind:
            case "run.accepted":
                if self._contract_sha256 is None:
                    self._accepted(record.data)
                    self._add(self._start())
            case "stop.decided":
                self._stops.add(record.hash)
            case "commit.made":
                self._commits.add(str(record.data.get("commit")))
            case "operator.decision":
                self._add(self._decision(record))
            case "contract.amended":
                self._add(self._amendment(record))
            case _:
                pass

    def _accepted(self, said: Mapping[str, Any]) -> None:
        self._contract_sha256, self._run_id = said.get("contract_sha256"), said.get("run_id")
        if self._sha256 == self._contract_sha256:
            self._contract = self._offered
        keys, conduct = self._contract.get("operator_keys"), self._contract.get("conduct")
        self._keys = {str(name): str(key) for name, key in keys.items()} if isinstance(keys, dict) else {}
        self._conduct = conduct if isinstance(conduct, dict) else {}

    def allows(self, record: Record, stop: Record | None) -> list[Fault]:
        """Whether a run.reauthorized is bound to this very stop and signed by enough of the people policy names."""
        said, where = record.data, f"record {record.seq}: the re-authorization"
        bound = {"what": "resume", "stop_hash": stop.hash if stop else None}
        faults = self._signed(record.data, bound, where)
        if stop is None or said.get("stop_hash") != stop.hash or said.get("stop_code") != stop.data.get("code"):
            faults.append(Fault(Damage.UNBOUND, f"{where} is of another stop than the one that it stands behind"))
        if not faults and stop is not None:
            signed = self._resumes.get(stop.hash, set()) | {str(said.get("operator"))}
            able = signed & self._able()
            named = said.get("operators", [])
            unsigned = set(map(str, named)) - signed if isinstance(named, list) else {"?"}
            if len(able) < self._wanted() or unsigned:
                words = f"{where} is signed by {len(able)} of the {self._wanted()} whom policy wants"
                faults.append(Fault(Damage.UNSIGNED, words))
        return faults

    def _able(self) -> set[str]:
        named = self._conduct.get("resume_by")
        return set(map(str, named)) if isinstance(named, list) and named else set(self._keys)

    def _wanted(self) -> int:
        number = self._conduct.get("resume_approvals", 1)
        return number if type(number) is int and number > 0 else 1

    def _start(self) -> list[Fault]:
        """The signature without which nothing starts: over the contract's own hashes, by the contract's operator."""
        contract, statement = self._contract, self._contract.get("statement")
        if not isinstance(statement, dict):
            return [Fault(Damage.UNSIGNED, "the contract holds no signed statement")]
        names = ("policy_sha256", "config_sha256", "plan_sha256", "thread")
        differ = [name for name in names if statement.get(name) != contract.get(name)]
        if statement.get("requirements") != contract.get("requirements_sha256"):
            differ.append("requirements")
        if statement.get("plan_sha256") != digest(contract.get("plan")):
            differ.append("plan")
        faults = [Fault(Damage.UNBOUND, f"the start was signed for another {name}") for name in differ]
        signature, who = contract.get("signature"), contract.get("operator")
        return faults + self._by(statement, signature, START, who, "the start")

    def _decision(self, record: Record) -> list[Fault]:
        said, where = record.data, f"record {record.seq}: the decision"
        statement = said.get("statement")
        faults = self._signed(said, {"what": said.get("kind")}, where)
        if isinstance(statement, dict) and statement.get("what") == "resume":
            if str(statement.get("stop_hash")) not in self._stops:
                faults.append(Fault(Damage.UNBOUND, f"{where} is about a stop that this journal does not have"))
            elif not faults:
                self._resumes.setdefault(str(statement["stop_hash"]), set()).add(str(said.get("operator")))
        if (
            isinstance(statement, dict)
            and statement.get("what") == "approve"
            and str(statement.get("commit")) not in self._commits
        ):
            faults.append(Fault(Damage.UNBOUND, f"{where} is about a commit that this run did not make"))
        return faults

    def _amendment(self, record: Record) -> list[Fault]:
        said, where = record.data, f"record {record.seq}: the amendment"
        bound = {
            "what": "amend",
            "version": self._version + 1,
            "limits": said.get("limits"),
            "contract_sha256": self._contract_sha256,
        }
        faults = self._signed(said, bound, where)
        self._version += 1
        if said.get("version") != self._version:
            words = f"{where} is version {said.get('version')}, {self._version} is due"
            faults.append(Fault(Damage.UNBOUND, words))
        return faults

    def _signed(self, said: Mapping[str, Any], bound: Mapping[str, object], where: str) -> list[Fault]:
        statement = said.get("statement")
        if not isinstance(statement, dict):
            return [Fault(Damage.UNSIGNED, f"{where} has no signed statement")]
        faults = []
        if statement.get("run_id") != self._run_id:
            faults.append(Fault(Damage.OTHER_RUN, f"{where} was signed for run {statement.get('run_id')}"))
        differ = [name for name, value in bound.items() if statement.get(name) != value]
        if differ:
            faults.append(Fault(Damage.UNBOUND, f"{where} was signed for another {', '.join(differ)}"))
        return faults + self._by(statement, said.get("signature"), APPROVAL, said.get("operator"), where)

    def _by(self, statement: dict[str, Any], armoured: object, namespace: str, who: object, where: str) -> list[Fault]:
        """Whether the operator `who` signed exactly this statement for this purpose."""
        if not isinstance(armoured, str) or not armoured:
            return [Fault(Damage.UNSIGNED, f"{where} has no signature")]
        key = self._keys.get(who) if isinstance(who, str) else None
        if key is None:
            return [Fault(Damage.STRANGER, f"{where} is signed by {who}, whom the contract does not name")]
        try:
            found = armour.parse(armoured)
            if found.public != armour.public_blob(key):
                return [Fault(Damage.STRANGER, f"{where} is signed with a key that is not {who}'s")]
            if found.namespace != namespace:
                return [Fault(Damage.UNBOUND, f"{where} is signed for the purpose {found.namespace[:40]!r}")]
            message = canonical(statement)
            if found.key_type() == armour.ED25519:
                good = armour.holds(found, message)
            elif self._checker is not None:
                good = self._checker(message, armoured, namespace, str(who), key)
            else:
                self.unchecked.append(f"{where}: a key that is not Ed25519 takes ssh-keygen")
                return []
        except (ArmourError, ValueError, TypeError) as error:
            return [Fault(Damage.BAD_NOTE, f"{where}: {error}"[:200])]
        if not good:
            return [Fault(Damage.BAD_NOTE, f"{where}: {who}'s signature is not over this")]
        self.held += 1
        return []

    def _add(self, faults: list[Fault]) -> None:
        self.faults += faults[: max(0, FAULTS_MAX - len(self.faults))]
