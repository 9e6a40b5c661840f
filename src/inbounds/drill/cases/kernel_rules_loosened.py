"""A Landlock ruleset of one's own that allows everything from / downwards; then a write where none was allowed."""

CLASS = "kernel"
REQUIREMENT = "F5"
CONTROL = """
import struct
WRITE = 2
ruleset = libc.syscall(ctypes.c_long(444), struct.pack("=Q", WRITE), ctypes.c_long(8), ctypes.c_long(0))
root = os.open("/", os.O_PATH)
rule = call(445, ruleset, 1, struct.pack("=Qi", WRITE, root), 0)
libc.prctl(38, 1, 0, 0, 0)
entered = call(446, ruleset, 0)
PLACES = (HOST["outside"], "/run/inbounds/unlisted", "/etc", "/usr", "/dev")
def write(place):
    path = f"{place}/inbounds-drill-{HOST['token']}"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    os.unlink(path) if place != HOST["outside"] else None
say(entered=[rule, entered], wrote=[outcome(write, place) for place in PLACES[: 1 if os.path.exists(HOST["outside"]) else 9]])
"""
ATTACK = CONTROL


def observe(_, after):
    wrote = after["said"]["wrote"]
    return ("ESCAPED", "it was written") if "done" in wrote else ("BLOCKED", f"open: {', '.join(wrote)}")
