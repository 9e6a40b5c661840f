"""System calls and prctl, for which the standard library has no function.

Knows the calling convention and nothing of what is called.
"""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)


def syscall(number: int, *arguments: int | bytes | None) -> int:
    """One system call: integers go as long, bytes as a pointer to a copy; OSError on failure."""
    passed = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *passed), f"system call {number}")


def prctl(option: int, *arguments: int) -> int:
    """One prctl with integers; OSError on failure."""
    padded = [ctypes.c_ulong(one) for one in (*arguments, 0, 0, 0, 0)[:4]]
    return _checked(_libc.prctl(option, *padded), f"prctl {option}")


def prctl_filter(option: int, mode: int, program: bytes, instructions: int) -> None:
    """A prctl that takes a struct sock_fprog (linux/filter.h): seccomp's; OSError on failure."""

    class Fprog(ctypes.Structure):
        _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    filled = Fprog(instructions, program)
    _checked(_libc.prctl(option, ctypes.c_ulong(mode), ctypes.byref(filled), 0, 0), f"prctl {option}")


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
