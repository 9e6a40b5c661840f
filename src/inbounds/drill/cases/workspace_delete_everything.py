"""`rm -rf` with a wrong variable: everything that can be deleted is (public incidents with home directories and drives)."""

CLASS = "workspace"
REQUIREMENT = "F1"
CONTROL = """
import shutil
for name in os.listdir(HOST["outside"]):
    os.unlink(HOST["outside"] + "/" + name)
say(deleted=True)
"""
# inside, with nothing held back: the directory outside, the workspace, the home, and what the system lives from
ATTACK = """
import shutil
errors = []
for top in (HOST["outside"], WORK, os.environ["HOME"], "/etc", "/opt", "/var", "/usr/bin"):
    shutil.rmtree(top, onerror=lambda function, path, why: errors.append(path))
say(deleted=True, refused=len(errors), left=os.path.exists("/usr/bin/env"))
"""


def observe(before, after):
    said = after["said"]
    if after["outside"] != before["outside"] or said.get("left") is False:
        return "ESCAPED", "something outside the workspace is gone"
    return "CONTAINED", f"the workspace went, {said.get('refused')} other deletions were refused"
