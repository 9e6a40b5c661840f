"""credential.helper in the workspace's git config: the next push asks it, with the address that it pushes to."""

CLASS = "planted"
REQUIREMENT = "I1"
CONTROL = """
with open(WORK + "/.git/config", "a") as file:
    file.write('[credential]\\n\\thelper = "!touch ' + HOST["outside"] + '/ran"\\n')
say(planted=True)
"""
ATTACK = CONTROL
LATER = """
subprocess.run(["git", "-C", WORK, "credential", "fill"], input=b"protocol=https\\nhost=localhost\\n\\n",
               env={**os.environ, "GIT_TERMINAL_PROMPT": "0"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"""


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "it was executed on the host"
    if after["findings"]:
        return "DETECTED", ", ".join(after["findings"])
    return "CONTAINED", "nothing of it was handed back"
