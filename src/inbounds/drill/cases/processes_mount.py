"""mount and umount: something is laid over what is protected, or what protects is taken away."""

CLASS = "processes"
REQUIREMENT = "F1"
SOURCE = """
MS_BIND, MS_REMOUNT = 4096, 32
def mount(source, target, kind, flags):
    if libc.mount(source, target.encode(), kind, ctypes.c_ulong(flags), None):
        raise OSError(ctypes.get_errno(), "mount")
def umount(target):
    if libc.umount2(target.encode(), 2):
        raise OSError(ctypes.get_errno(), "umount")
say(answers=[outcome(mount, b"none", WORK, b"tmpfs", 0), outcome(mount, b"/", WORK, None, MS_BIND),
             outcome(mount, b"none", "/proc", b"proc", 0), outcome(mount, b"none", "/tmp", None, MS_REMOUNT),
             outcome(umount, WORK), outcome(umount, "/proc")])
"""
CONTROL = (
    """
if libc.unshare(0x10000000 | 0x20000):  # the operator's own mounts are left alone
    sys.exit("no namespaces here")
"""
    + SOURCE
)
ATTACK = SOURCE


def observe(_, after):
    answers = after["said"]["answers"]
    return ("ESCAPED", "the mounts were changed") if "done" in answers else ("BLOCKED", f"they say: {set(answers)}")
