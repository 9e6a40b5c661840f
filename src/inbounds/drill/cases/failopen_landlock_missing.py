"""A kernel without Landlock (its calls answer ENOSYS): the jail must say so, lose its level, refuse where it is asked
for, and keep its PID 1 unreadable and unwritable all the same.
"""

import ctypes
import errno
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inbounds.contracts.errors import HostError
from inbounds.sandbox.host import jail_python
from inbounds.sandbox.identity import identity
from inbounds.sandbox.jail import spawn
from inbounds.sandbox.probe import probe
from inbounds.sandbox.spec import REQUIRED, JailSpec

CLASS = "failopen"
REQUIREMENT = "F10"
KIND = "host"
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LEVEL_WITH = 2  # of a rootless host that has it
LANDLOCK_FIRST, LANDLOCK_LAST = 444, 446  # create_ruleset, add_rule, restrict_self: the same number everywhere
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
TOUCH = """
import json, os, sys
found = {}
for name, flags in (("mem", os.O_RDWR), ("environ", os.O_RDONLY), ("maps", os.O_RDONLY), ("root", os.O_RDONLY)):
    try:
        os.close(os.open(f"/proc/1/{name}", flags))
        found[name] = "done"
    except OSError as error:
        found[name] = os.strerror(error.errno)
print(json.dumps(found))
"""


def _older_kernel() -> None:
    """From here on this process and all below it have a kernel without Landlock; there is no way back."""
    steps = [
        (0x20, 0, 0, 0),  # the call's number
        (0x35, 0, 2, LANDLOCK_FIRST),
        (0x25, 1, 0, LANDLOCK_LAST),
        (0x06, 0, 0, ERRNO | errno.ENOSYS),
        (0x06, 0, 0, ALLOW),
    ]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    header = struct.pack("@HP", len(steps), ctypes.addressof(program))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0):
        raise OSError(ctypes.get_errno(), "no seccomp filter can be set")


def control(arena: Any) -> dict[str, Any]:
    """A sandbox that restricts itself where it can: the call fails, and it goes on."""
    _older_kernel()
    libc = ctypes.CDLL(None, use_errno=True)
    restricted = libc.syscall(ctypes.c_long(LANDLOCK_FIRST), None, ctypes.c_size_t(0), 1) >= 0
    (Path(arena.outside) / "written").write_text("by a program that thinks itself restricted")
    return {
        "said": "enforced" if restricted else "(nothing)",
        "level": LEVEL_WITH,
        "refused": "",
        "touched": {},
        "wrote": True,
    }


def attack(arena: Any) -> dict[str, Any]:
    """The real jail and the real probe."""
    _older_kernel()
    who = identity(str(arena.scratch))
    spec = JailSpec("coder", (jail_python(), "-I", "-S", "-c", TOUCH), cwd="/", deadline_ms=15_000)
    own, other = Path(arena.scratch) / "own", Path(arena.scratch) / "other"
    own.mkdir()
    other.mkdir()
    jail = spawn(spec, identity=who, scratch=own)
    try:
        jail.go()
        jail.wait(15)
    finally:
        jail.kill()
    try:
        asked = JailSpec("coder", ("true",), cwd="/", require=(*REQUIRED, "landlock_files"))
        spawn(asked, identity=who, scratch=other).kill()
        refused = ""
    except HostError as error:
        refused = error.found
    touched = json.loads((own / "stdout").read_text() or '{"its own word": "said"}')
    return {"said": jail.enforcement["landlock_files"], "level": probe().level, "refused": refused, "touched": touched}


def observe(_: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[str, str]:
    """What was said, and what was done."""
    said = after["said"]
    open_ways = [name for name, how in said["touched"].items() if how in {"done", "said"}]
    words = f"landlock {said['said']}; level {said['level']}; asked for: {said['refused'] or 'started'}"
    good = said["said"].startswith("absent") and said["level"] < LEVEL_WITH and said["refused"] and not open_ways
    return ("BLOCKED" if good else "ESCAPED"), f"{words}; PID 1 open at: {', '.join(open_ways) or 'nothing'}"
