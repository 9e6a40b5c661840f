"""A file that was written is mapped and made executable afterwards, which mmap alone would not see."""

CLASS = "kernel"
REQUIREMENT = "F5"
CONTROL = r"""
import mmap
libc.mmap.restype = ctypes.c_void_p
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
with open(WORK + "/code", "w+b") as file:
    file.write(b"\xc3" * 4096)
    file.flush()
    answers = []
    for flags in (mmap.MAP_PRIVATE, mmap.MAP_SHARED):
        address = libc.mmap(None, ctypes.c_size_t(4096), 1, flags, file.fileno(), ctypes.c_long(0))
        done = libc.mprotect(address, 4096, 5)
        answers.append("done" if done == 0 else errno.errorcode[ctypes.get_errno()])
        direct = libc.mmap(None, ctypes.c_size_t(4096), 5, flags, file.fileno(), ctypes.c_long(0))
        answers.append(errno.errorcode[ctypes.get_errno()] if direct == ctypes.c_void_p(-1).value else "done")
say(answers=answers)
"""
ATTACK = CONTROL


def observe(_, after):
    answers = after["said"]["answers"]
    return ("ESCAPED", "written code is executable") if "done" in answers else ("BLOCKED", f"mprotect, mmap: {answers}")
