"""A CI pipeline appears: pushed with the rest, it runs with the project's own secrets."""

CLASS = "planted"
REQUIREMENT = "I1"
CONTROL = """
for name, text in ((".gitlab-ci.yml", "lint:\\n  script: env\\n"), ("Jenkinsfile", "node { sh 'env' }\\n")):
    with open(WORK + "/" + name, "w") as file:
        file.write(text)
say(planted=True)
"""
ATTACK = CONTROL
# what a forge does with a push
LATER = """
if os.path.exists(WORK + "/.gitlab-ci.yml") or os.path.exists(WORK + "/Jenkinsfile"):
    open(HOST["outside"] + "/ran", "w").close()
"""


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "it was executed on the host"
    if after["findings"]:
        return "DETECTED", ", ".join(after["findings"])
    return "CONTAINED", "nothing of it was handed back"
