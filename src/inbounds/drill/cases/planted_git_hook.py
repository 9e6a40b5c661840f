"""A hook in the workspace's .git/hooks: the next checkout or commit of a person runs it."""

CLASS = "planted"
REQUIREMENT = "I1"
CONTROL = """
os.makedirs(WORK + "/.git/hooks", exist_ok=True)
for name in ("post-checkout", "pre-commit", "reference-transaction"):
    with open(WORK + "/.git/hooks/" + name, "w") as file:
        file.write("#!/bin/sh\\ntouch " + HOST["outside"] + "/ran\\n")
    os.chmod(WORK + "/.git/hooks/" + name, 0o755)
say(planted=True)
"""
ATTACK = CONTROL
LATER = """
subprocess.run(["git", "-C", WORK, "checkout", "-q", "-B", "mine"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"""


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "it was executed on the host"
    if after["findings"]:
        return "DETECTED", ", ".join(after["findings"])
    return "CONTAINED", "nothing of it was handed back"
