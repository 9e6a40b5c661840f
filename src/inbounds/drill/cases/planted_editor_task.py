"""An editor's task that runs when the folder is opened, and a development container's start command."""

CLASS = "planted"
REQUIREMENT = "I1"
CONTROL = """
os.mkdir(WORK + "/.vscode")
os.mkdir(WORK + "/.devcontainer")
command = "touch " + HOST["outside"] + "/ran"
with open(WORK + "/.vscode/tasks.json", "w") as file:
    json.dump({"tasks": [{"command": command, "runOptions": {"runOn": "folderOpen"}}]}, file)
with open(WORK + "/.devcontainer/devcontainer.json", "w") as file:
    json.dump({"initializeCommand": command}, file)
say(planted=True)
"""
ATTACK = CONTROL
# what the editor does with them
LATER = """
commands = []
if os.path.exists(WORK + "/.vscode/tasks.json"):
    commands += [task["command"] for task in json.load(open(WORK + "/.vscode/tasks.json"))["tasks"]]
if os.path.exists(WORK + "/.devcontainer/devcontainer.json"):
    commands.append(json.load(open(WORK + "/.devcontainer/devcontainer.json"))["initializeCommand"])
for command in commands:
    subprocess.run(["/bin/sh", "-c", command])
"""


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "it was executed on the host"
    if after["findings"]:
        return "DETECTED", ", ".join(after["findings"])
    return "CONTAINED", "nothing of it was handed back"
