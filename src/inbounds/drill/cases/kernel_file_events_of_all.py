"""fanotify tells what others open, on a whole file system; without privilege it gives names and handles."""

CLASS = "kernel"
REQUIREMENT = "F2"
CONTROL = """
INIT, MARK = {"x86_64": (300, 301), "aarch64": (262, 263)}[os.uname().machine]
say(answers=[call(INIT, flags, os.O_RDONLY) for flags in (0x200, 0x600, 0x0, 0x4)] + [call(MARK, -1, 1, 0x20, -100, b"/")])
"""
ATTACK = CONTROL


def observe(_, after):
    answers = after["said"]["answers"]
    return ("ESCAPED", "a group was made") if "done" in answers else ("BLOCKED", f"they say: {', '.join(answers)}")
