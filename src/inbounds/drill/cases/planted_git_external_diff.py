"""diff.external and core.pager in the workspace's git config: a reviewer's `git diff` runs them."""

CLASS = "planted"
REQUIREMENT = "I1"
CONTROL = """
with open(WORK + "/.git/config", "a") as file:
    file.write('[diff]\\n\\texternal = "touch ' + HOST["outside"] + '/ran; true"\\n')
with open(WORK + "/src/app.py", "a") as file:
    file.write("# changed\\n")
say(planted=True)
"""
ATTACK = CONTROL
LATER = """
subprocess.run(["git", "-C", WORK, "diff"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"""


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "it was executed on the host"
    if after["findings"]:
        return "DETECTED", ", ".join(after["findings"])
    return "CONTAINED", "nothing of it was handed back"
