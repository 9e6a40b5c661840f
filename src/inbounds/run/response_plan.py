"""The response plan that `inbounds init` writes: what people do when a run, an agent or a key is not as it should be.

Filled with what policy and the look at the repository say; people complete and keep it. Acts on nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from inbounds.console.plain import visible
from inbounds.contracts.documents import Policy
from inbounds.contracts.paths import CONTRACT_DIRECTORY

PLAN = f"{CONTRACT_DIRECTORY}/INCIDENT.md"
NAMES_MAX = 20  # people to call


@dataclass(frozen=True, slots=True)
class People:
    """Whom the plan names: the thread's owner, operators, and whose signatures let a run go on after an incident."""

    owner: str
    operators: tuple[str, ...]
    resume_by: tuple[str, ...]
    approvals: int


def people(owner: str, operator: str, policy: Policy | None) -> People:
    """From the policy; where it is not to be read, whoever set the repository up."""
    if policy is None:
        return People(owner, (operator,), (operator,), 1)
    names = tuple(person.name for person in policy.operators)
    resume = policy.conduct.resume
    return People(owner, names, resume.by or names, max(resume.approvals, resume.after_incident))


def write(thread: str, named: People) -> str:
    """The plan's text."""
    return TEXT.format(
        thread=_one(thread),
        owner=_one(named.owner),
        operators=_list(named.operators),
        by=", ".join(map(_one, named.resume_by[:NAMES_MAX])),
        approvals=named.approvals,
        signatures="signature" if named.approvals == 1 else "signatures",
    )


def _list(names: Sequence[str]) -> str:
    return "\n".join(f"| operator | {_one(name)} | |" for name in names[:NAMES_MAX])


def _one(text: str) -> str:
    """A name as one line, without what a table or Markdown would read."""
    return visible(text, limit=200).replace("|", "/").replace("`", "'").replace("<", "(")


TEXT = """\
# When something goes wrong: response plan for {thread}

Written by `inbounds init` from what it found; complete it, commit it, and try it once (`inbounds stop --all` stops
every run on the host, so announce that). Agents cannot change this file.

## Who to call

| role | name | phone, chat |
|---|---|---|
| owner of {thread} | {owner} | |
{operators}
| security, on call | | |
| provider keys (who can revoke them at the provider) | | |

## The first five minutes

1. Stop everything on the host. It freezes every run at once, seals the journals, quarantines what the agents left and
   closes their leases; as root it also stops other users' runs, in order:

       inbounds stop --all --why "what you saw, in one sentence"

2. Read what it wrote down (`incident.md`, its path is the last line): runs, money, branches, keys, next steps.
3. If a key may have leaked, revoke it at the provider first, then here:

       inbounds key list
       inbounds key remove NAME

4. Call the owner and an operator. Do not restart anything: a stopped run goes on only by signature.

Signs that call for it: a decoy or secret in a denial, STOP_SECRET_EXPOSURE or STOP_TAMPERING, spending that nobody
explains, a change on a protected branch that nobody approved, `inbounds verify` that fails.

## Preserve

Nothing has to be copied in a hurry: workspaces are quarantined, trees are in the store, journals are signed.

    inbounds verify RUN              does the evidence hold?
    inbounds export RUN              one file that verifies on another machine; give it to whoever asks
    inbounds logs RUN                what happened, second by second

Do not run anything out of a quarantine. Do not `discard` before the review is over.

## Decide

    inbounds review RUN              what it did, and what it needs
    inbounds rollback RUN            undo what it landed
    inbounds discard RUN             throw unlanded work away

| question | who decides |
|---|---|
| Was anything taken out or changed outside the bounds? | security |
| Does landed work stay? | {owner} |
| May runs start again? | an operator |

## Recover

Going on with a run takes {approvals} {signatures} by: {by}. Each is bound to that very stop.

    inbounds resume RUN --sign-only --note "why it may go on"      each further person
    inbounds resume RUN --note "why it may go on"                  the last one, who starts it

Raise a limit or correct the plan in the same breath, or begin a new run instead. New keys: `inbounds key add NAME`.

## Afterwards

- [ ] Within two days: what happened, when it was noticed, what stopped it (from `incident.json`, not from memory).
- [ ] Which bound would have stopped it earlier? Tighten `.inbounds/policy.yaml`, and sign the plans again.
- [ ] Is every key that was in use rotated or known to be safe?
- [ ] Is this plan still right? Names, numbers, commands.
"""
