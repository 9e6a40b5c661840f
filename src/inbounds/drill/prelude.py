"""What stands before every CONTROL and ATTACK: the words they may use, and the facts of their arena.

Text only: it runs as the case does, outside or inside a jail, with nothing of inbounds to import.
"""

import json
from collections.abc import Mapping
from typing import Any

# RFC 7464's record separator: what a case says is told apart from whatever else it or its children print.
RECORD = "\x1e"
SAID_MAX = 1_000  # lines of facts; a case says a handful

_SOURCE = """\
import ctypes, errno, json, os, socket, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def say(**facts):
    sys.stdout.flush()
    os.write(1, ("\\x1e" + json.dumps(facts, default=str) + "\\n").encode())
def outcome(function, *args, **named):
    try:
        function(*args, **named)
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
    except Exception as error:
        return type(error).__name__
    return "done"
def call(number, *args):
    ctypes.set_errno(0)
    made = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return "done" if made != -1 else errno.errorcode.get(ctypes.get_errno(), "?")
"""


def program(source: str, host: Mapping[str, Any], work: str) -> str:
    """The whole program: `source` is a source of its own, so that its line numbers are the case's."""
    facts = f"HOST = json.loads({json.dumps(dict(host))!r})\nWORK = {work!r}\n"
    return f"{_SOURCE}{facts}exec(compile({source!r}, '<case>', 'exec'))\n"


def parse(stdout: str) -> dict[str, Any]:
    """The facts that were said, later ones over earlier ones; a line that is none is passed over."""
    said: dict[str, Any] = {}
    for line in stdout.split(RECORD)[1 : SAID_MAX + 1]:
        text = line.split("\n", 1)[0]
        try:
            facts = json.loads(text)
        except ValueError:
            continue
        if isinstance(facts, dict):
            said.update(facts)
    return said
