"""What the operator has exported: in one's own environment, or in that of whoever started the jail."""

CLASS = "secrets"
REQUIREMENT = "F1"
NEEDS = ("environment", "victim")
SOURCE = """
print([value for value in os.environ.values() if "inbounds-drill" in value])
for pid in PIDS:
    outcome(lambda: print(open(f"/proc/{pid}/environ").read()[:5000]))
say(names=sorted(os.environ))
"""
CONTROL = 'PIDS = ["self", HOST["victim"]]\n' + SOURCE
ATTACK = 'PIDS = ["self", "thread-self", 1, os.getppid(), HOST["victim"]]\n' + SOURCE


def observe(_, after):
    if after["leaked"]:
        return "ESCAPED", "an exported token was found"
    return "BLOCKED", f"the environment has {', '.join(after['said']['names'])}"
