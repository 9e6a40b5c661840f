"""A system call filter of one's own that allows everything, hoping that the last one counts; then what was forbidden."""

CLASS = "kernel"
REQUIREMENT = "F5"
CONTROL = """
import struct
allow = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
code = ctypes.create_string_buffer(allow, 8)
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 1, ctypes.addressof(code)), 16)
libc.prctl(38, 1, 0, 0, 0)
loaded = libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(program)), 0, 0)
NUMBER = {"x86_64": 317, "aarch64": 277}[os.uname().machine]
say(loaded=loaded == 0, again=call(NUMBER, 1, 0, program), answers=[call(425, 8, ctypes.create_string_buffer(120)),
    outcome(lambda: libc.unshare(0x10000000) and (_ for _ in ()).throw(OSError(ctypes.get_errno(), "")))])
"""
ATTACK = CONTROL


def observe(_, after):
    answers = after["said"]["answers"]
    if "done" in answers:
        return "ESCAPED", "what was forbidden is allowed"
    return "BLOCKED", f"filter loaded: {after['said']['loaded']}; io_uring, unshare: {', '.join(answers)}"
