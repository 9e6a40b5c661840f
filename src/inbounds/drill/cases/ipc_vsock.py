"""AF_VSOCK reaches the hypervisor's host and other machines; network namespaces hold it back in the newest kernels only."""

CLASS = "ipc"
REQUIREMENT = "F6"
CONTROL = """
say(socket=outcome(lambda: socket.socket(40, socket.SOCK_STREAM).close()))
"""
ATTACK = CONTROL


def observe(_, after):
    made = after["said"]["socket"]
    return ("ESCAPED", "there is a way to the hypervisor") if made == "done" else ("BLOCKED", f"socket: {made}")
