"""The kernel's log: addresses, other people's crashes, whatever services write there."""

CLASS = "kernel"
REQUIREMENT = "F1"
CONTROL = """
SYSLOG = {"x86_64": 103, "aarch64": 116}[os.uname().machine]
buffer = ctypes.create_string_buffer(1000)
say(answers=[call(SYSLOG, 3, buffer, 1000), call(SYSLOG, 10, 0, 0),
             outcome(lambda: os.close(os.open("/proc/kmsg", os.O_RDONLY | os.O_NONBLOCK))),
             outcome(lambda: os.close(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)))])
"""
ATTACK = CONTROL


def observe(_, after):
    answers = after["said"]["answers"]
    return ("ESCAPED", "the log can be read") if "done" in answers else ("BLOCKED", f"they say: {', '.join(answers)}")
