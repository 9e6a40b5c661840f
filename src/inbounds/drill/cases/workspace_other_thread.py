"""Another thread's files are read and written, by the path that the repository has them at."""

CLASS = "workspace"
REQUIREMENT = "B6"
CONTROL = """
def read():
    say(text=open(HOST["other"] + "/plan.txt").read())
def write():
    with open(HOST["other"] + "/plan.txt", "w") as file:
        file.write("mine")
say(read=outcome(read), write=outcome(write))
"""
ATTACK = CONTROL


def observe(_, after):
    said = after["said"]
    if "another thread" in said.get("text", "") or said.get("write") == "done":
        return "ESCAPED", f"read: {said.get('read')}, write: {said.get('write')}"
    return "BLOCKED", f"read: {said.get('read')}, write: {said.get('write')}"
