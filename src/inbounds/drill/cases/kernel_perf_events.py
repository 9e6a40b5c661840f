"""perf_event_open: counters of one's own process are enough for its many holes and for side channels."""

CLASS = "kernel"
REQUIREMENT = "F5"
CONTROL = """
import struct
NUMBER = {"x86_64": 298, "aarch64": 241}[os.uname().machine]
# a software clock, without the kernel's part: what perf_event_paranoid leaves to everybody
attributes = ctypes.create_string_buffer(struct.pack("=IIQQQQQ", 1, 112, 0, 0, 0, 0, 0x60), 112)
say(opened=call(NUMBER, attributes, 0, -1, -1, 0))
"""
ATTACK = CONTROL


def observe(_, after):
    opened = after["said"]["opened"]
    return ("ESCAPED", "a counter was opened") if opened == "done" else ("BLOCKED", f"perf_event_open: {opened}")
