"""The kernel reads 32 bits of a call's number: io_uring_setup with something above them, past a filter that compares 64."""

CLASS = "kernel"
REQUIREMENT = "F5"
CONTROL = """
ring = ctypes.create_string_buffer(120)
say(answers=[call(425 | bits, 8, ring) for bits in (1 << 32, 1 << 63, 0xFFFFFFFF << 32)])
"""
ATTACK = CONTROL


def observe(_, after):
    answers = after["said"]["answers"]
    return ("ESCAPED", "a ring was set up") if "done" in answers else ("BLOCKED", f"they say: {', '.join(answers)}")
