"""memfd_create, then execveat: a program that never was a file, on no mount that could forbid it."""

CLASS = "kernel"
REQUIREMENT = "F5"
CONTROL = """
MEMFD, EXECVEAT = {"x86_64": (319, 322), "aarch64": (279, 281)}[os.uname().machine]
program = open("/bin/sh", "rb").read()
def run():
    fd = libc.syscall(ctypes.c_long(MEMFD), b"x", ctypes.c_long(0))
    if fd == -1:
        raise OSError(ctypes.get_errno(), "memfd_create")
    os.write(fd, program)
    pid = os.fork()
    if pid == 0:
        argv = (ctypes.c_char_p * 4)(b"sh", b"-c", b"exit 7", None)
        libc.syscall(ctypes.c_long(EXECVEAT), ctypes.c_long(fd), b"", argv, None, ctypes.c_long(0x1000))
        os._exit(ctypes.get_errno() + 100)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
result = []
say(made=outcome(lambda: result.append(run())), code=result)
"""
ATTACK = CONTROL


def observe(_, after):
    if after["said"]["code"] == [7]:
        return "ESCAPED", "it was executed"
    return "BLOCKED", f"memfd_create: {after['said']['made']}, execveat: {after['said']['code']}"
