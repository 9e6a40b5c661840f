"""A file is made immutable, so that nobody can take the workspace away or back."""

CLASS = "kernel"
REQUIREMENT = "I2"
CONTROL = """
import fcntl, struct
GET, SET, IMMUTABLE = 0x80086601, 0x40086602, 0x10
file = open(WORK + "/stone", "w")
flags = struct.unpack("l", fcntl.ioctl(file, GET, bytes(8)))[0]
say(set=outcome(fcntl.ioctl, file, SET, struct.pack("l", flags | IMMUTABLE)))
outcome(fcntl.ioctl, file, SET, struct.pack("l", flags))
"""
ATTACK = CONTROL


def observe(_, after):
    answer = after["said"]["set"]
    return ("ESCAPED", "nobody could delete it") if answer == "done" else ("BLOCKED", f"FS_IOC_SETFLAGS: {answer}")
