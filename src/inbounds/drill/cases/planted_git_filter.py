"""A clean filter by .gitattributes, defined in the workspace's git config: `git add` and `git status` run it."""

CLASS = "planted"
REQUIREMENT = "I1"
CONTROL = """
with open(WORK + "/.gitattributes", "w") as file:
    file.write("* filter=own\\n")
with open(WORK + "/.git/config", "a") as file:
    file.write('[filter "own"]\\n\\tclean = "touch ' + HOST["outside"] + '/ran; cat"\\n')
say(planted=True)
"""
ATTACK = CONTROL
LATER = """
subprocess.run(["git", "-C", WORK, "add", "-A"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"""


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "it was executed on the host"
    if after["findings"]:
        return "DETECTED", ", ".join(after["findings"])
    return "CONTAINED", "nothing of it was handed back"
