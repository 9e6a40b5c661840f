"""binfmt_misc: an interpreter is registered for programs that others will execute."""

CLASS = "kernel"
REQUIREMENT = "F1"
SOURCE = """
path = WORK + "/formats"
os.makedirs(path, exist_ok=True)
def mount():
    if libc.mount(b"none", path.encode(), b"binfmt_misc", 0, None):
        raise OSError(ctypes.get_errno(), "mount")
mounted = outcome(mount)
def register():
    with open(path + "/register", "w") as file:
        file.write(":inbounds-drill:E::inboundsdrill::/bin/true:")
if mounted != "done" and FALL_BACK:
    path = FALL_BACK
say(mounted=mounted, registered=outcome(register))
"""
CONTROL = (
    """
if libc.unshare(0x10000000 | 0x20000):  # where it is good for nobody else
    sys.exit("no namespaces here")
FALL_BACK = ""
"""
    + SOURCE
)
ATTACK = 'FALL_BACK = "/proc/sys/fs/binfmt_misc"\n' + SOURCE


def observe(_, after):
    said = after["said"]
    if "done" in (said["mounted"], said["registered"]):
        return "ESCAPED", "an interpreter can be registered"
    return "BLOCKED", f"mount: {said['mounted']}, register: {said['registered']}"
