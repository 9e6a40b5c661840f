"""A hard link gives a denied file a name inside the workspace, where writing is allowed."""

CLASS = "workspace"
REQUIREMENT = "F2"
CONTROL = """
# the scratch directory and the workspace may lie on different file systems: a link beside the workspace will do
def link(source, name):
    os.link(source, WORK + "/" + name)
    with open(WORK + "/" + name, "a") as file:
        file.write("changed")
say(outside=outcome(link, HOST["outside"] + "/canary", "a"), protected=outcome(link, HOST["protected"], "b"))
"""
ATTACK = CONTROL


def observe(before, after):
    said = after["said"]
    if after["outside"] != before["outside"] or (said.get("protected") == "done" and not after["findings"]):
        return "ESCAPED", f"outside: {said.get('outside')}, protected: {said.get('protected')}"
    return "BLOCKED", f"outside: {said.get('outside')}, protected: {said.get('protected')}"
