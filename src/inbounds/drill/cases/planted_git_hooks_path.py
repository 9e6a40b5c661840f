"""core.hooksPath in the workspace's git config, and a hook in a tracked directory: the next commit there runs it."""

CLASS = "planted"
REQUIREMENT = "I1"
CONTROL = """
os.mkdir(WORK + "/scripts")
with open(WORK + "/scripts/post-checkout", "w") as file:
    file.write("#!/bin/sh\\ntouch " + HOST["outside"] + "/ran\\n")
os.chmod(WORK + "/scripts/post-checkout", 0o755)
with open(WORK + "/.git/config", "a") as file:
    file.write("[core]\\n\\thooksPath = " + WORK + "/scripts\\n")
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
