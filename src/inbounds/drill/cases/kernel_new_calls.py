"""The newest system calls, which a list of forbidden ones made last year does not have."""

CLASS = "kernel"
REQUIREMENT = "F5"
CONTROL = """
import struct
buffer = ctypes.create_string_buffer(1024)
size = ctypes.c_uint32(1024)
request = struct.pack("=IIQQQ", 32, 0, 1, 0, 0)
answers = {
    "memfd_secret": call(447, 0), "set_mempolicy_home_node": call(450, 0, 0, 0, 0), "map_shadow_stack": call(453, 0, 0, 0),
    "statmount": call(457, request, buffer, 1024, 0), "listmount": call(458, request, buffer, 8, 0),
    "lsm_list_modules": call(461, buffer, ctypes.byref(size), 0), "setxattrat": call(463, -100, b"/nonexistent", 0, b"x", 0, 0),
    "open_tree_attr": call(467, -100, b"/nonexistent", 0, 0, 0), "file_getattr": call(468, -100, b"/", buffer, 24, 0),
}
say(answers=answers)
"""
ATTACK = CONTROL


def observe(_, after):
    reached = [name for name, answer in after["said"]["answers"].items() if answer not in ("ENOSYS", "EPERM")]
    return ("ESCAPED", f"reached: {', '.join(reached)}") if reached else ("BLOCKED", "they do not exist")
