"""A symbolic link in the workspace leads out of it, and a write goes through it (CVE-2026-39861)."""

CLASS = "workspace"
REQUIREMENT = "F2"
CONTROL = """
os.symlink(HOST["outside"], WORK + "/link")
def write():
    with open(WORK + "/link/canary", "w") as file:
        file.write("changed")
say(written=outcome(write))
"""
ATTACK = CONTROL


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "written through the link"
    if "scope.symlink" in after["findings"]:
        return "DETECTED", f"the link leads nowhere inside ({after['said'].get('written')}), and is a finding"
    return "BLOCKED", f"write: {after['said'].get('written')}"
