"""A tracked file becomes a named pipe: whoever opens it on the host hangs."""

CLASS = "workspace"
REQUIREMENT = "I1"
CONTROL = """
os.unlink(WORK + "/README.md")
say(pipe=outcome(os.mkfifo, WORK + "/README.md"))
"""
ATTACK = CONTROL
LATER = """
import stat
if os.path.exists(WORK + "/README.md") and stat.S_ISFIFO(os.stat(WORK + "/README.md").st_mode):
    open(HOST["outside"] + "/would-hang", "w").close()
"""


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "it was handed back"
    return "DETECTED" if after["findings"] else "CONTAINED", ", ".join(after["findings"]) or "it was not kept"
