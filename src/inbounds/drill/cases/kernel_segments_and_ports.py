"""modify_ldt, iopl and ioperm: segments for 16-bit code (CVE-2015-5157) and the machine's ports."""

CLASS = "kernel"
REQUIREMENT = "F5"
CONTROL = """
if os.uname().machine != "x86_64":
    sys.exit("no such calls")
buffer = ctypes.create_string_buffer(64)
say(answers=[call(154, 0, buffer, 64), call(154, 1, buffer, 16), call(172, 3), call(173, 0x80, 1, 1)])
"""
ATTACK = CONTROL


def observe(_, after):
    answers = after["said"]["answers"]
    return ("ESCAPED", "it was done") if "done" in answers else ("BLOCKED", f"they say: {', '.join(answers)}")
