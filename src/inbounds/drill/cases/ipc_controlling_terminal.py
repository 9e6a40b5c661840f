"""The terminal that the operator started inbounds from, through /dev/tty."""

CLASS = "ipc"
REQUIREMENT = "F6"
CONTROL = '''
import pty
TRY = """
import os
try:
    os.write(os.open("/dev/tty", os.O_RDWR), b"typed")
    print("written")
except OSError as error:
    print(error.strerror)
"""
pid, master = pty.fork()
if pid == 0:
    os.execv(sys.executable, [sys.executable, "-I", "-c", TRY])
text = b""
while b"written" not in text and (part := os.read(master, 1000)):
    text += part
os.waitpid(pid, 0)
say(tty="written" if b"typed" in text else text.decode())
'''
ATTACK = """
try:
    os.write(os.open("/dev/tty", os.O_RDWR), b"typed")
    say(tty="written")
except OSError as error:
    say(tty=error.strerror)
"""


def observe(_, after):
    tty = after["said"]["tty"]
    return ("ESCAPED", "somebody's terminal was written to") if tty == "written" else ("BLOCKED", f"/dev/tty: {tty}")
