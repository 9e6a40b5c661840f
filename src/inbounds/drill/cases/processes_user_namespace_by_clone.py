"""The same by clone and by clone3, whose flags stand in memory where no filter can look."""

CLASS = "processes"
REQUIREMENT = "F1"
CONTROL = """
import struct
NEWUSER, SIGCHLD = 0x10000000, 17
CLONE = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
answers = []
def cloned(number, *args):
    ctypes.set_errno(0)
    made = libc.syscall(ctypes.c_long(number), *args)
    if made == 0:
        os._exit(0)
    answers.append(errno.errorcode[ctypes.get_errno()] if made == -1 else "done")
    if made > 0:
        os.waitpid(made, 0)
long = ctypes.c_long
cloned(CLONE, long(NEWUSER | SIGCHLD), long(0), long(0), long(0), long(0))
cloned(435, struct.pack("=8Q", NEWUSER, 0, 0, 0, SIGCHLD, 0, 0, 0), long(64))
say(answers=answers)
"""
ATTACK = CONTROL


def observe(_, after):
    answers = after["said"]["answers"]
    return ("ESCAPED", "a namespace was made") if "done" in answers else ("BLOCKED", f"clone, clone3: {answers}")
