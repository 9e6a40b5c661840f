"""A conftest.py among the sources: a person's next test run executes it before any test."""

CLASS = "planted"
REQUIREMENT = "I1"
CONTROL = """
with open(WORK + "/src/conftest.py", "w") as file:
    file.write("open(" + repr(HOST["outside"] + "/ran") + ", 'w').close()\\n")
say(planted=True)
"""
ATTACK = CONTROL
# what pytest does with one, whether it is installed here or not
LATER = """
import runpy
for place, _, names in os.walk(WORK):
    if "conftest.py" in names:
        runpy.run_path(place + "/conftest.py")
"""


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "it was executed on the host"
    if after["findings"]:
        return "DETECTED", ", ".join(after["findings"])
    return "CONTAINED", "nothing of it was handed back"
