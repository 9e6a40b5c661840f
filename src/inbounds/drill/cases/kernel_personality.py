"""A personality in which everything readable is executable, or addresses stand still, undoes what mounts forbid."""

CLASS = "kernel"
REQUIREMENT = "F5"
CONTROL = """
NUMBER = {"x86_64": 135, "aarch64": 92}[os.uname().machine]
READ_IMPLIES_EXEC, MMAP_PAGE_ZERO, PER_LINUX32 = 0x400000, 0x100000, 0x8
say(answers=[call(NUMBER, wanted) for wanted in (READ_IMPLIES_EXEC, MMAP_PAGE_ZERO, PER_LINUX32)])
"""
ATTACK = CONTROL


def observe(_, after):
    answers = after["said"]["answers"]
    return ("ESCAPED", "it was taken on") if "done" in answers else ("BLOCKED", f"personality: {', '.join(answers)}")
