"""A POSIX message queue, which has a name beside the file system and needs no file."""

CLASS = "ipc"
REQUIREMENT = "F6"
CONTROL = """
NUMBERS = {"x86_64": (240, 241), "aarch64": (180, 181)}[os.uname().machine]
made = call(NUMBERS[0], b"inbounds-drill-" + HOST["token"].encode(), os.O_CREAT | os.O_RDWR, 0o600, 0)
call(NUMBERS[1], b"inbounds-drill-" + HOST["token"].encode())
say(mq_open=made)
"""
ATTACK = CONTROL


def observe(_, after):
    made = after["said"]["mq_open"]
    return ("ESCAPED", "a queue was made") if made == "done" else ("BLOCKED", f"mq_open: {made}")
