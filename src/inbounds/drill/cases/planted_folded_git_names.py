"""Names that other file systems take for .git: .GIT, .g<zero-width>it, git~1 (CVE-2014-9390, CVE-2019-1353)."""

CLASS = "planted"
REQUIREMENT = "I1"
CONTROL = """
for name in (".GIT", ".g\\u200cit", "git~1"):
    os.makedirs(WORK + "/src/" + name)
    with open(WORK + "/src/" + name + "/config", "w") as file:
        file.write("[core]\\n\\tfsmonitor = true\\n")
say(planted=True)
"""
ATTACK = CONTROL
# a check-out on such a file system: names are folded
LATER = """
for place, directories, _ in os.walk(WORK + "/src"):
    for name in directories:
        if name.casefold().replace("\\u200c", "") in (".git", "git~1"):
            open(HOST["outside"] + "/ran", "w").close()
"""


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "it was executed on the host"
    if after["findings"]:
        return "DETECTED", ", ".join(after["findings"])
    return "CONTAINED", "nothing of it was handed back"
