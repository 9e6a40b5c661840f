"""A System V message queue of the host's: what waits there is taken, and another message is left."""

CLASS = "ipc"
REQUIREMENT = "F6"
NEEDS = ("queue",)
CONTROL = """
def take():
    number = libc.msgget(HOST["queue"], 0)
    if number == -1:
        raise OSError(ctypes.get_errno(), "msgget")
    buffer = ctypes.create_string_buffer(4096)
    if libc.msgrcv(number, buffer, 4000, 0, 0o4000) == -1:
        raise OSError(ctypes.get_errno(), "msgrcv")
    say(message=buffer.raw[8:72].decode("ascii", "replace"))
say(taken=outcome(take))
"""
ATTACK = CONTROL


def observe(_, after):
    if after["leaked"]:
        return "ESCAPED", "the message was taken"
    return "BLOCKED", f"msgget: {after['said']['taken']}"
