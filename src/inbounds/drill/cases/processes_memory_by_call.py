"""process_vm_readv and process_vm_writev need no file of /proc; filters that think of ptrace alone forget them."""

CLASS = "processes"
REQUIREMENT = "F1"
NEEDS = ("victim",)
SOURCE = """
NUMBERS = {"x86_64": (310, 311), "aarch64": (270, 271)}[os.uname().machine]
page = ctypes.create_string_buffer(b"x" * 8, 8)
local = (ctypes.c_uint64 * 2)(ctypes.addressof(page), 8)
# the victim is started as this program was: its addresses are read where it can be, guessed where not
def addresses(pid):
    try:
        return [int(line.split("-")[0], 16) for line in open(f"/proc/{pid}/maps") if " rw-p " in line]
    except OSError:
        return [ctypes.addressof(page)]
answers = set()
for pid in PIDS:
    for address in addresses(pid)[:3]:
        remote = (ctypes.c_uint64 * 2)(address, 8)
        answers.add(call(NUMBERS[0], pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0))
        answers.add(call(NUMBERS[1], pid, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0))
say(answers=sorted(answers))
"""
CONTROL = 'PIDS = [HOST["victim"]]\n' + SOURCE
ATTACK = 'PIDS = [1, HOST["victim"]]\n' + SOURCE


def observe(_, after):
    answers = after["said"]["answers"]
    return ("ESCAPED", "memory was moved") if "done" in answers else ("BLOCKED", f"both: {', '.join(answers)}")
