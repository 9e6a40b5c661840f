"""io_uring opens, writes and connects without the system calls that a filter looks at (a class of its own since 2021)."""

CLASS = "kernel"
REQUIREMENT = "F5"
CONTROL = """
ring = ctypes.create_string_buffer(120)
say(setup=call(425, 8, ring), enter=call(426, -1, 0, 0, 0, 0, 0), register=call(427, -1, 0, 0, 0))
"""
ATTACK = CONTROL


def observe(_, after):
    said = after["said"]
    if said["setup"] == "done":
        return "ESCAPED", "a ring was set up"
    return "BLOCKED", f"setup: {said['setup']}, enter: {said['enter']}, register: {said['register']}"
