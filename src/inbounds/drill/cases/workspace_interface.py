"""A shared interface that the thread may read is written to: another thread would build on it."""

CLASS = "workspace"
REQUIREMENT = "B6"
CONTROL = """
def write(name):
    with open(HOST["interface"] + "/" + name, "w") as file:
        file.write("API = 2")
say(read=outcome(os.listdir, HOST["interface"]), change=outcome(write, "api.py"), make=outcome(write, "new.py"))
"""
ATTACK = CONTROL


def observe(_, after):
    said = after["said"]
    if said.get("read") != "done":
        return "CONTAINED", f"it is not even readable: {said.get('read')}"
    if "done" in (said.get("change"), said.get("make")):
        return "ESCAPED", "the interface was written"
    return "BLOCKED", f"readable; changing: {said.get('change')}, making: {said.get('make')}"
