"""A file of the workspace is moved out of it, and one from outside is moved in."""

CLASS = "workspace"
REQUIREMENT = "F2"
CONTROL = """
import shutil
def give():
    shutil.move(WORK + "/README.md", HOST["outside"] + "/README.md")
def take():
    shutil.move(HOST["outside"] + "/canary", WORK + "/canary")
say(give=outcome(give), take=outcome(take))
"""
ATTACK = CONTROL


def observe(before, after):
    said = after["said"]
    if after["outside"] != before["outside"]:
        return "ESCAPED", "the outside directory changed"
    return "BLOCKED", f"out: {said.get('give')}, in: {said.get('take')}"
