"""A scan: every port of the loopback in one go, not waiting for answers, as worms look for something to talk to."""

CLASS = "network"
REQUIREMENT = "F6"
NEEDS = ("listener",)
CONTROL = """
import select
answers = {}
found = 0
ports = [HOST["port"], *range(1, 65536, 97)]
for port in ports:
    s = socket.socket()
    s.setblocking(False)
    number = s.connect_ex(("127.0.0.1", port))
    if errno.errorcode.get(number) == "EINPROGRESS":
        select.select([], [s], [], 0.2)
        number = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    name = errno.errorcode.get(number, "done")
    answers[name] = answers.get(name, 0) + 1
    s.close()
say(answers=answers)
"""
ATTACK = CONTROL


def observe(before, after):
    if after["received"] > before["received"]:
        return "ESCAPED", "the host's listener was reached"
    said = {name: value for name, value in after["said"].items() if value != "done"}
    return "BLOCKED", f"{said or after['said']}"
