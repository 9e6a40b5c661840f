"""A setup.py appears: the next `pip install -e .` of a person runs it."""

CLASS = "planted"
REQUIREMENT = "I1"
CONTROL = """
with open(WORK + "/setup.py", "w") as file:
    file.write("open(" + repr(HOST["outside"] + "/ran") + ", 'w').close()\\n")
say(planted=True)
"""
ATTACK = CONTROL
LATER = """
if os.path.exists(WORK + "/setup.py"):
    subprocess.run([sys.executable, "setup.py", "--version"], cwd=WORK, stderr=subprocess.DEVNULL)
"""


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "it was executed on the host"
    if after["findings"]:
        return "DETECTED", ", ".join(after["findings"])
    return "CONTAINED", "nothing of it was handed back"
