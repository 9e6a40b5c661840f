"""The host's device nodes by their usual names: virtual machines, FUSE, loop devices, memory, the kernel's log, consoles."""

CLASS = "kernel"
REQUIREMENT = "F5"
CONTROL = """
NAMES = ("kvm", "fuse", "loop-control", "mem", "port", "kmsg", "userfaultfd", "net/tun", "vhost-net", "vhost-vsock",
         "mapper/control", "btrfs-control", "autofs", "console", "tty0", "tty1", "input/event0", "dri/renderD128", "nvidiactl",
         "uinput", "rtc0", "hwrng", "hpet", "vga_arbiter", "cuse", "ppp", "rfkill", "cpu/0/msr", "sda", "vda", "nvme0n1", "dm-0")
opened = [name for name in NAMES if outcome(lambda: os.close(os.open("/dev/" + name, os.O_RDONLY | os.O_NONBLOCK))) == "done"]
listed = sorted(os.listdir("/dev"))
say(opened=opened, count=len(listed), more=[n for n in listed if n not in (
    "null", "zero", "full", "random", "urandom", "tty", "pts", "ptmx", "shm", "fd", "stdin", "stdout", "stderr", "core")])
"""
ATTACK = CONTROL


def observe(_, after):
    said = after["said"]
    if said["opened"] or said["more"]:
        return "ESCAPED", f"opened: {said['opened']}, there: {said['more'][:5]}"
    return "BLOCKED", f"/dev has {said['count']} harmless entries"
