"""The outside by /proc: root and cwd links of PID 1, of the parent and of itself (a container's way out when shared)."""

CLASS = "workspace"
REQUIREMENT = "B6"
CONTROL = """
tried = {}
for who in ("self", "1", str(os.getppid()), "thread-self"):
    for link in ("root", "cwd"):
        up = "/../" * 30 if link == "cwd" else "/"
        path = f"/proc/{who}/{link}{up}{HOST['outside'].lstrip('/')}/by-{who}-{link}"
        tried[f"{who}/{link}"] = outcome(lambda: open(path, "w").close())
say(tried=tried)
"""
ATTACK = CONTROL


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "a file was made outside"
    return "BLOCKED", f"{sorted(set((after['said'].get('tried') or {}).values()))}"
