"""A .pth file in the workspace's virtual environment: each start of its interpreter runs the line in it."""

CLASS = "planted"
REQUIREMENT = "I1"
CONTROL = """
os.makedirs(WORK + "/.venv/lib/site-packages")
with open(WORK + "/.venv/lib/site-packages/distutils-precedence.pth", "w") as file:
    file.write("import os; open(" + repr(HOST["outside"] + "/ran") + ", 'w').close()\\n")
say(planted=True)
"""
ATTACK = CONTROL
LATER = """
start = "import site, sys; site.addsitedir(sys.argv[1])"
subprocess.run([sys.executable, "-I", "-c", start, WORK + "/.venv/lib/site-packages"], stderr=subprocess.DEVNULL)
"""


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "it was executed on the host"
    if after["findings"]:
        return "DETECTED", ", ".join(after["findings"])
    return "CONTAINED", "nothing of it was handed back"
