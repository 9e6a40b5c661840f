"""Enough ".." from the workspace to a directory outside it, from a path and from an open directory (a chroot's classic)."""

CLASS = "workspace"
REQUIREMENT = "B6"
CONTROL = """
up = "../" * 40 + HOST["outside"].lstrip("/")
def write():
    with open(up + "/through-path", "w") as file:
        file.write("x")
def write_at():
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    os.close(os.open(up + "/through-descriptor", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=root))
say(path=outcome(write), descriptor=outcome(write_at))
"""
ATTACK = CONTROL


def observe(before, after):
    if after["outside"] != before["outside"]:
        return "ESCAPED", "the outside directory changed"
    return "BLOCKED", f"by path: {after['said'].get('path')}, by descriptor: {after['said'].get('descriptor')}"
