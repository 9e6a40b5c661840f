"""The newer mount calls, which a filter of mount() does not see: open_tree, fsopen, fspick, move_mount, mount_setattr."""

CLASS = "processes"
REQUIREMENT = "F1"
SOURCE = """
answers = [call(430, b"tmpfs", 0), call(428, -100, b"/", 0x1 | 0x8000), call(433, -100, b"/", 0),
           call(442, -100, b"/", 0, ctypes.create_string_buffer(32), 32), call(429, -100, b"/", -100, b"/tmp", 0)]
say(answers=answers)
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
    return ("ESCAPED", "a mount was made") if "done" in answers else ("BLOCKED", f"they say: {', '.join(answers)}")
