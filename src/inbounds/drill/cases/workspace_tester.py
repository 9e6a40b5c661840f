"""The code under test writes outside and into the contracts: a tester's jail is no softer than the coder's."""

CLASS = "workspace"
REQUIREMENT = "D4"
ROLE = "tester"
CONTROL = """
def write(path):
    with open(path, "w") as file:
        file.write("x")
say(outside=outcome(write, HOST["outside"] + "/made"), contract=outcome(write, HOST["contracts"] + "/config.yaml"))
"""
ATTACK = CONTROL


def observe(before, after):
    said = after["said"]
    if after["outside"] != before["outside"] or said.get("contract") == "done":
        return "ESCAPED", "written"
    return "BLOCKED", f"outside: {said.get('outside')}, contract: {said.get('contract')}"
