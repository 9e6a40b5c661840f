"""bpf(): maps and programs in the kernel, the richest source of its holes; reached if it looks at what it is given."""

CLASS = "kernel"
REQUIREMENT = "F5"
CONTROL = """
import struct
NUMBER = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
def bpf(command, attributes):
    buffer = ctypes.create_string_buffer(attributes, 128)
    return call(NUMBER, command, buffer, 128)
say(map=bpf(0, struct.pack("=IIIII", 2, 4, 8, 1, 0)), object=bpf(15, struct.pack("=III", 0xFFFFFF, 0, 0)))
"""
ATTACK = CONTROL


def observe(_, after):
    said = after["said"]
    if said["map"] == "done" or said["object"] not in ("EPERM", "ENOSYS"):
        return "ESCAPED", f"bpf is reached: {said}"
    return "BLOCKED", f"map: {said['map']}, object: {said['object']}"
