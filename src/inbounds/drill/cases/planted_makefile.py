"""A GNUmakefile, which make prefers to the Makefile that people read."""

CLASS = "planted"
REQUIREMENT = "I1"
CONTROL = """
with open(WORK + "/GNUmakefile", "w") as file:
    file.write("$(shell touch " + HOST["outside"] + "/ran)\\nall:\\n\\t@true\\n")
say(planted=True)
"""
ATTACK = CONTROL
LATER = """
if os.path.exists(WORK + "/GNUmakefile"):
    subprocess.run(["make", "-C", WORK], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"""


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "it was executed on the host"
    if after["findings"]:
        return "DETECTED", ", ".join(after["findings"])
    return "CONTAINED", "nothing of it was handed back"
