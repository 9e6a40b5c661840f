"""openat2, where a filter looks at open and openat only; and the old system calls open and creat."""

CLASS = "workspace"
REQUIREMENT = "F2"
CONTROL = """
import struct
paths = [ctypes.create_string_buffer((HOST["outside"] + "/" + name).encode()) for name in ("a", "b", "c")]
how = ctypes.create_string_buffer(struct.pack("=QQQ", os.O_WRONLY | os.O_CREAT, 0o600, 0))
AT_FDCWD = -100
x86 = os.uname().machine == "x86_64"
say(openat2=call(437, AT_FDCWD, paths[0], how, 24),
    open=call(2, paths[1], os.O_WRONLY | os.O_CREAT, 0o600) if x86 else "absent",
    creat=call(85, paths[2], 0o600) if x86 else "absent")
"""
ATTACK = CONTROL


def observe(before, after):
    said = {name: after["said"].get(name) for name in ("openat2", "open", "creat")}
    return "ESCAPED" if after["outside"] != before["outside"] else "BLOCKED", f"{said}"
