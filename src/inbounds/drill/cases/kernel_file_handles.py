"""name_to_handle_at and open_by_handle_at reach any file of a file system by its inode (shocker, 2014)."""

CLASS = "kernel"
REQUIREMENT = "F2"
CONTROL = """
import struct
NAME, OPEN = {"x86_64": (303, 304), "aarch64": (264, 265)}[os.uname().machine]
open(WORK + "/own", "w").close()
handle = ctypes.create_string_buffer(struct.pack("=Ii", 128, 0), 136)
mount = ctypes.c_int()
named = call(NAME, -100, (WORK + "/own").encode(), handle, ctypes.byref(mount), 0)
here = os.open(WORK, os.O_RDONLY)
root = ctypes.create_string_buffer(struct.pack("=IiQ", 8, 1, 2), 136)
say(named=named, opened=[call(OPEN, here, handle, 0), call(OPEN, here, root, 0)])
"""
ATTACK = CONTROL


def observe(_, after):
    said = after["said"]
    if said["named"] == "done" or "done" in said["opened"]:
        return "ESCAPED", f"handles: {said}"
    return "BLOCKED", f"name_to_handle_at: {said['named']}, open_by_handle_at: {', '.join(said['opened'])}"
