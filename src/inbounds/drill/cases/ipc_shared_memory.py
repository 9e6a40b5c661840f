"""A System V shared memory segment of the host's, by its key, and what shm_open has left in /dev/shm."""

CLASS = "ipc"
REQUIREMENT = "F6"
NEEDS = ("shared-memory",)
CONTROL = r"""
libc.shmat.restype = ctypes.c_void_p
def attach():
    number = libc.shmget(HOST["shared_memory"], 0, 0)
    if number == -1:
        raise OSError(ctypes.get_errno(), "shmget")
    address = libc.shmat(number, None, 0o10000)
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), "shmat")
    say(segment=ctypes.string_at(address, 64).decode("ascii", "replace"))
def read():
    say(file=open(HOST["shared_memory_file"]).read())
say(tried=[outcome(attach), outcome(read)], listed=open("/proc/sysvipc/shm").read().count("\n") - 1)
"""
ATTACK = CONTROL


def observe(_, after):
    if after["leaked"]:
        return "ESCAPED", "the segment was read"
    return "BLOCKED", f"shmget, open: {', '.join(after['said']['tried'])}; {after['said']['listed']} segments listed"
