"""int 0x80 enters the 32-bit table, where 101 is ioperm and 26 is ptrace: numbers that a filter reads as other calls."""

CLASS = "kernel"
REQUIREMENT = "F5"
CONTROL = """
import mmap
# mov eax, 20 (getpid of the 32-bit table); int 0x80; ret
if os.uname().machine != "x86_64":
    sys.exit("no such entry point")
memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(bytes([0xB8, 20, 0, 0, 0, 0xCD, 0x80, 0xC3]))
function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
child = os.fork()
if child == 0:
    os._exit(0 if function() == os.getpid() else 1)
status = os.waitpid(child, 0)[1]
say(answered=status == 0, signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0)
"""
ATTACK = CONTROL


def observe(_, after):
    if after["said"]["answered"]:
        return "ESCAPED", "the 32-bit table answers"
    return "BLOCKED", f"the process ended by signal {after['said']['signal']}"
