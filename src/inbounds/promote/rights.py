"""What is left to a sealed promoter, and to each git that it starts: reading, running programs, and the store to write.

No socket, and no signal to another's process. git opens /dev/null.
"""

from inbounds.program.seal import Rights


def rights(store: str) -> Rights:
    """The row of this program."""
    return Rights(read=("/",), execute=("/",), write=("/dev/null",), own=(store,), threads=True)
