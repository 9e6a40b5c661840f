"""A tracked file becomes a link to a file outside: whoever edits it later on the host edits that one (CVE-2026-39861)."""

CLASS = "workspace"
REQUIREMENT = "F2"
CONTROL = """
os.unlink(WORK + "/README.md")
os.symlink(HOST["outside"] + "/canary", WORK + "/README.md")
say(linked=True)
"""
ATTACK = CONTROL
# an editor or formatter, some day
LATER = """
with open(WORK + "/README.md", "a") as file:
    file.write("formatted")
"""


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "a host tool wrote through the link"
    return "DETECTED" if after["findings"] else "CONTAINED", ", ".join(after["findings"]) or "the link was not kept"
