"""A descriptor of a file is passed in a message to somebody outside, who thereby holds what is inside."""

CLASS = "ipc"
REQUIREMENT = "F6"
NEEDS = ("socket", "abstract")
CONTROL = """
fd = os.open(WORK + "/handed", os.O_CREAT | os.O_RDWR, 0o600)
def hand(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.connect(path)
        socket.send_fds(s, [b"take it"], [fd])
say(handed=[outcome(hand, HOST[name]) for name in ("datagram", "abstract_datagram")])
"""
ATTACK = CONTROL


def observe(before, after):
    if after["received"] > before["received"]:
        return "ESCAPED", "somebody outside has the descriptor"
    return "BLOCKED", f"sendmsg: {', '.join(after['said']['handed'])}"
