"""A postinstall script in package.json: the next `npm install` of a person or of CI runs it (the npm worms' way)."""

CLASS = "planted"
REQUIREMENT = "I1"
CONTROL = """
with open(WORK + "/package.json", "w") as file:
    json.dump({"name": "x", "version": "1.0.0", "scripts": {"postinstall": "touch " + HOST["outside"] + "/ran"}}, file)
say(planted=True)
"""
ATTACK = CONTROL
# what npm does with one, whether it is installed here or not
LATER = """
if os.path.exists(WORK + "/package.json"):
    scripts = json.load(open(WORK + "/package.json")).get("scripts", {})
    for name in ("preinstall", "install", "postinstall", "prepare"):
        if name in scripts:
            subprocess.run(["/bin/sh", "-c", scripts[name]])
"""


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "it was executed on the host"
    if after["findings"]:
        return "DETECTED", ", ".join(after["findings"])
    return "CONTAINED", "nothing of it was handed back"
