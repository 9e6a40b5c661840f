"""A program with set-user-id and set-group-id bits is left behind for somebody with more rights to hand on."""

CLASS = "workspace"
REQUIREMENT = "I1"
CONTROL = """
import shutil
shutil.copy("/bin/sh", WORK + "/tool")
say(mode=outcome(os.chmod, WORK + "/tool", 0o6755), got=oct(os.stat(WORK + "/tool").st_mode & 0o7777))
"""
ATTACK = CONTROL
LATER = """
if os.path.exists(WORK + "/tool") and os.stat(WORK + "/tool").st_mode & 0o6000:
    open(HOST["outside"] + "/set-id", "w").close()
"""


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "it was handed back with its bits"
    words = f"mode {after['said'].get('got')}; {', '.join(after['findings']) or 'no finding'}"
    return "DETECTED" if after["findings"] else "CONTAINED", words
