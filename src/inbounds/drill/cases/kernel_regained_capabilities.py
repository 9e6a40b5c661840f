"""Capabilities are taken back: by capset, as ambient ones, with uid 0, by a program that has them."""

CLASS = "kernel"
REQUIREMENT = "F1"
SOURCE = r"""
import struct
CAPSET = {"x86_64": 126, "aarch64": 91}[os.uname().machine]
raised = call(CAPSET, struct.pack("=Ii", 0x20080522, 0), struct.pack("=6I", 1 << 21, 1 << 21, 0, 0, 0, 0))
answers = [raised, "done" if libc.prctl(47, 2, 21, 0, 0) == 0 else "EPERM", outcome(os.setresuid, 0, 0, 0)]
status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
say(answers=answers, effective=int(status["CapEff"], 16), bounding=int(status["CapBnd"], 16), locked=status["NoNewPrivs"])
"""
CONTROL = "libc.unshare(0x10000000)\n" + SOURCE
ATTACK = SOURCE


def observe(_, after):
    said = after["said"]
    if "done" in said["answers"] or said["effective"] or said["bounding"] or said["locked"] != "1":
        return "ESCAPED", f"{said}"
    return "BLOCKED", f"they say: {', '.join(said['answers'])}; bounding set empty, no_new_privs"
