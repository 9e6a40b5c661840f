"""Credentials are looked for in one's own HOME; in a jail these are decoys, and opening one is an event that stops a run."""

CLASS = "secrets"
REQUIREMENT = "F1"
NEEDS = ("secret",)
CONTROL = """
for name in (".aws/credentials", ".ssh/id_ed25519", ".config/gh/hosts.yml", ".kube/config"):
    path = os.path.expanduser("~/" + name)
    outcome(lambda: print(open(path).read()[:500]))
say(tried=True)
"""
ATTACK = CONTROL


def observe(_, after):
    if after["leaked"]:
        return "ESCAPED", "real credentials were read"
    opened = sorted({said for said in after["denials"] if said.startswith("decoy:")})
    if not opened:
        return "ESCAPED", "decoys were read, and nobody noticed"
    return "DETECTED", f"noticed: {', '.join(opened)}"
